"""What would become of a request: decided as if it had come, without sending it, holding it or counting it.

A second director decides by the pipeline in use, over the same endpoints, with books of its own that nobody reads. Left out is
what has effects: plugins that answer by themselves, and everything from PreRequest on, where plugins first reserve and count.
Flow control is asked what it would do and does nothing: what it would refuse is refused, what it would hold goes on, and the
answer says so. The calls that are made are calls of the live plugins, so their durations are observed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import orjson

from epp.datalayer.store import EndpointStore
from epp.decision.candidates import CandidateFinder
from epp.decision.director import Director, DirectorOptions
from epp.decision.ledger import Ledger
from epp.decision.pipeline import Pipeline, PipelineInUse
from epp.decision.reading import ObjectLookup
from epp.decision.response import ResponseObserver
from epp.errors import PageError
from epp.extproc.readers import REQUEST_READERS
from epp.flowcontrol.admission import Admission, Hold, LegacyAdmission
from epp.flowcontrol.controller import FlowController
from epp.flowcontrol.forecast import Forecast, forecast
from epp.framework.candidates import Candidates
from epp.framework.types import Endpoint, InferenceRequest
from epp.hooks.runner import HookRunner, Spawn
from epp.request.headers import DESTINATION_SUBSET, METHOD, PATH, SUBSET_NAMESPACE
from epp.seam import BodyState, End, Metadata, Outcome, Reply, Route
from epp.telemetry.decision_record import DecisionRecord, OutcomeRecord, Why
from epp.telemetry.decision_ring import KeptDecision
from epp.telemetry.metrics import Metrics

_OVER = Outcome(End.DISCONNECTED, False, "", None, False, 0, 0, (), None, None, 0.0, 0.0, (), 0.0)


class RehearsedRequest:
    """A request that nobody sent; implements ``seam.Request``.

    Args:
        path: with its query, if it has one.
        headers: further headers, in any case.
        body: the whole body.
        metadata: of the data plane, by namespace.
        readers: names of the transport's request readers.
    """

    def __init__(
        self, path: str, headers: Mapping[str, str], body: bytes, metadata: Metadata, readers: Sequence[str] = ()
    ) -> None:
        self.headers = _Headers({"content-type": "application/json", **_lower(headers), PATH: path, METHOD: "POST"})
        self.metadata = metadata
        self.at_s = time.monotonic()
        self.body = memoryview(body)
        self.body_state = BodyState.COMPLETE
        self.read = tuple(self._read(name, body) for name in readers)

    @property
    def status(self) -> int:
        """Request readers are made with the request's head, whose status is 0."""
        return 0

    def _read(self, name: str, body: bytes) -> object:
        reader = REQUEST_READERS[name](self)
        reader.feed(body)
        return reader.result()

    @classmethod
    def of(cls, document: bytes, readers: Sequence[str] = ()) -> RehearsedRequest:
        """From JSON: ``{"path": ..., "headers": {...}, "body": ..., "subset": [...]}``; a body that is no text is sent as JSON.

        Raises:
            PageError: it is no such document.
        """
        try:
            asked = orjson.loads(document)
        except orjson.JSONDecodeError as error:
            raise PageError(f"not JSON: {error}") from error
        if not isinstance(asked, dict) or "body" not in asked:
            raise PageError('an object with "body", and perhaps "path", "headers" and "subset", is expected')
        headers, path, subset = asked.get("headers", {}), asked.get("path", ""), asked.get("subset")
        if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
            raise PageError('"headers" must be an object of texts')
        if not isinstance(path, str):
            raise PageError('"path" must be a text')
        body = asked["body"]
        data = body.encode() if isinstance(body, str) else orjson.dumps(body)
        metadata: Metadata = {}
        if subset is not None:
            metadata = {SUBSET_NAMESPACE: {DESTINATION_SUBSET: subset}}
        return cls(path or _usual_path(body), headers, data, metadata, readers)


