"""fcfs-, edf- and slo-deadline-ordering-policy: which request of a flow is next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.framework.flow_control import OrderingPolicy
from epp.framework.registry import PluginType
from epp.framework.testing import make_plugin, make_request
from epp.framework.types import InferenceRequest
from plugins.flowcontrol import ordering

FAR = float("inf")


@dataclass
class Waiting:
    """A request in a queue."""

    request: InferenceRequest
    enqueued_s: float = 0.0
    ttl_s: float = 0.0


def waiting(enqueued_s: float = 0.0, ttl_s: float = 0.0, slo: str | None = None, received_s: float = 0.0) -> Waiting:
    headers = {} if slo is None else {"x-llm-d-slo-ttft-ms": slo}
    return Waiting(replace(make_request(headers=headers), received_s=received_s), enqueued_s, ttl_s)


def policy(plugin_type: PluginType) -> OrderingPolicy:
    made: Any = make_plugin(plugin_type)
    assert isinstance(made, OrderingPolicy)
    return made


def ordered(plugin_type: PluginType, requests: Sequence[Waiting]) -> list[int]:
    """Positions in the order in which they are served."""
    made = policy(plugin_type)
    return sorted(range(len(requests)), key=lambda i: (made.sort_key(requests[i]), i))


@pytest.mark.parametrize(
    ("plugin_type", "requests", "expected"),
    [
        pytest.param(ordering.FCFS, [waiting(2.0), waiting(1.0), waiting(1.0)], [1, 2, 0], id="first come, first served"),
        pytest.param(ordering.FCFS, [waiting(0.0, 9.0), waiting(0.1, 1.0)], [0, 1], id="whatever their limits are"),
        pytest.param(
            ordering.EDF,
            [waiting(0.0, 10.0), waiting(5.0, 3.0), waiting(0.0, 0.0)],
            [1, 0, 2],
            id="flow 48: earliest expiry, without a limit last",
        ),
        pytest.param(ordering.EDF, [waiting(2.0, 1.0), waiting(1.0, 2.0)], [1, 0], id="of equal expiries the earlier arrival"),
        pytest.param(ordering.EDF, [waiting(2.0), waiting(1.0)], [1, 0], id="without any limit first come, first served"),
        pytest.param(
            ordering.SLO_DEADLINE,
            [waiting(slo="500", received_s=0.0), waiting(slo="100", received_s=0.3), waiting(received_s=0.1)],
            [1, 0, 2],
            id="flow 49: first token due first",
        ),
        pytest.param(
            ordering.SLO_DEADLINE, [waiting(received_s=0.2), waiting(received_s=0.1)], [1, 0], id="without any as received"
        ),
    ],
)
def test_order(plugin_type: PluginType, requests: Sequence[Waiting], expected: list[int]) -> None:
    assert ordered(plugin_type, requests) == expected


@pytest.mark.parametrize(
    ("text", "due_s"),
    [
        pytest.param("250.5", FAR, id="flow 50: no whole number"),
        pytest.param("-1", FAR, id="flow 50: negative"),
        pytest.param(" 250 ", 1000.25, id="flow 50: blanks around"),
        pytest.param("9223372036855", FAR, id="flow 50: longer than a Go duration"),
        pytest.param("0", 1000.0, id="flow 50: due at once"),
        pytest.param("9223372036854", 1000.0 + 9223372036.854, id="the longest"),
        pytest.param("abc", FAR, id="no number"),
        pytest.param("", FAR, id="empty"),
        pytest.param("٣", FAR, id="digits of other scripts"),
        pytest.param("1" * 5000, FAR, id="very long"),
        pytest.param("1_000", FAR, id="underscore"),
    ],
)
def test_objectives(text: str, due_s: float) -> None:
    assert policy(ordering.SLO_DEADLINE).sort_key(waiting(slo=text, received_s=1000.0)) == (pytest.approx(due_s), 1000.0)


def test_the_current_name_of_the_objective_wins() -> None:
    headers = {"x-llm-d-slo-ttft-ms": "", "x-slo-ttft-ms": "100"}
    assert policy(ordering.SLO_DEADLINE).sort_key(Waiting(make_request(headers=headers)))[0] == FAR
    assert policy(ordering.SLO_DEADLINE).sort_key(Waiting(make_request(headers={"x-slo-ttft-ms": "100"})))[0] == 0.1


limits = st.floats(0, 100, allow_nan=False)


@given(st.lists(st.tuples(limits, limits), min_size=1, max_size=20))
def test_i11_the_first_is_the_one_that_expires_first(requests: list[tuple[float, float]]) -> None:
    held = [waiting(enqueued, ttl) for enqueued, ttl in requests]
    first = held[ordered(ordering.EDF, held)[0]]

    def expiry(one: Waiting) -> float:
        return one.enqueued_s + one.ttl_s if one.ttl_s > 0 else FAR

    assert expiry(first) == min(map(expiry, held))


@given(st.lists(st.tuples(limits, st.none() | st.integers(0, 10_000)), min_size=1, max_size=20))
def test_i11_the_first_is_the_one_whose_token_is_due_first(requests: list[tuple[float, int | None]]) -> None:
    held = [waiting(slo=None if ms is None else str(ms), received_s=received) for received, ms in requests]
    due = [FAR if ms is None else received + ms / 1000 for received, ms in requests]
    assert due[ordered(ordering.SLO_DEADLINE, held)[0]] == min(due)
