"""Learning in a thread, and what happens when it is slow or fails."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Coroutine, Sequence

import pytest

from epp.framework.testing import FakeClock, make_candidates, make_context, make_plugin
from epp.framework.types import EndpointId
from epp.process.runtime import TaskRuntime
from plugins.latency.features import Inputs, Row, columns
from plugins.latency.predictor import MOST_ROLES, MOST_WAITING_SAMPLES, RETRY_S, Predictor
from plugins.latency.regression import Key, Sample, Target
from plugins.latency.speeds import Speeds
from plugins.producers import predicted_latency as producer
from plugins.scorers import predicted_latency as scorer
from tests.unit.plugins.latency.rig import InlineRuntime, Recorder, constant

A, B = EndpointId("default/a"), EndpointId("default/b")
FIRST: Key = (Target.FIRST_TOKEN, "")
ROW = constant(1.0)


class Failing:
    """Learns ``good`` batches, then raises."""

    def __init__(self, good: int) -> None:
        self.good = good

    def learn(self, batch: Sequence[Sample]) -> dict[Key, Row]:
        if not self.good:
            raise ArithmeticError("broke down")
        self.good -= 1
        return {FIRST: constant(100.0)}


class Blocked:
    """Learns once it may; remembers the threads that it was asked in."""

    def __init__(self) -> None:
        self.may_go = threading.Event()
        self.threads: set[int] = set()
        self.batches: list[int] = []

    def learn(self, batch: Sequence[Sample]) -> dict[Key, Row]:
        self.threads.add(threading.get_ident())
        self.batches.append(len(batch))
        assert self.may_go.wait(10)
        return {FIRST: constant(100.0)}


class ListedRuntime(TaskRuntime):
    """Remembers its tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[asyncio.Task[None]] = []

    def spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        self.tasks.append(super().spawn(work, name))
        return self.tasks[-1]


async def test_a_slow_learner_delays_nobody_and_is_given_no_more_than_the_bound() -> None:
    runtime, blocked = ListedRuntime(), Blocked()
    predictor = Predictor(runtime, FakeClock(), lambda: blocked, pause_s=0)
    sent = 3 * MOST_WAITING_SAMPLES
    try:
        for _ in range(sent):
            predictor.observe(A, FIRST, ROW, 100.0)
            await asyncio.sleep(0)
        assert predictor.base_ms(FIRST, ROW) is None
        state = predictor.state()
        assert state["waiting"] == MOST_WAITING_SAMPLES
        blocked.may_go.set()
        await asyncio.gather(*runtime.tasks)
    finally:
        blocked.may_go.set()
        await runtime.stop()
    assert predictor.learned + predictor.dropped == sent
    assert predictor.base_ms(FIRST, ROW) == 100.0
    assert max(blocked.batches) <= MOST_WAITING_SAMPLES
    assert threading.get_ident() not in blocked.threads


def test_a_failure_is_raised_to_the_runtime_and_learning_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    runtime, clock = InlineRuntime(), FakeClock()
    learners = [Failing(1), Failing(9)]
    predictor = Predictor(runtime, clock, lambda: learners.pop(0), pause_s=0)
    predictor.observe(A, FIRST, ROW, 100.0)
    assert predictor.base_ms(FIRST, ROW) == 100.0
    predictor.observe(A, FIRST, ROW, 100.0)
    assert predictor.base_ms(FIRST, ROW) is None
    assert [str(error) for error in runtime.failures] == ["broke down"]
    [record] = caplog.records
    assert record.getMessage() == "latency prediction begins anew: learning failed"
    assert record.__dict__["fields"] == {"retry_s": RETRY_S}
    clock.advance(RETRY_S - 0.1)
    predictor.observe(A, FIRST, ROW, 100.0)
    assert predictor.base_ms(FIRST, ROW) is None
    clock.advance(0.2)
    predictor.observe(A, FIRST, ROW, 100.0)
    assert predictor.base_ms(FIRST, ROW) == 100.0
    assert (predictor.failures, predictor.learned) == (1, 3)


def test_without_a_runtime_nothing_is_learned_and_memory_is_bounded() -> None:
    predictor = Predictor(None, FakeClock())
    for _ in range(2 * MOST_WAITING_SAMPLES):
        predictor.observe(A, FIRST, ROW, 100.0)
    assert predictor.state()["waiting"] == MOST_WAITING_SAMPLES
    assert predictor.dropped == MOST_WAITING_SAMPLES


@pytest.mark.parametrize("value_ms", [0.0, -1.0, float("nan"), float("inf"), 1e12])
def test_what_is_no_latency_is_ignored(value_ms: float) -> None:
    recorder = Recorder()
    Predictor(InlineRuntime(), FakeClock(), lambda: recorder, pause_s=0).observe(A, FIRST, ROW, value_ms)
    assert recorder.samples == []


def test_predictions_do_not_fall_below_half_of_the_shortest_latency() -> None:
    recorder = Recorder({FIRST: constant(-500.0)})
    predictor = Predictor(InlineRuntime(), FakeClock(), lambda: recorder, pause_s=0)
    predictor.observe(A, FIRST, ROW, 80.0)
    predictor.observe(A, FIRST, ROW, 60.0)
    assert predictor.base_ms(FIRST, ROW) == 30.0


def test_roles_are_bounded() -> None:
    predictor = Predictor(None, FakeClock())
    assert [predictor.role(f"r{number}") for number in range(MOST_ROLES)] == [f"r{number}" for number in range(MOST_ROLES)]
    assert predictor.role("one more") == ""
    assert predictor.role("r3") == "r3"


def test_an_endpoint_that_is_slower_than_the_others_is_predicted_to_be() -> None:
    recorder = Recorder({FIRST: constant(100.0)})
    predictor = Predictor(InlineRuntime(), FakeClock(), lambda: recorder, pause_s=0)
    for _ in range(300):
        predictor.observe(A, FIRST, ROW, 100.0)
        predictor.observe(B, FIRST, ROW, 400.0)
    candidates = make_candidates(3)
    features = columns(candidates, Inputs(0), {})

    def predicted() -> list[float | None]:
        return predictor.predict_ms(Target.FIRST_TOKEN, [""] * 3, candidates.ids, features, 0.0)

    assert predicted() == pytest.approx([50.0, 200.0, 100.0], rel=0.05)
    assert [sample.value_ms for sample in recorder.samples[-2:]] == pytest.approx([200.0, 200.0], rel=0.05)
    predictor.forget(A)
    predictor.forget(B)
    assert predicted() == [100.0] * 3


def test_speeds_are_bounded() -> None:
    speeds = Speeds()
    for number in range(10_050):
        speeds.observe(EndpointId(f"default/{number}"), 2.0)
    assert len(speeds.state()) == 10_000
    assert "default/0" not in speeds.state()


@pytest.mark.parametrize("plugin_type", [producer.PLUGIN, scorer.PLUGIN], ids=lambda plugin_type: plugin_type.type)
def test_a_missing_library_is_named_with_its_extra(plugin_type: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs the package river.*pip install 'endpoint-picker\[latency\]'"):
        make_plugin(plugin_type)  # type: ignore[arg-type]


async def test_the_library_is_imported_in_a_thread_before_serving() -> None:
    runtime = TaskRuntime()
    context = make_context(producer.TYPE)
    context.runtime = runtime
    plugin = make_plugin(producer.PLUGIN, {}, context)
    try:
        await plugin.start()
    finally:
        await plugin.stop()
        await runtime.stop()
    assert "river" in sys.modules
