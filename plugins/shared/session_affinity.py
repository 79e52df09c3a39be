"""Session affinity: the parameters, and how a session finds its endpoint; shared by the scorer and the filters."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from pydantic import Field, model_validator

from epp.framework import log
from epp.framework.candidates import Candidates
from epp.framework.data import DataKey
from epp.framework.handle import PluginContext
from epp.framework.interfaces import HeaderEdits, Role
from epp.framework.keys import AGENT_IDENTITY, SESSION_ID
from epp.framework.params import Deprecated, Int, Params, PluginReference, ProfileReference, moved
from epp.framework.results import SchedulingResult
from epp.framework.types import Endpoint, EndpointChange, EndpointId, InferenceRequest, ResponseInfo

_logger = log.get(__name__)

SESSION_ID_HEADER = "x-session-id"
"""Where a session id is looked for unless sources are configured."""
MAX_SESSIONS = 100_000
"""Sessions remembered at once, some 30 MB: clients choose their ids, so that a time limit alone bounds nothing."""
_LONGEST_ID = 64
"""Characters; of longer session ids a digest is remembered."""
SESSION_TOKEN_HEADER = "x-session-token"
"""Request and response header with the encoded endpoint. Source: llm-d-router: scheduling/scorer/sessionaffinity."""


class EncodedEndpointHeader(Params):
    """Options of the strategy ``encoded_endpoint_header``."""

    header: str = Field(
        default=SESSION_TOKEN_HEADER,
        min_length=1,
        description="Request and response header that carries the Base64 text of the endpoint's `namespace/name`.",
    )


class SessionSource(Params):
    """Where a session id is read from: one of the two."""

    header: str = Field(default="", description="Request header.")
    attribute: str = Field(default="", description="Data key of the request, such as `SessionID`.")
    producer: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Instance that writes the attribute; default: its usual producer."
    )

    @model_validator(mode="after")
    def _check(self) -> SessionSource:
        if bool(self.header) == bool(self.attribute):
            raise ValueError("exactly one of header and attribute must be given")
        if self.producer and not self.attribute:
            raise ValueError("producer needs attribute")
        return self


class SessionId(Params):
    """Options of the strategy ``session_id``."""

    sources: list[SessionSource] = Field(
        default=[], description="Tried in order, first non-empty value wins; default: the header `x-session-id`."
    )
    eviction_ttl_seconds: Int = Field(default=300, gt=0, description="Seconds after its last use that a session is forgotten.")
    eviction_sweep_seconds: Int = Field(default=10, gt=0, description="Seconds between searches for forgotten sessions.")


class EncodedHeaderParams(Params):
    """Affinity by an encoded endpoint in a header, the only strategy across clusters."""

    strategy: Literal["encoded_endpoint_header"] = Field(
        default="encoded_endpoint_header", description="How sessions are recognised."
    )
    profile_name: Annotated[str, ProfileReference(required=False)] = Field(
        default="", description="Scheduling profile whose target is bound; default: the primary one."
    )
    encoded_endpoint_header_config: EncodedEndpointHeader = Field(
        default_factory=EncodedEndpointHeader, description="Options of this strategy."
    )


class SessionAffinityParams(Params):
    """Affinity by an encoded endpoint in a header, or by a session id that this picker remembers."""

    strategy: Literal["encoded_endpoint_header", "session_id"] = Field(
        default="encoded_endpoint_header",
        description="`encoded_endpoint_header`: the client sends back a token with the endpoint; "
        "`session_id`: the picker remembers the endpoint of each session id.",
    )
    profile_name: Annotated[str, ProfileReference(required=False)] = Field(
        default="", description="Scheduling profile whose target is bound; default: the primary one."
    )
    encoded_endpoint_header_config: EncodedEndpointHeader = Field(
        default_factory=EncodedEndpointHeader, description="Options of `encoded_endpoint_header`."
    )
    session_id_config: SessionId = Field(default_factory=SessionId, description="Options of `session_id`.")
    header_name: Annotated[str, Deprecated("write encodedEndpointHeaderConfig.header, which wins")] = Field(
        default="", description="Older place of `encodedEndpointHeaderConfig.header` (llm-d v0.9)."
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_header(cls, document: object) -> object:
        return moved(document, "headerName", "encodedEndpointHeaderConfig", "header")


class Affinity(Protocol):
    """A way to recognise sessions."""

    def bound(self, request: InferenceRequest, candidates: Candidates) -> list[int]:
        """Positions of the candidates that the request's session is bound to; empty without a session or without them."""
        ...

    def pre_request(self, request: InferenceRequest, result: SchedulingResult, edits: HeaderEdits) -> None: ...

    def response_received(
        self, request: InferenceRequest, result: SchedulingResult, response: ResponseInfo, edits: HeaderEdits
    ) -> None: ...

    def endpoints_changed(self, change: EndpointChange) -> None: ...

    def debug_state(self) -> object: ...


