"""Protocols that plugins implement: when each is called, in what order, and what a failure means.

A plugin occupies every slot whose Protocol it implements and whose role its ``PluginType`` names. Order of one request:
RequestHeaderProcessor → BodyRewriter → (flow control) → Screener → DataProducer → Admitter → ProfileHandler with Filter,
Scorer, Picker → PreRequest → ResponseReceived → ResponseStreaming* → ResponseComplete; or a DirectResponder before all of
them. Hooks of several plugins run in declaration order (PreRequest: plain functions first).
Scheduling (ProfileHandler, Filter, Scorer, Picker, Decider) is synchronous and free of side effects; what must be remembered
is remembered in PreRequest. Other hooks may be plain functions or coroutine functions; the latter have a deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol, runtime_checkable

from epp.framework.candidates import Candidates
from epp.framework.keys import Topology
from epp.framework.results import ProfileResults, ProfileRunResult, SchedulingResult
from epp.framework.types import (
    Completion,
    Endpoint,
    EndpointChange,
    EndpointId,
    EndpointMetrics,
    HeaderView,
    InferenceRequest,
    ParsedBody,
    ResponseInfo,
    StreamingChunk,
)


class Role(StrEnum):
    """Slots that a plugin can occupy."""

    PROFILE_HANDLER = "ProfileHandler"
    DECIDER = "Decider"
    FILTER = "Filter"
    SCORER = "Scorer"
    PICKER = "Picker"
    REQUEST_HEADER = "RequestHeaderProcessor"
    DIRECT_RESPONDER = "DirectResponder"
    BODY_REWRITER = "BodyRewriter"
    SCREENER = "Screener"
    DATA_PRODUCER = "DataProducer"
    ADMITTER = "Admitter"
    PRE_REQUEST = "PreRequest"
    RESPONSE_RECEIVED = "ResponseReceived"
    RESPONSE_STREAMING = "ResponseStreaming"
    RESPONSE_COMPLETE = "ResponseComplete"
    PARSER = "Parser"
    DATA_SOURCE = "DataSource"
    EXTRACTOR = "Extractor"
    ENDPOINT_EXTRACTOR = "EndpointExtractor"
    DISCOVERY = "EndpointDiscovery"
    PEER_DISCOVERY = "PeerDiscovery"
    CROSS_REPLICA_SYNCER = "CrossReplicaSyncer"
    SATURATION_DETECTOR = "SaturationDetector"
    FAIRNESS_POLICY = "FairnessPolicy"
    ORDERING_POLICY = "OrderingPolicy"
    USAGE_LIMIT_POLICY = "UsageLimitPolicy"
    EVICTION_FILTER = "EvictionFilter"
    EVICTION_ORDER = "EvictionOrderPolicy"


SCHEDULING_ROLES = frozenset({Role.FILTER, Role.SCORER, Role.PICKER})
"""Roles that a ``schedulingProfiles[].plugins[].pluginRef`` activates."""

HOOK_ROLES = frozenset(
    {
        Role.REQUEST_HEADER,
        Role.DIRECT_RESPONDER,
        Role.BODY_REWRITER,
        Role.SCREENER,
        Role.DATA_PRODUCER,
        Role.ADMITTER,
        Role.PRE_REQUEST,
        Role.RESPONSE_RECEIVED,
        Role.RESPONSE_STREAMING,
        Role.RESPONSE_COMPLETE,
    }
)
"""Roles that are active as soon as the plugin is declared."""


class HeaderEdits(Protocol):
    """Changes of the request or response headers that a hook asks for.

    Names that the picker owns (destination, control headers, content-length) are ignored; a value with CR, LF or NUL is
    dropped and logged.
    """

    def set(self, name: str, value: str) -> None:
        """Replace all values of ``name``."""
        ...

    def remove(self, name: str) -> None:
        """Remove ``name``; nothing happens if it is not there."""
        ...

    def annotate(self, namespace: str, key: str, value: object) -> None:
        """Add dynamic metadata to the answer; the destination cannot be replaced."""
        ...


class SchedulingProfile(Protocol):
    """A named list of filters, weighted scorers and a picker, as a ProfileHandler sees it."""

    @property
    def name(self) -> str: ...


@runtime_checkable
class ProfileHandler(Protocol):
    """Chooses which profiles run, and what their results mean. Exactly one exists."""

    def pick(
        self,
        request: InferenceRequest,
        profiles: Mapping[str, SchedulingProfile],
        results: ProfileResults,
    ) -> Sequence[str]:
        """Names of the profiles to run next, of which none has run; called again with their results until it returns none.

        A stage that was decided against may be written into ``results`` as None, so that it is not considered again. What the
        plugins of the profiles to run next shall read goes there too, by ``results.publish``: the request is not written to.
        """
        ...

    def process_results(self, request: InferenceRequest, results: Mapping[str, ProfileRunResult | None]) -> SchedulingResult:
        """The result of the cycle; its targets are not empty.

        Raises:
            SchedulingError: no endpoint can serve the request; the client gets 429 with the text.
            RequestError: the request is refused with a status of its own. Any other exception is a defect: 429.
        """
        ...


@runtime_checkable
class Decider(Protocol):
    """Says for a ProfileHandler whether an optional stage of a request runs on another endpoint."""

    def disaggregate(self, request: InferenceRequest, endpoint: Endpoint | None) -> bool:
        """Must not raise; False where it cannot tell.

        Args:
            endpoint: the one that decodes; None where it is not chosen yet.
        """
        ...


@runtime_checkable
class Filter(Protocol):
    """Drops candidates. Raising fails the profile; it is never skipped."""

    def filter(self, request: InferenceRequest, candidates: Candidates) -> Candidates:
        """A subsequence of ``candidates`` (``candidates.where`` or ``.select``); may be empty."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """Rates candidates. One that raises or returns a wrong length counts as 0 for all and is reported as a defect."""

    def score(self, request: InferenceRequest, candidates: Candidates) -> Sequence[float]:
        """Scores, shape ``(len(candidates),)``, same order, in [0, 1]; what lies outside is clamped, NaN counts as 0."""
        ...


@runtime_checkable
class Picker(Protocol):
    """Chooses among scored candidates. Raising or returning nothing fails the profile."""

    def pick(self, request: InferenceRequest, candidates: Candidates, totals: Sequence[float]) -> Sequence[int]:
        """Positions in ``candidates``, best first, each at most once.

        Args:
            totals: weighted score sums, shape ``(len(candidates),)``.
        """
        ...


@runtime_checkable
class RequestHeaderProcessor(Protocol):
    """Sees the request before everything else is decided; a RequestError ends it."""

    def process_request(self, request: InferenceRequest, edits: HeaderEdits) -> None: ...


@runtime_checkable
class Screener(Protocol):
    """Restricts candidates for all profiles; several are intersected. None left → 503."""

    def screen(self, request: InferenceRequest, candidates: Candidates) -> Candidates: ...


@runtime_checkable
class DataProducer(Protocol):
    """Writes data keys of the request before scheduling. Failing or overrunning is logged; the request goes on."""

    def produce(self, request: InferenceRequest, candidates: Candidates) -> Awaitable[None] | None: ...


@runtime_checkable
class Admitter(Protocol):
    """Refuses requests: a returned text is sent with 429; a raised RequestError keeps its own status."""

    def admit(self, request: InferenceRequest, candidates: Candidates) -> Awaitable[str | None] | str | None: ...


@runtime_checkable
class PreRequest(Protocol):
    """Told of the decision before it is sent. All run, even if one fails; a failure refuses the request.

    Plain functions run within the decision, so that what they reserve is seen by the next one; coroutine functions follow them.
    """

    def pre_request(
        self, request: InferenceRequest, result: SchedulingResult, edits: HeaderEdits
    ) -> Awaitable[None] | None: ...


@runtime_checkable
class ResponseReceived(Protocol):
    """Sees the response headers before they go on. Failures are logged."""

    def response_received(
        self, request: InferenceRequest, result: SchedulingResult, response: ResponseInfo, edits: HeaderEdits
    ) -> None: ...


@runtime_checkable
class ResponseStreaming(Protocol):
    """Sees each chunk of a streaming response after it was forwarded. Failures are logged."""

    def response_streaming(
        self, request: InferenceRequest, result: SchedulingResult, chunk: StreamingChunk
    ) -> Awaitable[None] | None: ...


@runtime_checkable
class ResponseComplete(Protocol):
    """Told exactly once that a scheduled request is over, also after disconnects and failures. Failures are logged."""

    def response_complete(
        self, request: InferenceRequest, result: SchedulingResult, completion: Completion
    ) -> Awaitable[None] | None: ...


@runtime_checkable
class Parser(Protocol):
    """Reads request bodies of some paths."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Path suffixes claimed, without leading slash; () = takes what no other parser claims.

        A last segment ``*`` stands for any one: all methods of a gRPC service.
        """
        ...

    @property
    def app_protocols(self) -> tuple[str, ...]:
        """Values of the pool's appProtocol that it can serve; () = any."""
        ...

    def parse(self, path: str, headers: HeaderView, body: memoryview) -> ParsedBody:
        """Read one body.

        Args:
            path: without query and trailing slash.

        Raises:
            RequestError: BAD_REQUEST with the text for the client.
        """
        ...


