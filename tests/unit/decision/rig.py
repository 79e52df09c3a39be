"""A director with all its real parts except wire and plugins: streams, requests and hooks that tests control."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from epp.datalayer.objects import ObjectStore, PoolIdentity
from epp.datalayer.store import EndpointStore
from epp.decision.candidates import CandidateFinder
from epp.decision.director import Director, DirectorOptions
from epp.decision.flight import Flight
from epp.decision.ledger import Ledger
from epp.decision.pipeline import Pipeline, PipelineInUse
from epp.decision.response import ResponseObserver
from epp.flowcontrol.admission import Admission, LegacyAdmission
from epp.framework.interfaces import Role, SaturationDetector
from epp.framework.keys import reading
from epp.framework.testing import FakeClock, FakeHeaders, make_plugin
from epp.framework.types import Endpoint
from epp.hooks.runner import HookRunner
from epp.hooks.slots import Hook, Hooks, make_hook
from epp.plugin_calls.guard import UNGUARDED, Guard
from epp.plugin_calls.step import CallWatch
from epp.process.runtime import TaskRuntime
from epp.request.parse import NamedParser, ParserTable
from epp.scheduling.cached_prefix import MatchKey
from epp.seam import BodyState, Chunk, End, Metadata, Outcome, Reply, Route
from epp.telemetry.cache_truth import CacheTruth
from epp.telemetry.decision_record import DecisionRecord, OutcomeRecord, Why
from epp.telemetry.decision_ring import DecisionRing, KeptDecision
from epp.telemetry.metrics import Metrics
from plugins.parsers import anthropic, openai, passthrough
from plugins.profile_handlers import single
from tests.unit.scheduling.doubles import Does, Reports, ignore, make_profile, make_scheduler
from tests.unit.telemetry.scrape import value

PARSERS = (openai.PLUGIN, anthropic.PLUGIN, passthrough.PLUGIN)
NO_HOOKS = Hooks()
COMPLETION: dict[str, object] = {"model": "m", "prompt": "hello"}


class FakeStream:
    """A stream that remembers its answers."""

    def __init__(self) -> None:
        self.state: object = None
        self.answers: list[Route | Reply] = []
        self.answered = asyncio.Event()

    def answer(self, answer: Route | Reply) -> None:
        self.answers.append(answer)
        self.answered.set()

    @property
    def route(self) -> Route:
        """The one answer, which forwards the request."""
        (answer,) = self.answers
        assert isinstance(answer, Route), answer
        return answer

    @property
    def reply(self) -> Reply:
        """The one answer, which refuses the request."""
        (answer,) = self.answers
        assert isinstance(answer, Reply), answer
        return answer

    @property
    def flight(self) -> Flight:
        assert isinstance(self.state, Flight)
        return self.state


@dataclass
class FakeRequest:
    """A request as a transport shows it."""

    headers: FakeHeaders
    body: memoryview = field(default_factory=lambda: memoryview(b""))
    body_state: BodyState = BodyState.COMPLETE
    metadata: Metadata = field(default_factory=dict)
    at_s: float = 1000.0
    read: tuple[object, ...] = ()


@dataclass
class FakeHead:
    """A response head as a transport shows it."""

    status: int = 200
    headers: FakeHeaders = field(default_factory=FakeHeaders)
    metadata: Metadata = field(default_factory=dict)
    at_s: float = 1001.0


def request(
    body: object = COMPLETION,
    *,
    path: str = "/v1/completions",
    headers: Mapping[str, str | None] | None = None,
    state: BodyState = BodyState.COMPLETE,
    metadata: Metadata | None = None,
) -> FakeRequest:
    """A request; a body that is no bytes becomes JSON, a header that is None is not there."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    own = {":path": path, "x-request-id": "r-1", **(headers or {})}
    shown = memoryview(data if state is BodyState.COMPLETE else b"")
    return FakeRequest(
        FakeHeaders({name: value for name, value in own.items() if value is not None}), shown, state, metadata or {}
    )


def outcome(end: End = End.NATURAL, **facts: Any) -> Outcome:
    """A stream that ended, by default with a whole JSON response of 10 bytes, 2 s after its request came."""
    usual: dict[str, Any] = {
        "complete": end is End.NATURAL,
        "error": "",
        "head": FakeHead(),
        "streaming": False,
        "chunks": 1,
        "size_bytes": 10,
        "read": (),
        "first_s": 1001.5,
        "last_s": 1001.5,
        "end_s": 1002.0,
        "busy_s": 0.001,
        "gaps": (),
        "gaps_s": 0.0,
    }
    return Outcome(end, **{**usual, **facts})