class TokenAffinity:
    """The client keeps the binding: a response header names the endpoint, and the client sends it back.

    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/scorer/sessionaffinity
    """

    def __init__(self, header: str = SESSION_TOKEN_HEADER, profile: str = "") -> None:
        self._header = header.lower()
        self._profile = profile

    def bound(self, request: InferenceRequest, candidates: Candidates) -> list[int]:
        """The endpoint of this id; else all of the pod of this name, with or without its namespace."""
        token = request.headers.get(self._header)
        name = _decoded(token) if token else ""
        if not name:
            return []
        try:
            return [candidates.ids.index(EndpointId(name))]
        except ValueError:
            return [
                position
                for position, endpoint in enumerate(candidates.endpoints)
                if name in (endpoint.pod_name, f"{endpoint.namespace}/{endpoint.pod_name}")
            ]

    def pre_request(self, request: InferenceRequest, result: SchedulingResult, edits: HeaderEdits) -> None:
        """Nothing: the endpoint that answers is told, not the one that was meant to."""

    def response_received(
        self, request: InferenceRequest, result: SchedulingResult, response: ResponseInfo, edits: HeaderEdits
    ) -> None:
        """Tell the client which endpoint serves it."""
        endpoint: Endpoint | None = response.served
        if self._profile and self._profile != result.primary:
            endpoint = next(iter(result.targets_of(self._profile)), None)
        if endpoint is not None:
            edits.set(self._header, base64.b64encode(endpoint.id.encode()).decode())

    def endpoints_changed(self, change: EndpointChange) -> None:
        """Nothing is remembered."""

    def debug_state(self) -> object:
        """Where the bindings are."""
        return {"strategy": "encoded_endpoint_header", "header": self._header}


def _decoded(token: str) -> str:
    """The text of a session token; "" if it is none."""
    try:
        return base64.b64decode(token, validate=True).decode()
    except (binascii.Error, ValueError) as error:
        if _logger.v(log.DEBUG):
            _logger.debug("session token cannot be decoded, the request has no session", error=str(error))
        return ""


@dataclass(slots=True)
class _Seat:
    """An endpoint that sessions are bound to. Those of an endpoint that went away point at a seat that nobody has."""

    endpoint_id: EndpointId
    sessions: int = 0
    is_gone: bool = False


@dataclass(slots=True)
class _Session:
    """A binding."""

    seat: _Seat
    deadline_s: float


Read = Callable[[InferenceRequest], str | None]


