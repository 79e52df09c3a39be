"""Saturation by stage, and what any detector must hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.flowcontrol.saturation import Saturation
from epp.framework.candidates import Candidates
from epp.framework.testing import FakeClock, make_candidates, make_context, make_plugin
from epp.framework.types import EndpointMetrics
from plugins.flowcontrol import concurrency_detector, utilization_detector
from tests.unit.flowcontrol.rig import Engine, Foreseen, double

HEIMDALL, LLM_D = "mif.moreh.io/role", "llm-d.ai/role"


class MeanQueue:
    """The mean of the waiting queues, in tenths: any number can be written down as metrics."""

    def saturation(self, candidates: Candidates) -> float:
        queues = [queue or 0 for queue in candidates.waiting_queue]
        return sum(queues) / len(queues) / 10 if queues else 1.0


def pool(*servers: tuple[Mapping[str, str], int]) -> Candidates:
    """Endpoints with labels and a saturation in tenths."""
    return make_candidates(
        [EndpointMetrics(waiting_queue=queue) for _, queue in servers], [dict(labels) for labels, _ in servers]
    )


def role(value: str, label: str = HEIMDALL) -> dict[str, str]:
    return {label: value}


@pytest.mark.parametrize(
    ("servers", "expected"),
    [
        pytest.param(
            [(role("prefill"), 12), (role("decode"), 3), (role("decode"), 3)], (1.2, 1.2, 0.3), id="flow 24: the fuller stage"
        ),
        pytest.param([(role("both"), 9), (role("decode"), 1)], (0.9, 0.9, 0.5), id="flow 25: one of both stages"),
        pytest.param([(role("encode"), 4)], (0.4, None, None), id="flow 26: no stage: the whole pool"),
        pytest.param([({}, 2), ({}, 4)], (0.3, None, 0.3), id="flow 27: without labels"),
        pytest.param([(role("prefill"), 5)], (0.5, 0.5, None), id="nobody decodes"),
        pytest.param([(role("encode"), 20), ({}, 2)], (0.2, None, 0.2), id="encoding servers count in no stage"),
        pytest.param([({**role("decode"), **role("prefill", LLM_D)}, 2)], (0.2, None, 0.2), id="the first label counts"),
        pytest.param([(role("", HEIMDALL) | role("prefill", LLM_D), 2)], (0.2, None, 0.2), id="even if it is empty"),
        pytest.param([(role("prefill-decode", LLM_D), 7)], (0.7, 0.7, 0.7), id="llm-d's label"),
        pytest.param([(role("encode-prefill"), 6), (role("dancing"), 9)], (0.6, 0.6, None), id="an unknown role is none"),
        pytest.param([], (1.0, None, None), id="no endpoints"),
    ],
)
def test_stages(servers: Sequence[tuple[Mapping[str, str], int]], expected: tuple[float, float | None, float | None]) -> None:
    saturation = Saturation(double(MeanQueue()), lambda *_: None)
    candidates = pool(*servers)
    assert saturation.read(candidates) == pytest.approx(expected)
    assert saturation.effective(candidates) == pytest.approx(expected[0])


def test_stages_follow_the_endpoints() -> None:
    engine = Engine(MeanQueue(), endpoints=0)
    engine.scale(2, [role("prefill")])
    engine.scrape(0, waiting_queue=20)
    assert engine.metric("pool_saturation", stage="prefill") == 2.0
    assert engine.arrive().waits
    engine.scale(2, [role("encode")])
    assert engine.metric("pool_saturation", stage="prefill") is None
    assert engine.metric("pool_saturation", stage="effective") == 0.0


def test_metrics_of_an_empty_pool() -> None:
    engine = Engine(Foreseen(0.0), endpoints=0)
    assert engine.metric("pool_saturation", stage="effective") == 1.0
    assert engine.metric("pool_saturation", stage="decode") is None


# ── what any detector holds ──

Load = tuple[int, float] | None
loads = st.lists(st.none() | st.tuples(st.integers(0, 20), st.floats(0, 1.5)), max_size=6)


def scraped(given_loads: Sequence[Load]) -> Candidates:
    """Fresh endpoints with these loads, or stale ones."""
    return make_candidates(
        [EndpointMetrics(waiting_queue=load[0], kv_cache_usage=load[1]) if load else EndpointMetrics() for load in given_loads],
        updated_s=[0.0 if load else None for load in given_loads],
    )


def utilization(given_loads: Sequence[Load]) -> float:
    detector = make_plugin(utilization_detector.PLUGIN, {}, make_context(clock=FakeClock(0.0)))
    found: float = detector.saturation(scraped(given_loads))
    return found


class Counts:
    """Live counts by position."""

    def __init__(self, requests: Sequence[int], tokens: Sequence[int]) -> None:
        self._requests, self._tokens = requests, tokens

    def requests_in_flight(self, ids: Sequence[object]) -> Sequence[int]:
        return self._requests[: len(ids)]

    def tokens_in_flight(self, ids: Sequence[object]) -> Sequence[int]:
        return self._tokens[: len(ids)]


def concurrency(mode: str, flights: Sequence[tuple[int, int]]) -> float:
    params = concurrency_detector.ConcurrencyDetectorParams.decode(
        {"concurrencyMode": mode, "maxConcurrency": 10, "maxTokenConcurrency": 100}
    )
    counts = Counts([requests for requests, _ in flights], [tokens for _, tokens in flights])
    detector = concurrency_detector.ConcurrencyDetector(params, counts)
    return detector.saturation(make_candidates(len(flights)))


@given(loads, st.randoms())
def test_i22_utilization_does_not_depend_on_the_order(given_loads: list[Load], rng: object) -> None:
    shuffled = list(given_loads)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]  # a random.Random
    assert utilization(shuffled) == pytest.approx(utilization(given_loads))


@given(loads)
def test_i22_an_idle_endpoint_never_raises_the_value_and_a_stale_one_moves_it_towards_1(given_loads: list[Load]) -> None:
    now = utilization(given_loads)
    assert utilization([*given_loads, (0, 0.0)]) <= now + 1e-12
    assert abs(utilization([*given_loads, None]) - 1.0) <= abs(now - 1.0) + 1e-12


@given(
    st.sampled_from(["requests", "tokens", "hybrid"]),
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 300)), min_size=1, max_size=6),
    st.randoms(),
)
def test_i22_concurrency_does_not_depend_on_the_order_nor_rise_by_an_idle_endpoint(
    mode: str, flights: list[tuple[int, int]], rng: object
) -> None:
    shuffled = list(flights)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]  # a random.Random
    now = concurrency(mode, flights)
    assert concurrency(mode, shuffled) == pytest.approx(now)
    assert concurrency(mode, [*flights, (0, 0)]) <= now + 1e-12


roles = st.sampled_from(["prefill", "decode", "both", "encode", "", "odd"])


@given(st.lists(st.tuples(roles, st.integers(0, 30)), max_size=8))
def test_i22_the_pool_is_as_full_as_its_fullest_stage(servers: list[tuple[str, int]]) -> None:
    reading = Saturation(double(MeanQueue()), lambda *_: None).read(pool(*[(role(name), queue) for name, queue in servers]))
    stages = [value for value in (reading.prefill, reading.decode) if value is not None]
    assert all(reading.effective >= value for value in stages)
    assert not stages or reading.effective == max(stages)


# ── the value is remembered ──


def test_utilization_is_asked_again_once_metrics_are_stale_or_changed() -> None:
    clock = FakeClock(0.0)
    detector = make_plugin(utilization_detector.PLUGIN, {"stalenessPolicy": "ignore"}, make_context(clock=clock))
    candidates = scraped([(10, 0.0)])
    assert detector.saturation(candidates) == 2.0
    assert detector.next_change_s() == pytest.approx(0.2)
    clock.advance(0.2)
    assert (detector.saturation(candidates), detector.stale_endpoints(candidates)) == (2.0, 0)
    clock.advance(0.001)
    assert (detector.saturation(candidates), detector.stale_endpoints(candidates)) == (0.0, 1)


def test_the_pool_opens_when_the_metrics_of_either_stage_get_too_old() -> None:
    engine = Engine(0.0, endpoints=0)
    detector = make_plugin(utilization_detector.PLUGIN, {"stalenessPolicy": "ignore"}, make_context(clock=engine.clock))
    engine.control.use(replace(engine.settings, detector=double(detector)))
    engine.scale(2, [role("prefill"), role("decode")])
    engine.scrape(0, waiting_queue=10)
    engine.timers.advance(0.1)
    engine.scrape(1, waiting_queue=0)
    arrivals = [engine.arrive(), engine.arrive()]
    engine.timers.advance(0.099)
    assert all(arrival.waits for arrival in arrivals)
    engine.timers.advance(0.005)
    assert all(arrival.is_let_go for arrival in arrivals)


def test_stale_endpoints_are_counted_over_the_whole_pool() -> None:
    detector = make_plugin(utilization_detector.PLUGIN, {}, make_context(clock=FakeClock(0.0)))
    engine = Engine(detector, endpoints=0)
    engine.scale(3, [role("prefill"), role("decode")])
    engine.scrape(0, waiting_queue=0, kv_cache_usage=0.0)
    assert engine.metric("stale_endpoints", detector="detector") == 2