@runtime_checkable
class DataSource(Protocol):
    """Reads something from an endpoint at an interval."""

    @property
    def output(self) -> str:
        """Kind of payload, such as ``prometheus-text``; an extractor's ``input`` must equal it."""
        ...

    @property
    def interval_s(self) -> float | None:
        """None = ``--refresh-metrics-interval``."""
        ...

    async def fetch(self, endpoint: Endpoint) -> bytes:
        """One payload.

        Raises:
            OSError: it could not be read; previous values stay.
        """
        ...

    async def close(self) -> None: ...


class Extraction(NamedTuple):
    """What an extractor made of a payload."""

    metrics: EndpointMetrics
    """``previous`` itself if nothing was read."""
    problems: Sequence[str] = ()
    """One sentence for each value that could not be read; it keeps its previous value."""
    is_fresh: bool = False
    """It tells how busy the server is: from now on the metrics of the endpoint are as old as this payload."""


@runtime_checkable
class Extractor(Protocol):
    """Reads values from a source's payload."""

    @property
    def input(self) -> str: ...

    def extract(self, payload: bytes, endpoint: Endpoint, previous: EndpointMetrics) -> Extraction:
        """What is known of the endpoint now.

        Args:
            previous: what was known before, also from other extractors.
        """
        ...


class PageAddress(NamedTuple):
    """Where a page is read with a plain GET."""

    url: str
    """For messages."""
    address: str
    """An IP address, without brackets."""
    port: int
    host: str
    """Value of the header ``Host``."""
    path: str
    """With the query."""