class RememberedAffinity:
    """The picker keeps the binding: session id → endpoint, until the session is not used for some time.

    A session is bound when its request is sent, and to another endpoint only when its own is no candidate any more.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/scorer/sessionaffinity
    """

    def __init__(
        self,
        clock: Callable[[], float],
        read: Sequence[Read],
        *,
        profile: str = "",
        ttl_s: float = 300.0,
        sweep_s: float = 10.0,
        limit: int = MAX_SESSIONS,
    ) -> None:
        self._clock = clock
        self._read = tuple(read)
        self._profile = profile
        self._ttl_s = ttl_s
        self._sweep_s = sweep_s
        self._limit = limit
        self._sessions: dict[str, _Session] = {}
        """Least recently used first, so that expired ones are together."""
        self._seats: dict[EndpointId, _Seat] = {}
        self._next_sweep_s = clock() + sweep_s

    def bound(self, request: InferenceRequest, candidates: Candidates) -> list[int]:
        """The session's endpoint, if it is a candidate."""
        if not self._sessions:
            return []
        seat = self._seat(self._session_id(request))
        if seat is None:
            return []
        try:
            return [candidates.ids.index(seat.endpoint_id)]
        except ValueError:
            return []

    def pre_request(self, request: InferenceRequest, result: SchedulingResult, edits: HeaderEdits) -> None:
        """Bind a new session, or one whose endpoint is no candidate any more; note that it is used."""
        now = self._clock()
        if now >= self._next_sweep_s:
            self._sweep(now)
        session_id = self._session_id(request)
        run = result.profiles.get(self._profile or result.primary)
        if not session_id or run is None:
            return
        seat = self._seat(session_id)
        if seat is None or seat.endpoint_id not in run.candidates.ids:
            seat = self._seat_of(run.targets[0].id)
        self._drop(session_id)
        self._sessions[session_id] = _Session(seat, now + self._ttl_s)
        seat.sessions += 1
        if len(self._sessions) > self._limit:
            self._drop(next(iter(self._sessions)))

    def response_received(
        self, request: InferenceRequest, result: SchedulingResult, response: ResponseInfo, edits: HeaderEdits
    ) -> None:
        """Nothing is sent to the client."""

    def endpoints_changed(self, change: EndpointChange) -> None:
        """Forget those that are gone: their sessions are bound anew, also if one comes back under the same id."""
        for endpoint in change.removed:
            seat = self._seats.pop(endpoint.id, None)
            if seat is not None:
                seat.is_gone = True

    def debug_state(self) -> object:
        """Sessions by endpoint; those that expired are counted until the next sweep."""
        return {
            "strategy": "session_id",
            "sessions": len(self._sessions),
            "endpoints": {seat.endpoint_id: seat.sessions for seat in self._seats.values() if seat.sessions},
        }

    def _session_id(self, request: InferenceRequest) -> str:
        for read in self._read:
            text = read(request)
            if text:
                return text if len(text) <= _LONGEST_ID else hashlib.blake2b(text.encode("utf-8", "surrogatepass")).hexdigest()
        return ""

    def _seat(self, session_id: str) -> _Seat | None:
        session = self._sessions.get(session_id)
        if session is None or session.seat.is_gone or session.deadline_s <= self._clock():
            return None
        return session.seat

    def _seat_of(self, endpoint_id: EndpointId) -> _Seat:
        seat = self._seats.get(endpoint_id)
        if seat is None:
            seat = self._seats[endpoint_id] = _Seat(endpoint_id)
        return seat

    def _drop(self, session_id: str) -> None:
        session = self._sessions.pop(session_id, None)
        if session is None:
            return
        seat = session.seat
        seat.sessions -= 1
        if seat.sessions == 0 and self._seats.get(seat.endpoint_id) is seat:
            del self._seats[seat.endpoint_id]

    def _sweep(self, now_s: float) -> None:
        self._next_sweep_s = now_s + self._sweep_s
        while self._sessions:
            oldest = next(iter(self._sessions))
            if self._sessions[oldest].deadline_s > now_s:
                return
            self._drop(oldest)


def make_affinity(context: PluginContext, params: SessionAffinityParams) -> Affinity:
    """The affinity that the parameters ask for."""
    if params.strategy == "encoded_endpoint_header":
        return TokenAffinity(params.encoded_endpoint_header_config.header, params.profile_name)
    config = params.session_id_config
    sources = config.sources or [SessionSource(header=SESSION_ID_HEADER)]
    return RememberedAffinity(
        context.clock,
        [_reader(context, source) for source in sources],
        profile=params.profile_name,
        ttl_s=config.eviction_ttl_seconds,
        sweep_s=config.eviction_sweep_seconds,
    )


def reads_session_id(params: SessionAffinityParams) -> bool:
    """A source is the attribute that session-id-producer writes."""
    sources = params.session_id_config.sources
    return params.strategy == "session_id" and any(source.attribute == SESSION_ID.name for source in sources)


def _reader(context: PluginContext, source: SessionSource) -> Read:
    if source.header:
        name = source.header.lower()
        return lambda request: request.headers.get(name)
    known = {key.name: key for key in (SESSION_ID, AGENT_IDENTITY)}
    usual = known.get(source.attribute) or DataKey(source.attribute, str, source.producer)
    key = context.key(usual, source.producer)
    return lambda request: request.data.get(key)
