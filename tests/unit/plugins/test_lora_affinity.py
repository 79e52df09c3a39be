"""lora-affinity-scorer: active, room, waiting, in this order."""

from __future__ import annotations

import pytest

from epp.framework.testing import make_candidates, make_plugin, make_request
from epp.framework.types import EndpointMetrics
from plugins.scorers import lora_affinity


def metrics(active: str = "", waiting: str = "", most: int = 0) -> EndpointMetrics:
    return EndpointMetrics(
        active_models=frozenset(active.split()), waiting_models=frozenset(waiting.split()), max_active_models=most
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(metrics(active="x"), 1.0, id="active"),
        pytest.param(metrics(active="x y", most=1), 1.0, id="active, and more than fit"),
        pytest.param(metrics(active="y", most=2), 0.8, id="room for one more"),
        pytest.param(metrics(waiting="x", most=2), 0.8, id="waiting, and room: room comes first"),
        pytest.param(metrics(active="y", waiting="z", most=2), 0.0, id="waiting adapters take slots too"),
        pytest.param(metrics(waiting="x"), 0.6, id="waiting, capacity unknown"),
        pytest.param(metrics(active="y", waiting="x", most=2), 0.6, id="waiting, no room"),
        pytest.param(metrics(active="y", most=1), 0.0, id="full with others"),
        pytest.param(metrics(), 0.0, id="C27 no LoRA metrics"),
    ],
)
def test_score_of_one_endpoint(given: EndpointMetrics, expected: float) -> None:
    scores = make_plugin(lora_affinity.PLUGIN).score(make_request(model="x"), make_candidates([given]))
    assert scores == [expected]


def test_each_endpoint_is_judged_alone() -> None:
    candidates = make_candidates(
        [metrics(active="x"), metrics(active="y", most=2), metrics(waiting="x"), metrics(active="y", most=1)]
    )
    assert make_plugin(lora_affinity.PLUGIN).score(make_request(model="x"), candidates) == [1.0, 0.8, 0.6, 0.0], (
        "C26: active, room, waiting, full"
    )


def test_the_name_sent_to_the_server_counts() -> None:
    request = make_request(model="public", target_model="x")
    assert make_plugin(lora_affinity.PLUGIN).score(request, make_candidates([metrics(active="x")])) == [1.0]


def test_no_candidates() -> None:
    assert make_plugin(lora_affinity.PLUGIN).score(make_request(), make_candidates(0)) == []
