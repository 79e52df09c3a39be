"""latency-slo-admitter: who is refused, who passes."""

from __future__ import annotations

from typing import Any

import pytest

from epp.framework.candidates import Candidates
from epp.framework.keys import LATENCY_PREDICTION, LatencyPrediction
from epp.framework.testing import make_candidates, make_context, make_plugin, make_request
from epp.framework.types import EndpointMetrics
from plugins.admitters.latency_slo import DENIED, PLUGIN, LatencySloAdmitter

BUSY = EndpointMetrics(waiting_queue=3, running_requests=5, kv_cache_usage=0.5)
TTFT = {"x-slo-ttft-ms": "200"}


def prediction(*, ttft: bool = False, tpot: bool = True) -> LatencyPrediction:
    return LatencyPrediction(300.0, 10.0, -100.0, 5.0, ttft, tpot, 1)


def verdict(
    *,
    metrics: list[EndpointMetrics] | None = None,
    predictions: list[LatencyPrediction | None] | None = None,
    headers: dict[str, str] | None = None,
    priority: int = -1,
    producer: str = "",
) -> str | None:
    candidates: Candidates = make_candidates([BUSY] if metrics is None else metrics)
    request = make_request(headers=TTFT if headers is None else headers, priority=priority)
    found = [prediction()] * len(candidates) if predictions is None else predictions
    key = LATENCY_PREDICTION.by(producer) if producer else LATENCY_PREDICTION
    request.data.set(key, {i: p for i, p in zip(candidates.ids, found, strict=True) if p is not None})
    parameters: dict[str, Any] = {"latencyPredictionInfoProducerName": producer} if producer else {}
    admitter = make_plugin(PLUGIN, parameters, make_context())
    assert isinstance(admitter, LatencySloAdmitter)
    return admitter.admit(request, candidates)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="flow 93, H22: every prediction is missed"),
        pytest.param({"headers": {"x-llm-d-slo-ttft-ms": "200"}}, id="newer header"),
        pytest.param({"headers": {"x-slo-tpot-ms": "0.5"}}, id="only the time per token"),
        pytest.param({"metrics": [BUSY, BUSY]}, id="two endpoints"),
        pytest.param({"metrics": [BUSY, BUSY], "predictions": [prediction(), None]}, id="one without prediction"),
        pytest.param({"predictions": [prediction(ttft=True, tpot=False)]}, id="the time per token is missed"),
        pytest.param({"metrics": [EndpointMetrics(0, 1, 0.02)]}, id="2 % is not cold"),
        pytest.param({"producer": "mine"}, id="from a producer of another name"),
    ],
)
def test_refused(changes: dict[str, Any]) -> None:
    assert verdict(**changes) == DENIED


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"metrics": [EndpointMetrics(3, 5, 0.01)]}, id="flow 94: cold"),
        pytest.param({"metrics": [EndpointMetrics(3, 0, 0.5)]}, id="flow 94: nothing running"),
        pytest.param({"predictions": [None]}, id="flow 94: no prediction"),
        pytest.param({"headers": {}}, id="flow 94: no objective"),
        pytest.param({"metrics": [EndpointMetrics()]}, id="flow 94: never scraped"),
        pytest.param({"metrics": [EndpointMetrics(3, 5, float("nan"))]}, id="KV cache usage is no number"),
        pytest.param({"metrics": [BUSY, EndpointMetrics(0, 0, 0.5)]}, id="one of two is idle"),
        pytest.param({"priority": 0}, id="priority 0, H22"),
        pytest.param({"priority": 5}, id="high priority"),
        pytest.param({"predictions": [prediction(ttft=True)]}, id="objectives are met"),
        pytest.param({"metrics": [BUSY, BUSY], "predictions": [prediction(), prediction(ttft=True)]}, id="by one of two"),
        pytest.param({"headers": {"x-slo-ttft-ms": "soon", "x-slo-tpot-ms": "-3"}}, id="objectives are no numbers"),
        pytest.param({"metrics": []}, id="no candidates"),
    ],
)
def test_admitted(changes: dict[str, Any]) -> None:
    assert verdict(**changes) is None


def test_without_any_data_it_admits() -> None:
    admitter = make_plugin(PLUGIN)
    assert admitter.admit(make_request(headers=TTFT, priority=-1), make_candidates([BUSY])) is None
