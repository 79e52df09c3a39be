"""Flow control's series: bounded by the caps, and always in balance."""

from __future__ import annotations

from epp.telemetry.catalogue import PREFIX
from epp.telemetry.metrics import Metrics, MetricsOptions
from tests.unit.flowcontrol.rig import Engine, Foreseen
from tests.unit.telemetry.scrape import samples


def test_flow_98_a_thousand_fairness_ids_have_series_of_their_own() -> None:
    engine = Engine(Foreseen(1.0))
    arrivals = [engine.arrive(flow=f"id-{i}") for i in range(1500)]
    sizes = queue_sizes(engine.metrics)
    assert len(sizes) == 1001
    assert sizes["other"] == 500
    for arrival in arrivals[::2]:
        arrival.leaves()
    engine.drain()
    assert set(queue_sizes(engine.metrics).values()) == {0.0}
    engine.timers.advance(3600.0)
    assert set(queue_sizes(engine.metrics)) == {"other"}, "the series of many is never dropped"


def test_older_names_are_exposed_with_the_labels_of_their_readers() -> None:
    engine = Engine(Foreseen(0.0))
    engine.arrive()
    page = samples(engine.metrics.exposition())
    older = {name: set(labels) for name, labels in page if name.startswith("inference_extension_flow_control_")}
    pool = {("inference_pool", "pool")}
    flow = {("fairness_id", "default-flow"), ("priority", "0"), ("model_name", "m"), ("target_model_name", "m")}
    assert older["inference_extension_flow_control_queue_size"] == pool | flow
    assert older["inference_extension_flow_control_queue_bytes"] == pool | flow
    count = "inference_extension_flow_control_request_enqueue_duration_seconds_count"
    assert older[count] == {("priority", "0"), ("outcome", "NotYetFinalized")}
    assert older["inference_extension_flow_control_pool_saturation"] >= pool
    assert "inference_extension_flow_control_dispatch_cycle_duration_seconds_count" not in older, "nothing was queued"


def test_nothing_is_exposed_without_flow_control() -> None:
    assert b"flow_control" not in Metrics(MetricsOptions()).exposition()


def test_limits_that_are_not_set_have_no_series() -> None:
    engine = Engine(Foreseen(0.0))
    assert engine.metric("global_capacity_utilization_requests") is None
    assert engine.metric("capacity_utilization_requests", priority="0") == 0
    assert engine.metric("reclaim_target") is None


def test_the_age_of_the_oldest_request() -> None:
    engine = Engine(Foreseen(1.0))
    engine.arrive()
    engine.timers.advance(2.5)
    engine.arrive()
    assert engine.metric("oldest_request_age_seconds", priority="0") == 2.5


def queue_sizes(metrics: Metrics) -> dict[str, float]:
    """By fairness id."""
    page = samples(metrics.exposition())
    return {dict(labels)["fairness_id"]: v for (name, labels), v in page.items() if name == f"{PREFIX}flow_control_queue_size"}