@runtime_checkable
class ServesPages(Protocol):
    """A DataSource whose payload is a plain page, so that native code may read it in its place."""

    def page(self, endpoint: Endpoint) -> PageAddress | None:
        """Where the page of an endpoint is; None = only ``fetch`` can read it."""
        ...


@runtime_checkable
class ReadsFamilies(Protocol):
    """An Extractor that looks only at some families of a metrics page, so that it may be given those lines alone.

    What it gives depends on these lines and the endpoint alone: while they stay the same it is not asked again, its metrics
    only count as read again.
    """

    def families(self, endpoint: Endpoint) -> frozenset[str]:
        """Names of the samples that it reads with ``FamilyReader``."""
        ...


@runtime_checkable
class ChoosesPath(Protocol):
    """An extractor that knows under which path its payload is served; the sources it is bound to ask it."""

    def path_for(self, endpoint: Endpoint, configured: str | None) -> str | None:
        """The path on this endpoint; None = the source's own.

        Args:
            endpoint: about to be read.
            configured: path that the source was given explicitly; None = it uses its default.
        """
        ...


@runtime_checkable
class TakesPaths(Protocol):
    """A source whose extractors may choose the path."""

    def take_paths(self, chooser: ChoosesPath) -> None:
        """Ask ``chooser`` before each fetch; called once for each extractor that is bound."""
        ...


