"""session-id-producer: read the session id from a header or a cookie."""

from __future__ import annotations

from pydantic import Field, model_validator

from epp.framework.candidates import Candidates
from epp.framework.data import DataKey
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Role
from epp.framework.keys import SESSION_ID
from epp.framework.params import Params
from epp.framework.registry import PluginType
from epp.framework.types import HeaderView, InferenceRequest

TYPE = "session-id-producer"


class SessionIdProducerParams(Params):
    """Exactly one of both parameters."""

    header_name: str = Field(default="", description="Request header with the session id.")
    cookie_name: str = Field(default="", description="Cookie with the session id.")

    @model_validator(mode="after")
    def _check_single(self) -> SessionIdProducerParams:
        if bool(self.header_name) == bool(self.cookie_name):
            raise ValueError("exactly one of headerName and cookieName must be given")
        return self


class SessionIdProducer:
    """Write the session id of a request.

    Parameters: headerName or cookieName.
    Writes: SessionID, unless it is empty.
    Source: llm-d-router: pkg/epp/framework/plugins/requestcontrol/dataproducer/sessionid
    """

    def __init__(self, key: DataKey[str], header: str = "", cookie: str = "") -> None:
        self._key = key
        self._header = header.lower()
        self._cookie = cookie

    def produce(self, request: InferenceRequest, candidates: Candidates) -> None:
        """Write the id."""
        session = request.headers.get(self._header) if self._header else _cookie(request.headers, self._cookie)
        if session:
            request.data.set(self._key, session)


def _cookie(headers: HeaderView, name: str) -> str:
    """The value of the first cookie of this name, without quotes; "" if there is none."""
    for header, text in headers.items():
        if header != "cookie":
            continue
        for pair in text.split(";"):
            key, _, value = pair.strip().partition("=")
            if key == name:
                return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
    return ""


def _create(context: PluginContext, params: SessionIdProducerParams) -> SessionIdProducer:
    return SessionIdProducer(SESSION_ID.by(context.name), params.header_name, params.cookie_name)


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.DATA_PRODUCER}),
    summary="Reads the session id from a header or a cookie.",
    params=SessionIdProducerParams,
    factory=_create,
    produces=(SESSION_ID,),
    example="headerName: x-session-id",
)
