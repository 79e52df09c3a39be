"""Cycles of profile handlers over the real scheduler: who ran, what came out, which headers were asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epp.framework.candidates import Candidates
from epp.framework.handle import PluginContext
from epp.framework.keys import PEER_ENDPOINT, PREFIX_CACHE_MATCH, PrefixMatch
from epp.framework.registry import PluginType
from epp.framework.results import SchedulingResult
from epp.framework.testing import RecordedEdits, RecordedMetrics, make_candidates, make_context, make_plugin, make_request
from epp.framework.types import Endpoint, EndpointMetrics, InferenceRequest
from epp.scheduling.profile import Profile
from tests.unit.scheduling.doubles import Best, Reports, keep, make_profile, make_scheduler


class Says:
    """A decider that always says the same, and remembers whom it was asked about."""

    def __init__(self, answer: bool) -> None:
        self.answer = answer
        self.asked: list[str | None] = []

    def disaggregate(self, request: InferenceRequest, endpoint: Endpoint | None) -> bool:
        self.asked.append(endpoint.name if endpoint is not None else None)
        return self.answer


@dataclass(frozen=True)
class Stage:
    """A profile that keeps these endpoints and picks ``count`` of them."""

    name: str
    keeps: str
    count: int = 1

    def profile(self, order: list[str], peers: dict[str, str] | None = None) -> Profile:
        """The profile; it notes in ``order`` that it ran, and in ``peers`` which endpoint was published to it."""
        return make_profile(self.name, filters=[_Note(self, order, {} if peers is None else peers)], picker=Best(self.count))


class _Note:
    def __init__(self, stage: Stage, order: list[str], peers: dict[str, str]) -> None:
        self._stage, self._order, self._peers = stage, order, peers

    def filter(self, request: InferenceRequest, candidates: Candidates) -> Candidates:
        self._order.append(self._stage.name)
        if peer := request.data.get(PEER_ENDPOINT):
            self._peers[self._stage.name] = peer.name
        return keep(*self._stage.keeps).filter(request, candidates)


@dataclass
class Run:
    """What came out of a cycle and the hook behind it."""

    result: SchedulingResult
    order: list[str]
    edits: RecordedEdits
    metrics: RecordedMetrics
    request: InferenceRequest
    peers: dict[str, str]
    """Stage → name of the endpoint that was published to its plugins."""

    @property
    def decisions(self) -> list[str]:
        """Values of ``decision_type`` that were counted."""
        return [key[-1] for key in self.metrics.counts]

    def picked(self) -> dict[str, list[str]]:
        """Names of the targets by profile."""
        return {name: [e.name for e in self.result.targets_of(name)] for name in self.result.profiles}


def handler_context(plugin_type: PluginType, **options: Any) -> PluginContext:
    """A context whose metrics are recorded."""
    return make_context(plugin_type.type, metrics=RecordedMetrics(), **options)


def cycle(
    plugin_type: PluginType,
    parameters: Mapping[str, Any] | None = None,
    *stages: Stage,
    candidates: Candidates | None = None,
    request: InferenceRequest | None = None,
    context: PluginContext | None = None,
) -> Run:
    """One scheduling cycle and the handler's PreRequest; endpoints a to e, unless ``candidates`` says otherwise.

    Raises:
        SchedulingError: as the scheduler raises it.
    """
    context = context or handler_context(plugin_type)
    handler = make_plugin(plugin_type, parameters, context)
    order: list[str] = []
    peers: dict[str, str] = {}
    reports = Reports()
    scheduler = make_scheduler(handler, *(stage.profile(order, peers) for stage in stages), reports=reports)
    request = request or make_request(target_model="t")
    try:
        result = scheduler.schedule(request, candidates or make_candidates(5))
    finally:
        assert not reports.seen
    edits = RecordedEdits()
    handler.pre_request(request, result, edits)
    assert isinstance(context.metrics, RecordedMetrics)
    return Run(result, order, edits, context.metrics, request, peers)


def matched(request: InferenceRequest, blocks: Mapping[str, int], *, block_size_tokens: int = 16, producer: str = "") -> None:
    """Write a prefix match for the endpoints of these names."""
    key = PREFIX_CACHE_MATCH.by(producer) if producer else PREFIX_CACHE_MATCH
    names = {endpoint.name: endpoint.id for endpoint in make_candidates(5)}
    request.data.set(key, {names[name]: PrefixMatch(count, 100, block_size_tokens) for name, count in blocks.items()})


def endpoints(*addresses: tuple[str, int]) -> Candidates:
    """Endpoints a, b, ... at these addresses."""
    made: Sequence[Endpoint] = [Endpoint.of(chr(ord("a") + i), host, port) for i, (host, port) in enumerate(addresses)]
    return Candidates(made, [EndpointMetrics()] * len(made))