class Rehearsal:
    """Decides about requests that nobody sent.

    Args:
        finder: the candidates.
        store, objects: of the pool.
        options: of its director.
        choose: draws one of several endpoints.
        spawn: starts tasks for plugins that wait.
        on_defect: told of our own failures.
        clock: of flow control; seconds, monotonic.
    """

    def __init__(
        self,
        finder: CandidateFinder,
        store: EndpointStore,
        objects: ObjectLookup,
        options: DirectorOptions,
        choose: Callable[[Sequence[Endpoint]], Endpoint],
        spawn: Spawn,
        on_defect: Callable[[str, Exception], None],
        clock: Callable[[], float],
    ) -> None:
        self._finder = finder
        self._store = store
        self._objects = objects
        self._options = options
        self._choose = choose
        self._spawn = spawn
        self._on_defect = on_defect
        self._clock = clock

    async def decide(self, pipeline: Pipeline, request: RehearsedRequest) -> dict[str, object]:
        """The record of the decision that ``request`` would get now, as JSON, with what flow control would do before it."""
        metrics, ledger, stream, written = Metrics(), Ledger(), _Stream(), _Written()
        admission = pipeline.admission
        foretold = _Foretold(admission, self._clock) if isinstance(admission, FlowController) else None
        let_in_by = admission if isinstance(admission, LegacyAdmission) else foretold
        director = Director(
            PipelineInUse(without_effects(pipeline, let_in_by, self._spawn)),
            self._finder,
            self._objects,
            metrics,
            ResponseObserver(self._store, ledger, metrics, self._on_defect),
            written,
            self._options,
            ledger=ledger,
            choose=self._choose,
            spawn=self._spawn,
        )
        director.request(stream, request)
        try:
            await stream.answered.wait()
        finally:
            director.finished(stream, _OVER)
        if written.record is None:
            raise RuntimeError("no record was made")
        if foretold is None or foretold.forecast is None:
            return {**written.record.as_json(), "flow_control": None}
        if foretold.forecast.refusal is None:
            written.record.admission = None  # nobody has let it in
        return {**written.record.as_json(), "flow_control": foretold.forecast.as_json()}


def without_effects(pipeline: Pipeline, admission: Admission | None, spawn: Spawn) -> Pipeline:
    """The same pipeline as far as it only decides, behind an admission that holds nothing."""
    hooks = replace(pipeline.hooks.hooks, responders=(), pre_request=(), received=(), streaming=(), complete=())
    return replace(pipeline, hooks=HookRunner(hooks, spawn), admission=admission)


class _Foretold:
    """Refuses what flow control would refuse, and lets go all else. Implements ``Admission``."""

    needs_candidates = False

    def __init__(self, control: FlowController, clock: Callable[[], float]) -> None:
        self._control = control
        self._clock = clock
        self.forecast: Forecast | None = None
        """Of the request; None = it did not get that far."""

    def admit(self, request: InferenceRequest, candidates: Candidates) -> Hold:  # noqa: ARG002 — it stands before them
        """A hold that has ended.

        Raises:
            RequestError: flow control would refuse it.
        """
        self.forecast = forecast(self._control, request, self._clock())
        if self.forecast.refusal is not None:
            raise self.forecast.refusal
        hold = Hold(lambda: None)
        hold.release()
        return hold


class _Headers:
    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def get(self, name: str) -> str | None:
        return self._values.get(name)

    def items(self) -> Iterator[tuple[str, str]]:
        return iter(self._values.items())


class _Stream:
    def __init__(self) -> None:
        self.state: object = None
        self.answered = asyncio.Event()

    def answer(self, answer: Route | Reply) -> None:  # noqa: ARG002 — the record says it
        self.answered.set()


class _Written:
    """Wants the one record."""

    def __init__(self) -> None:
        self.record: DecisionRecord | None = None

    def wants(self, _request: object) -> Why:
        return Why.REHEARSED

    def wants_failure(self) -> bool:
        return False

    def decided(self, record: DecisionRecord) -> KeptDecision | None:
        self.record = record
        return None

    def over(self, kept: KeptDecision | None, outcome: OutcomeRecord, record: Callable[[], DecisionRecord]) -> None:
        """Nothing was sent."""


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _usual_path(body: object) -> str:
    """Of the OpenAI API that has such bodies."""
    members = body if isinstance(body, dict) else {}
    if "messages" in members:
        return "/v1/chat/completions"
    return "/v1/responses" if "input" in members else "/v1/completions"