def chunk(data: bytes, *, end: bool = False, read: tuple[object, ...] = ()) -> Chunk:
    return Chunk(data, end, 1001.0, read)


class Plugin:
    """A plugin of every hook that writes its calls into a journal, and does what it is told.

    Args:
        name: in the journal.
        journal: shared by all plugins of a test.
        does: method name → exception to raise, function to call with the hook's arguments, or value to return.
    """

    def __init__(self, name: str, journal: list[str], **does: object) -> None:
        self.name = name
        self.journal = journal
        self._does = does

    def _do(self, method: str, *args: object) -> Any:
        self.journal.append(f"{self.name}.{method}")
        outcome = self._does.get(method)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome(*args) if callable(outcome) else outcome

    def process_request(self, *args: object) -> None:
        self._do("process_request", *args)

    def answers(self, *args: object) -> bool:
        return bool(self._do("answers", *args))

    def respond(self, *args: object) -> Any:
        return self._do("respond", *args)

    def rewrites(self, *args: object) -> bool:
        return bool(self._do("rewrites", *args))

    def rewrite(self, *args: object) -> Any:
        return self._do("rewrite", *args)

    def screen(self, request: object, candidates: object) -> Any:
        kept = self._do("screen", request, candidates)
        return candidates if kept is None else kept

    def produce(self, *args: object) -> Any:
        return self._do("produce", *args)

    def admit(self, *args: object) -> Any:
        return self._do("admit", *args)

    def pre_request(self, *args: object) -> Any:
        return self._do("pre_request", *args)

    def response_received(self, *args: object) -> None:
        self._do("response_received", *args)

    def response_streaming(self, *args: object) -> Any:
        return self._do("response_streaming", *args)

    def response_complete(self, *args: object) -> Any:
        return self._do("response_complete", *args)


class AsyncPlugin(Plugin):
    """The same with coroutine functions; what a method's function returns is awaited."""

    async def _wait(self, method: str, *args: object) -> Any:
        outcome = self._do(method, *args)
        return await outcome if asyncio.iscoroutine(outcome) else outcome

    async def respond(self, *args: object) -> Any:
        return await self._wait("respond", *args)

    async def rewrite(self, *args: object) -> Any:
        return await self._wait("rewrite", *args)

    async def produce(self, *args: object) -> Any:
        return await self._wait("produce", *args)

    async def admit(self, *args: object) -> Any:
        return await self._wait("admit", *args)

    async def pre_request(self, *args: object) -> Any:
        return await self._wait("pre_request", *args)

    async def response_streaming(self, *args: object) -> Any:
        return await self._wait("response_streaming", *args)

    async def response_complete(self, *args: object) -> Any:
        return await self._wait("response_complete", *args)


SLOTS = {
    "request_header": Role.REQUEST_HEADER,
    "screeners": Role.SCREENER,
    "producers": Role.DATA_PRODUCER,
    "admitters": Role.ADMITTER,
    "pre_request": Role.PRE_REQUEST,
    "received": Role.RESPONSE_RECEIVED,
    "streaming": Role.RESPONSE_STREAMING,
    "complete": Role.RESPONSE_COMPLETE,
}
OTHER_SLOTS = {"responders": Role.DIRECT_RESPONDER, "rewriters": Role.BODY_REWRITER}


def hook(role: Role, plugin: Any, reports: Reports | None = None, guard: Guard = UNGUARDED) -> Hook[Any]:
    """The plugin in a slot."""
    return make_hook(CallWatch(role, "plugin-type", plugin.name, reports or Reports(), ignore, guard), plugin)


def hooks(*plugins: Plugin, slots: Iterable[str] = SLOTS, reports: Reports | None = None) -> Hooks:
    """The plugins in these slots, in their order."""
    roles = {**SLOTS, **OTHER_SLOTS}
    return Hooks(**{slot: [hook(roles[slot], plugin, reports) for plugin in plugins] for slot in slots})  # type: ignore[arg-type]


def reporting(hooks: Hooks, reports: Reports) -> Hooks:
    """The same hooks, whose defects go to ``reports``."""

    def again(old: Hook[Any]) -> Hook[Any]:
        watch = CallWatch(old.watch.role, old.watch.type, old.name, reports, ignore, old.guard)
        return make_hook(watch, old.plugin, old.needs)

    return replace(hooks, **{slot: [again(old) for old in getattr(hooks, slot)] for slot in (*SLOTS, *OTHER_SLOTS)})