class EndpointNotifier(Protocol):
    """Where discovery reports membership."""

    def upsert(self, endpoint: Endpoint) -> None: ...
    def delete(self, endpoint_id: EndpointId) -> None: ...
    def replace_all(self, endpoints: Sequence[Endpoint]) -> None:
        """Make the set of endpoints equal to this; endpoints that stay keep their metrics."""
        ...


@runtime_checkable
class EndpointDiscovery(Protocol):
    """Finds endpoints without Kubernetes."""

    ready: asyncio.Event
    """Set after the first complete pass."""

    async def run(self, notifier: EndpointNotifier) -> None:
        """Report endpoints until cancelled.

        Raises:
            ConfigError: the first pass failed; the process ends.
        """
        ...

    def reload(self) -> None:
        """Look again now (SIGHUP)."""
        ...


@runtime_checkable
class CountsInFlight(Protocol):
    """A producer of the load in flight whose counts are also asked for between requests."""

    def requests_in_flight(self, ids: Sequence[EndpointId]) -> Sequence[int]:
        """Live counts, shape ``(len(ids),)``."""
        ...

    def tokens_in_flight(self, ids: Sequence[EndpointId]) -> Sequence[int]:
        """Live counts, shape ``(len(ids),)``."""
        ...


@runtime_checkable
class LocatesEndpoints(Protocol):
    """An extractor that knows where an endpoint runs without reading anything from it."""

    def topology(self, endpoint: Endpoint) -> Topology: ...


@runtime_checkable
class SaturationDetector(Protocol):
    """Says how full the pool is."""

    def saturation(self, candidates: Candidates) -> float:
        """>= 1.0 means full."""
        ...


@runtime_checkable
class FollowsEndpoints(Protocol):
    """A plugin that keeps something for each endpoint. Raising is a defect, which keeps nobody else from hearing."""

    def endpoints_changed(self, change: EndpointChange) -> None:
        """Called once for each change of the pool, after it happened; first of all with the endpoints that are already there.

        Batches come in order, so that what was removed and added is always the pool.
        """
        ...


class CacheMismatch(StrEnum):
    """How predictions of cached prefixes and what a server reports differ for long."""

    NO_HITS = "no-hits"
    """Hits were predicted, the server reports none."""
    UNFORESEEN = "unforeseen-hits"
    """The server reports hits, none were predicted."""
    TOO_MANY = "fewer-hits-than-predicted"
    TOO_FEW = "more-hits-than-predicted"


@runtime_checkable
class ExplainsMismatch(Protocol):
    """A producer of prefix matches that knows why they differ from what a server reports."""

    def explain_mismatch(self, endpoint_id: EndpointId, mismatch: CacheMismatch) -> str:
        """The likely cause, in one sentence; "" = it knows none. Asked once for each change."""
        ...


@runtime_checkable
class HasState(Protocol):
    """A plugin that shows its state at /debug/plugins/state."""

    def debug_state(self) -> object:
        """Something JSON can hold; bounded."""
        ...


@runtime_checkable
class SetsDeadline(Protocol):
    """A plugin whose coroutine hooks wait on purpose: they have a deadline of their own, within that of the whole decision."""

    @property
    def deadline_s(self) -> float: ...


@runtime_checkable
class HasReadiness(Protocol):
    """A plugin that must be ready before the process is."""

    def is_ready(self) -> bool: ...


@runtime_checkable
class HasLifecycle(Protocol):
    """A plugin with background work: started on the event loop before serving, stopped last."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
