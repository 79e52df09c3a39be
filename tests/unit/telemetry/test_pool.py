"""Pool gauges from one look at the endpoints."""

from __future__ import annotations

import pytest

from epp.telemetry.metrics import Metrics
from epp.telemetry.pool import EndpointSample, PoolSnapshot, mean_and_deviation
from tests.unit.telemetry.scrape import samples, value


def watched(*endpoints: EndpointSample) -> Metrics:
    metrics = Metrics()
    metrics.watch_pool(lambda: PoolSnapshot("chat", endpoints))
    return metrics


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([], (0, 0), id="nothing"),
        pytest.param([7], (7, 0), id="one"),
        pytest.param([2, 4], (3, 1), id="the divisor is n, not n - 1"),
        pytest.param([0, 0, 3, 3], (1.5, 1.5), id="several"),
    ],
)
def test_mean_and_population_deviation(values: list[float], expected: tuple[float, float]) -> None:
    assert mean_and_deviation(values) == pytest.approx(expected)


def test_only_fresh_endpoints_are_averaged() -> None:
    metrics = watched(
        EndpointSample("a", is_fresh=True, waiting_queue=2, running_requests=1, kv_cache_usage=0.25),
        EndpointSample("b", is_fresh=True, waiting_queue=4, running_requests=3, kv_cache_usage=0.75),
        EndpointSample("stale", waiting_queue=100, running_requests=100, kv_cache_usage=1.0),
    )
    got = {
        name: value(metrics, f"llm_d_epp_{name}", name="chat")
        for name in (
            "ready_endpoints",
            "average_queue_size",
            "std_dev_queue_size",
            "average_running_requests",
            "std_dev_running_requests",
            "average_kv_cache_utilization",
            "std_dev_kv_cache_utilization",
        )
    }
    assert list(got.values()) == [2, 3, 1, 2, 1, 0.5, 0.25]


@pytest.mark.parametrize(
    "endpoints",
    [
        pytest.param((), id="an empty pool"),
        pytest.param((EndpointSample("a", waiting_queue=9, kv_cache_usage=0.9),), id="a stale endpoint"),
        pytest.param((EndpointSample("a", is_fresh=True),), id="a fresh endpoint without values"),
    ],
)
def test_averages_are_zero_rather_than_frozen(endpoints: tuple[EndpointSample, ...]) -> None:
    metrics = watched(*endpoints)
    assert value(metrics, "llm_d_epp_average_queue_size", name="chat") == 0
    assert value(metrics, "inference_pool_average_kv_cache_utilization", name="chat") == 0


def test_an_endpoint_shows_its_queue_scrape_age_and_failures() -> None:
    metrics = watched(EndpointSample("a", waiting_queue=3, scrape_age_s=0.5, scrape_failures=2))
    labels = {"name": "chat", "model_server_endpoint": "a"}
    assert value(metrics, "llm_d_epp_per_endpoint_queue_size", **labels) == 3
    assert value(metrics, "llm_d_epp_endpoint_scrape_age_seconds", **labels) == 0.5
    assert value(metrics, "llm_d_epp_endpoint_scrape_failures_total", **labels) == 2
    assert value(metrics, "inference_pool_per_pod_queue_size", name="chat", model_server_pod="a") == 3


def test_an_endpoint_never_scraped_has_failures_only() -> None:
    metrics = watched(EndpointSample("a", scrape_failures=7))
    mine = {name for (name, labels) in samples(metrics.exposition()) if ("model_server_endpoint", "a") in labels}
    assert mine == {"llm_d_epp_endpoint_scrape_failures_total"}


def test_endpoints_of_one_name_in_two_namespaces_are_told_apart() -> None:
    metrics = watched(EndpointSample("a", "n1", waiting_queue=1), EndpointSample("a", "n2", waiting_queue=2))
    assert value(metrics, "llm_d_epp_per_endpoint_queue_size", model_server_endpoint="n1/a") == 1
    assert value(metrics, "llm_d_epp_per_endpoint_queue_size", model_server_endpoint="n2/a") == 2


def test_an_endpoint_that_left_leaves_the_metrics() -> None:
    endpoints = [EndpointSample("a", waiting_queue=1), EndpointSample("b", waiting_queue=1)]
    metrics = Metrics()
    metrics.watch_pool(lambda: PoolSnapshot("chat", endpoints))
    assert value(metrics, "llm_d_epp_per_endpoint_queue_size", model_server_endpoint="a") == 1
    del endpoints[0]
    assert b'"a"' not in metrics.exposition()