class Decisions:
    """A decision log that keeps the records."""

    def __init__(self, *, why: Why = Why.NOTHING) -> None:
        self._why = why
        self.records: list[DecisionRecord] = []
        self.outcomes: list[tuple[KeptDecision | None, OutcomeRecord, DecisionRecord]] = []
        self.ring = DecisionRing()
        self.repeats_failures = False

    def wants(self, request: object) -> Why:
        return self._why

    def wants_failure(self) -> bool:
        return self.repeats_failures

    def decided(self, record: DecisionRecord) -> KeptDecision | None:
        self.records.append(record)
        return self.ring.add(record) if record.why else None

    def over(self, kept: KeptDecision | None, outcome: OutcomeRecord, record: Callable[[], DecisionRecord]) -> None:
        self.outcomes.append((kept, outcome, record()))


class Rig:
    """A director over endpoints a, b, c at 192.168.1.1 to .3; the last one scores best.

    Args:
        hooks: of its configuration.
        handler, profile: of its scheduler.
        detector: says how full the pool is.
        admission: lets requests in, in place of what the detector says.
        endpoints: names of its endpoints.
        emit_scores: ``--emit-endpoint-scores``.
        why: decisions are recorded for this reason.
        request_readers: names of readers whose results its plugins read.
        match_keys: where producers of prefix matches write.
    """

    def __init__(
        self,
        hooks: Hooks = NO_HOOKS,
        *,
        handler: object = None,
        profile: object = None,
        detector: SaturationDetector | None = None,
        admission: Admission | None = None,
        endpoints: Sequence[str] = "abc",
        emit_scores: bool = False,
        why: Why = Why.NOTHING,
        match_keys: tuple[MatchKey, ...] = (),
        request_readers: Sequence[str] = (),
    ) -> None:
        self.metrics = Metrics()
        self.reports = Reports()
        self.failures: list[tuple[str, Exception]] = []
        self.runtime = TaskRuntime()
        self.decisions = Decisions(why=why)
        self.objects = ObjectStore(PoolIdentity("pool"))
        self.store = EndpointStore()
        self.store.replace_all([Endpoint.of(name, f"192.168.1.{i}", 8000) for i, name in enumerate(endpoints, 1)])
        rising = Does(lambda candidates: [i / 8 for i in range(len(candidates))])
        scheduler = make_scheduler(
            handler or make_plugin(single.PLUGIN),
            profile or make_profile(scorers=[(rising, 2.0)], reports=self.reports),  # type: ignore[arg-type]
            reports=self.reports,
        )
        self.cache_truth = CacheTruth(self.metrics, lambda _: None, self.store.cache_block_tokens)
        self.store.subscribe(self.cache_truth)
        self.ledger = Ledger()
        self.metrics.watch_requests(lambda: self.ledger.by_labels)
        pipeline = Pipeline(
            ParserTable([NamedParser(t.type, t.type, make_plugin(t)) for t in PARSERS]),
            scheduler,
            HookRunner(reporting(hooks, self.reports), self.runtime.spawn),
            admission or (LegacyAdmission(detector) if detector is not None else None),
            match_keys,
            tuple(map(reading, request_readers)),
        )
        self.director = Director(
            PipelineInUse(pipeline),
            CandidateFinder(self.store),
            self.objects,
            self.metrics,
            ResponseObserver(
                self.store,
                self.ledger,
                self.metrics,
                lambda place, error: self.failures.append((place, error)),
                self.cache_truth,
            ),
            self.decisions,
            DirectorOptions(emit_scores=emit_scores),
            ledger=self.ledger,
            choose=lambda targets: targets[0],
            spawn=self.runtime.spawn,
            clock=FakeClock(1000.25),
        )

    def send(self, sent: FakeRequest | None = None) -> FakeStream:
        """Hand a request over."""
        stream = FakeStream()
        self.director.request(stream, sent or request())
        return stream

    async def sent(self, sent: FakeRequest | None = None) -> FakeStream:
        """Hand a request over, and wait for its answer."""
        stream = self.send(sent)
        await stream.answered.wait()
        return stream

    async def settle(self) -> None:
        """Wait until no background task runs."""
        while tasks := list(self.runtime._tasks):
            await asyncio.wait(tasks)

    def count(self, family: str, /, **labels: str) -> float | None:
        """A sample of our own metrics."""
        return value(self.metrics, f"llm_d_epp_{family}", **labels)
