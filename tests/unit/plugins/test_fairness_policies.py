"""round-robin-fairness-policy, program-aware-fairness, global-strict-fairness-policy: which flow is next."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.framework.flow_control import FairnessPolicy
from epp.framework.testing import (
    FakeClock,
    RecordedEdits,
    RecordedMetrics,
    make_context,
    make_endpoint,
    make_plugin,
    make_request,
)
from epp.framework.types import Cause, Completion, Usage
from plugins.flowcontrol import fairness, program_aware
from tests.unit.plugins.flights import decided
from tests.unit.plugins.test_ordering_policies import Waiting

TARGET = make_endpoint()


class Flow:
    """A flow whose first request has waited since a moment."""

    def __init__(self, flow_id: str, enqueued_s: float = 0.0) -> None:
        self.id = flow_id
        self.head = Waiting(make_request(), enqueued_s)

    def __len__(self) -> int:
        return 1


class Programs:
    """program-aware-fairness with a clock."""

    def __init__(self, **parameters: Any) -> None:
        self.clock = FakeClock(0.0)
        self.metrics = RecordedMetrics()
        context = make_context(clock=self.clock)
        context.metrics = self.metrics
        self.policy: Any = make_plugin(program_aware.PLUGIN, parameters, context)

    def sent(self, program: str) -> None:
        self.policy.pre_request(replace(make_request(), fairness_id=program), decided(TARGET), RecordedEdits())

    def used(self, program: str, prompt: int, completion: int = 0) -> None:
        """A request is sent, and has used so many tokens."""
        self.sent(program)
        usage = Usage(prompt, completion, prompt + completion, found=True)
        over = Completion(Cause.NATURAL, 200, TARGET, usage, True, None, 0.0, 0, False)
        self.policy.response_complete(replace(make_request(), fairness_id=program), decided(TARGET), over)

    def next(self, *flows: Flow) -> str:
        turns = self.policy.new_turns()
        for flow in flows:
            turns.begin(flow)
        chosen: str = turns.next(self.clock.now_s).id
        return chosen


def test_policies_say_whether_flows_matter() -> None:
    made = [make_plugin(each) for each in (fairness.GLOBAL_STRICT, fairness.ROUND_ROBIN, program_aware.PLUGIN)]
    assert all(isinstance(policy, FairnessPolicy) for policy in made)
    assert [policy.by_flow for policy in made] == [False, True, True]  # type: ignore[attr-defined]


# ── round robin ──


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=300),
    st.sets(st.sampled_from("bdfhj"), min_size=1),
)
def test_i10_flows_that_keep_waiting_get_equal_shares(changes: list[int], steady: set[str]) -> None:
    """Whatever other flows come and go, between two turns of a flow each other one that waits all the time has exactly one."""
    turns = fairness.RoundRobinFairness().new_turns()
    flows = {name: Flow(name) for name in "abcdefghij"}
    present = set(steady)
    for name in present:
        turns.begin(flows[name])
    served: list[str] = []
    for change in changes:
        name = "abcdefghij"[change]
        if name not in steady:
            (turns.cease if name in present else turns.begin)(flows[name])
            present ^= {name}
        chosen = turns.next(0.0)
        assert chosen is not None
        assert chosen.id in present
        served.append(chosen.id)
    counts = Counter(name for name in served if name in steady)
    assert max(counts[name] for name in steady) - min(counts[name] for name in steady) <= 1
    own = [name for name in served if name in steady]
    for window in zip(*[own[i:] for i in range(len(steady))], strict=False):
        assert set(window) == steady


def test_round_robin_remembers_the_last_flow_when_nothing_waits() -> None:
    turns = fairness.RoundRobinFairness().new_turns()
    a, b = Flow("a"), Flow("b")
    turns.begin(a)
    assert turns.next(0.0) is a
    turns.cease(a)
    assert turns.next(0.0) is None
    turns.begin(a)
    turns.begin(b)
    assert turns.next(0.0) is b, "small ids have no advantage"


# ── programs ──


def test_flow_51_the_program_with_less_service_is_next() -> None:
    programs = Programs(lasHalfLifeSeconds=0)
    programs.used("a", 1000)
    programs.clock.advance(10.0)
    assert programs.next(Flow("a", 9.95), Flow("b", 9.99)) == "b"


def test_flow_52_of_equal_service_the_longer_wait_is_next() -> None:
    programs = Programs()
    programs.clock.advance(10.0)
    a, b = Flow("a", 9.95), Flow("b", 9.99)
    assert programs.policy._las_scores([a, b], 10.0) == pytest.approx([0.6, 0.4])
    assert programs.next(a, b) == "a"


def test_flow_51_scores() -> None:
    programs = Programs(lasHalfLifeSeconds=0)
    programs.used("a", 1000)
    programs.clock.advance(10.0)
    assert programs.policy._las_scores([Flow("a", 9.95), Flow("b", 9.99)], 10.0) == pytest.approx([0.2, 0.8])


def test_flow_53_service_fades_and_output_counts_twice() -> None:
    programs = Programs()
    programs.used("a", 800)
    programs.clock.advance(120.0)
    program = programs.policy._programs["a"]
    assert program.faded(120.0, 60.0) == pytest.approx(200)
    programs.used("a", 100, 50)
    assert program.service == pytest.approx(400)


def test_of_equal_programs_the_smaller_id_is_next() -> None:
    assert Programs().next(Flow("b"), Flow("a"), Flow("c")) == "a"


def test_an_empty_strategy_is_least_attained_service() -> None:
    programs = Programs(strategy="")
    programs.used("a", 1000)
    assert programs.next(Flow("a"), Flow("b")) == "b"


def test_turn_priority_favours_those_who_have_come_farthest_until_others_have_waited() -> None:
    programs = Programs(strategy="turn-priority", turnPriorityTimeWeight=0.5)
    for _ in range(3):
        programs.used("deep", 1)
    assert programs.next(Flow("deep", 0.0), Flow("new", 0.0)) == "deep"
    programs.clock.advance(10.0)
    assert programs.next(Flow("deep", 9.0), Flow("new", 2.0)) == "new", "3 + 0.5 against 0 + 4"


def test_idle_programs_are_forgotten_with_their_turns() -> None:
    programs = Programs(strategy="turn-priority", evictionTtlSeconds=100, evictionSweepSeconds=10)
    for _ in range(5):
        programs.used("old", 1)
    programs.sent("runs")
    programs.clock.advance(200.0)
    programs.used("other", 1)
    assert set(programs.policy._programs) == {"runs", "other"}
    assert programs.next(Flow("old", 200.0), Flow("other", 200.0)) == "other"


def test_programs_are_never_forgotten_with_a_ttl_of_0() -> None:
    programs = Programs(evictionTtlSeconds=0, evictionSweepSeconds=10)
    programs.used("old", 1)
    programs.clock.advance(1e6)
    programs.used("other", 1)
    assert set(programs.policy._programs) == {"old", "other"}


def test_waits_and_service_are_shown() -> None:
    programs = Programs(evictionSweepSeconds=1)
    programs.clock.advance(2.0)
    assert programs.next(Flow("a", 1.5)) == "a"
    programs.used("a", 10, 5)
    programs.used("b", 1)
    assert programs.metrics.levels["llm_d_epp_program_aware_avg_wait_time_milliseconds", "a"] == 500
    assert programs.metrics.levels["llm_d_epp_program_aware_attained_service_tokens", "a"] == 20
    programs.clock.advance(2.0)
    programs.used("b", 1)
    assert programs.metrics.levels["llm_d_epp_program_aware_jains_fairness_index",] == 0.5
    assert programs.policy.debug_state() == {"programs": 2, "inFlight": 0}


def test_series_of_programs_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_aware, "MAX_SHOWN", 3)
    programs = Programs()
    for number in range(10):
        programs.used(str(number), 1)
    assert len([key for key in programs.metrics.levels if key[0].endswith("milliseconds")]) == 3


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], 1.0), ([5.0], 1.0), ([0.0, 0.0], 1.0), ([1.0, 1.0], 1.0), ([1.0, 0.0], 0.5), ([4.0, 0.0, 0.0, 0.0], 0.25)],
    ids=str,
)
def test_jain_index(values: list[float], expected: float) -> None:
    assert program_aware.jain_index(values) == pytest.approx(expected)
