"""Events of requests, scheduling and plugins, seen in the exposition."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from epp.decision.ledger import Ledger
from epp.errors import ErrorCode
from epp.telemetry.catalogue import CATALOGUE
from epp.telemetry.legacy_names import LEGACY
from epp.telemetry.metrics import AttemptLabels, Build, Metrics, MetricsOptions, PluginLabels, Reloaded, RewriteLabels
from epp.telemetry.pool import EndpointSample, PoolSnapshot
from epp.telemetry.requests import RequestFacts, RequestLabels
from tests.unit.telemetry.events import LABELS, SHOWN, STREAMED, one_request
from tests.unit.telemetry.scrape import samples, types, value


def observed(metrics: Metrics, family: str) -> tuple[float | None, float | None]:
    """Count and sum of a family that has one child."""
    return value(metrics, f"llm_d_epp_{family}_count"), value(metrics, f"llm_d_epp_{family}_sum")


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("request_duration_seconds", 2.0),
        ("request_ttft_seconds", 0.5),
        ("request_streaming_tpot_seconds", 0.5),
        ("request_ntpot_seconds", 0.5),
        ("request_size_bytes", 100),
        ("response_size_bytes", 5000),
        ("request_input_tokens", 40),
        ("request_output_tokens", 4),
        ("request_cached_tokens", 16),
    ],
)
def test_a_streamed_request_is_observed_once(family: str, expected: float) -> None:
    metrics = Metrics()
    one_request(metrics)
    count, total = observed(metrics, family)
    assert count == 1
    assert total == pytest.approx(expected)


def test_gaps_keep_their_buckets() -> None:
    metrics = Metrics()
    one_request(metrics)
    assert observed(metrics, "request_streaming_itl_seconds") == (4, 0.016)
    assert value(metrics, "llm_d_epp_request_streaming_itl_seconds_bucket", le="0.001") == 0
    assert value(metrics, "llm_d_epp_request_streaming_itl_seconds_bucket", le="0.005") == 4
    assert value(metrics, "inference_objective_request_itl_seconds_bucket", le="0.005") == 4


@pytest.mark.parametrize(
    ("facts", "absent"),
    [
        pytest.param(STREAMED._replace(input_tokens=0), "request_input_tokens", id="no prompt tokens"),
        pytest.param(STREAMED._replace(output_tokens=0), "request_output_tokens", id="no completion tokens"),
        pytest.param(STREAMED._replace(output_tokens=0), "request_ntpot_seconds", id="NTPOT needs tokens"),
        pytest.param(STREAMED._replace(cached_tokens=0), "request_cached_tokens", id="nothing cached"),
        pytest.param(STREAMED._replace(request_bytes=None), "request_size_bytes", id="request size unknown"),
        pytest.param(STREAMED._replace(response_bytes=None), "response_size_bytes", id="response size unknown"),
        pytest.param(STREAMED._replace(ttft_s=None), "request_ttft_seconds", id="no body came"),
        pytest.param(STREAMED._replace(ttft_s=None), "request_streaming_tpot_seconds", id="TPOT needs TTFT"),
        pytest.param(STREAMED._replace(output_tokens=1), "request_streaming_tpot_seconds", id="TPOT needs two tokens"),
        pytest.param(STREAMED._replace(streaming=False), "request_streaming_tpot_seconds", id="TPOT needs a stream"),
        pytest.param(STREAMED._replace(duration_s=0.5), "request_streaming_tpot_seconds", id="TPOT needs time after TTFT"),
        pytest.param(STREAMED._replace(gaps=(), gaps_s=0.0), "request_streaming_itl_seconds", id="no gaps"),
        pytest.param(STREAMED._replace(duration_s=None), "request_duration_seconds", id="the response was cut"),
        pytest.param(STREAMED._replace(duration_s=None), "request_ntpot_seconds", id="NTPOT needs the whole duration"),
    ],
)
def test_what_is_unknown_is_not_observed(facts: RequestFacts, absent: str) -> None:
    metrics = Metrics()
    one_request(metrics, facts)
    assert observed(metrics, absent) == (None, None)


def test_ttft_tells_streamed_from_buffered() -> None:
    metrics = Metrics()
    one_request(metrics)
    one_request(metrics, STREAMED._replace(streaming=False, ttft_s=1.5))
    assert value(metrics, "llm_d_epp_request_ttft_seconds_sum", streaming="true") == 0.5
    assert value(metrics, "llm_d_epp_request_ttft_seconds_sum", streaming="false") == 1.5
    assert value(metrics, "inference_objective_request_ttft_seconds_sum") == 2.0


def test_labels_are_complete_and_priority_is_decimal() -> None:
    metrics = Metrics()
    one_request(metrics)
    assert samples(metrics.exposition())["llm_d_epp_request_total", frozenset(SHOWN.items())] == 1


def test_missing_labels_have_defaults() -> None:
    metrics = Metrics()
    metrics.request_scheduled(RequestLabels("llama"))
    metrics.request_scheduled(RequestLabels("llama", "llama", "default-flow"))
    expected = {"model_name": "llama", "target_model_name": "llama", "fairness_id": "default-flow", "priority": "0"}
    assert value(metrics, "llm_d_epp_request_total", **expected) == 2


def test_running_goes_up_and_comes_down() -> None:
    metrics, ledger = Metrics(), Ledger()
    metrics.watch_requests(lambda: ledger.by_labels)
    metrics.request_scheduled(LABELS)
    for _ in range(2):
        ledger.enter(LABELS)
    ledger.leave(LABELS)
    assert value(metrics, "llm_d_epp_request_running", **SHOWN) == 1
    ledger.leave(LABELS)
    assert value(metrics, "llm_d_epp_request_running", **SHOWN) == 0


def test_errors_are_counted_by_code_without_being_scheduled() -> None:
    metrics = Metrics()
    metrics.request_error(LABELS, ErrorCode.RESOURCE_EXHAUSTED)
    metrics.request_error(LABELS, ErrorCode.RESOURCE_EXHAUSTED)
    assert value(metrics, "llm_d_epp_request_error_total", **SHOWN, error_code="ResourceExhausted") == 2
    assert value(metrics, "llm_d_epp_request_total") is None


def test_older_names_add_up_what_their_labels_do_not_tell_apart() -> None:
    metrics, ledger = Metrics(), Ledger()
    metrics.watch_requests(lambda: ledger.by_labels)
    for fairness_id in ("a", "b"):
        for priority in (0, 1):
            labels = RequestLabels("llama", "lora", fairness_id, priority)
            one_request(metrics, labels=labels)
            ledger.enter(labels)
            metrics.request_error(labels, ErrorCode.INTERNAL)
    models = {"model_name": "llama", "target_model_name": "lora"}
    page = samples(metrics.exposition())
    assert page["inference_objective_request_total", frozenset({**models, "priority": "1"}.items())] == 2
    assert page["inference_objective_request_error_total", frozenset({**models, "error_code": "Internal"}.items())] == 4
    assert page["inference_objective_running_requests", frozenset({("model_name", "llama")})] == 4
    assert page["inference_objective_request_duration_seconds_count", frozenset(models.items())] == 4
    assert page["inference_objective_request_duration_seconds_sum", frozenset(models.items())] == 8.0
    assert page["inference_objective_request_duration_seconds_bucket", frozenset({**models, "le": "2"}.items())] == 4
    assert page["inference_objective_request_duration_seconds_bucket", frozenset({**models, "le": "1.5"}.items())] == 0


def test_older_histograms_keep_their_own_buckets() -> None:
    metrics = Metrics()
    one_request(metrics, STREAMED._replace(duration_s=1000.0, ttft_s=200.0, output_tokens=101))
    page = samples(metrics.exposition())

    def bounds(family: str) -> set[str]:
        return {dict(labels)["le"] for name, labels in page if name == f"{family}_bucket"}

    assert "3600" in bounds("inference_objective_request_ttft_seconds")
    assert "3600" not in bounds("llm_d_epp_request_ttft_seconds")
    assert "360" in bounds("inference_objective_request_tpot_seconds")
    assert bounds("llm_d_epp_request_streaming_tpot_seconds").isdisjoint({"1.5", "360"})
    assert value(metrics, "llm_d_epp_request_ttft_seconds_bucket", le="120") == 0
    assert value(metrics, "inference_objective_request_ttft_seconds_bucket", le="240") == 1
    assert value(metrics, "llm_d_epp_request_streaming_tpot_seconds_bucket", le="2") == 0
    assert value(metrics, "inference_objective_request_tpot_seconds_bucket", le="12") == 1


def test_older_names_can_be_left_out() -> None:
    metrics = Metrics(MetricsOptions(legacy=False))
    one_request(metrics)
    assert b"inference_" not in metrics.exposition()


def test_types_are_right_and_nothing_is_created() -> None:
    metrics = everything_once()
    page = metrics.exposition()
    kinds = {metric.name: metric.kind.value for metric in CATALOGUE}
    kinds |= {entry.name: kinds[entry.current] for entry in LEGACY}
    shown = types(page)
    assert {name: kind for name, kind in shown.items() if not name.startswith("process_")} == {
        name: kind for name, kind in kinds.items() if name in shown
    }
    assert b"_created" not in page
    assert shown["process_resident_memory_bytes"] == "gauge"
    assert shown["process_cpu_seconds_total"] == "counter"


def everything_once() -> Metrics:
    """One streamed request, one failing request, and the pool they met."""
    metrics = Metrics()
    metrics.watch_pool(lambda: PoolSnapshot("chat", [EndpointSample("pod-rank-0", "default", True, 1, 2, 0.5, 0.01)]))
    metrics.scheduler_attempt(AttemptLabels(True, "llama-lora", "pod-rank-0", "default", "8000"), 0.00003)
    metrics.plugin_duration(PluginLabels("Scorer", "queue-scorer", "queue-scorer")).observe(0.00001)
    one_request(metrics)
    metrics.request_processing(0.0008)
    metrics.response_processing(0.0003)
    metrics.request_error(LABELS, ErrorCode.MODEL_SERVER_ERROR)
    return metrics


OBJECTIVE = "inference_objective_"
DASHBOARDS = {
    "gateway dashboard": [
        "inference_pool_average_kv_cache_utilization",
        "inference_pool_average_queue_size",
        "inference_pool_per_pod_queue_size",
        f"{OBJECTIVE}request_total",
        f"{OBJECTIVE}request_error_total",
        f"{OBJECTIVE}request_duration_seconds_bucket",
        f"{OBJECTIVE}request_sizes_bucket",
        f"{OBJECTIVE}response_sizes_bucket",
        f"{OBJECTIVE}input_tokens_bucket",
        f"{OBJECTIVE}output_tokens_bucket",
    ],
    "gateway alerts": [
        f"{OBJECTIVE}request_duration_seconds_bucket",
        f"{OBJECTIVE}request_error_total",
        f"{OBJECTIVE}request_total",
        "inference_pool_average_queue_size",
        "inference_pool_average_kv_cache_utilization",
    ],
    "MIF dashboard": [
        "inference_pool_ready_pods",
        f"{OBJECTIVE}request_total",
        "inference_extension_scheduler_e2e_duration_seconds_bucket",
        f"{OBJECTIVE}request_ttft_seconds_bucket",
        f"{OBJECTIVE}request_tpot_seconds_bucket",
        f"{OBJECTIVE}request_itl_seconds_bucket",
        f"{OBJECTIVE}normalized_time_per_output_token_seconds_bucket",
        "inference_extension_info",
    ],
    "KServe dashboards": ["inference_extension_plugin_duration_seconds_bucket", f"{OBJECTIVE}request_total"],
    "workload autoscaler": ["inference_extension_scheduler_attempts_total"],
}


@pytest.mark.parametrize("dashboard", DASHBOARDS)
def test_a_published_dashboard_finds_its_series(dashboard: str) -> None:
    found = {name for name, _ in samples(everything_once().exposition())}
    assert set(DASHBOARDS[dashboard]) <= found


def test_build_info_is_there_from_the_first_scrape() -> None:
    metrics = Metrics(MetricsOptions(Build("1.2.3", "abc", "main")))
    assert value(metrics, "llm_d_epp_info", commit="abc", build_ref="main", version="1.2.3") == 1
    page = samples(metrics.exposition())
    assert page["inference_extension_info", frozenset({("commit", "abc"), ("build_ref", "main")})] == 1


def test_attempts_are_counted_by_endpoint_and_failures_without() -> None:
    metrics = Metrics()
    metrics.scheduler_attempt(AttemptLabels(True, "m", "pod-a", "ns", "8000"), 0.001)
    metrics.scheduler_attempt(AttemptLabels(True, "m", "pod-a", "ns", "8000"), 0.001)
    metrics.scheduler_attempt(AttemptLabels(False, "m"), 0.001)
    name = "llm_d_epp_scheduler_attempts_total"
    assert value(metrics, name, status="success", endpoint_name="pod-a", namespace="ns", port="8000") == 2
    assert value(metrics, name, status="failure", endpoint_name="", namespace="", port="") == 1
    assert value(metrics, "inference_extension_scheduler_attempts_total", status="success", pod_name="pod-a") == 2
    assert value(metrics, "llm_d_epp_scheduler_e2e_duration_seconds_count") == 3
    assert value(metrics, "llm_d_epp_scheduler_e2e_duration_seconds_sum") == pytest.approx(0.003)


def test_series_of_departed_endpoints_are_dropped_and_begin_anew() -> None:
    pool = [EndpointSample("pod-a", "ns"), EndpointSample("pod-b", "ns")]
    metrics = Metrics()
    metrics.watch_pool(lambda: PoolSnapshot("chat", pool))
    name = "llm_d_epp_scheduler_attempts_total"
    for endpoint in ("pod-a", "pod-b"):
        metrics.scheduler_attempt(AttemptLabels(True, "m", endpoint, "ns", "8000"), 0.001)
    metrics.scheduler_attempt(AttemptLabels(False, "m"), 0.001)
    assert value(metrics, name, endpoint_name="pod-a") == 1
    gone = pool.pop(0)
    assert value(metrics, name, endpoint_name="pod-a") is None
    assert value(metrics, name, endpoint_name="pod-b") == 1
    assert value(metrics, name, status="failure") == 1
    pool.append(gone)
    metrics.scheduler_attempt(AttemptLabels(True, "m", "pod-a", "ns", "8000"), 0.001)
    assert value(metrics, name, endpoint_name="pod-a") == 1


def test_plugins_are_timed_and_their_errors_counted() -> None:
    metrics = Metrics()
    labels = PluginLabels("Filter", "by-label", "decode-only")
    metrics.plugin_duration(labels).observe(0.002)
    metrics.plugin_duration(labels).observe(0.004)
    metrics.plugin_error(labels)
    shown = {"extension_point": "Filter", "plugin_type": "by-label", "plugin_name": "decode-only"}
    assert value(metrics, "llm_d_epp_plugin_duration_seconds_sum", **shown) == pytest.approx(0.006)
    assert value(metrics, "llm_d_epp_plugin_errors_total", **shown) == 1


def test_rewrites_and_data_layer_errors_are_counted() -> None:
    metrics = Metrics()
    metrics.model_rewrite_decision(RewriteLabels("rule", "llama", "llama-v2"))
    metrics.datalayer_poll_error("metrics-data-source")
    metrics.datalayer_extract_error("metrics-data-source", "core-metrics-extractor")
    rewrite = {"model_rewrite_name": "rule", "model_name": "llama", "target_model": "llama-v2"}
    assert value(metrics, "llm_d_epp_model_rewrite_decisions_total", **rewrite) == 1
    assert value(metrics, "llm_d_epp_datalayer_poll_errors_total", source_type="metrics-data-source") == 1
    assert value(metrics, "llm_d_inference_scheduler_datalayer_extract_errors_total") == 1


def test_processing_times_are_observed_if_there_were_any() -> None:
    metrics = Metrics()
    metrics.request_processing(0.0008)
    metrics.response_processing(0.0)
    metrics.response_processing(0.0002)
    assert observed(metrics, "request_processing_duration_seconds") == (1, 0.0008)
    assert observed(metrics, "response_processing_duration_seconds") == (1, 0.0002)


def test_the_configuration_in_use_has_one_hash() -> None:
    metrics = Metrics()
    metrics.config_loaded("first", 100.0)
    metrics.config_reloaded(Reloaded.FAILURE)
    assert value(metrics, "llm_d_epp_config_last_reload_successful") == 0
    metrics.config_loaded("second", 200.0)
    metrics.config_reloaded(Reloaded.SUCCESS)
    assert value(metrics, "llm_d_epp_config_hash") == 1
    assert value(metrics, "llm_d_epp_config_hash", sha256="second") == 1
    assert value(metrics, "llm_d_epp_config_last_reload_successful") == 1
    assert value(metrics, "llm_d_epp_config_last_reload_success_timestamp_seconds") == 200
    assert value(metrics, "llm_d_epp_config_reloads_total", result="failure") == 1


def test_two_pickers_in_one_process_do_not_share_metrics() -> None:
    first, second = Metrics(), Metrics()
    first.request_scheduled(LABELS)
    assert value(second, "llm_d_epp_request_total") is None


@pytest.mark.parametrize(
    ("bind", "message"),
    [
        pytest.param(lambda m: m.counter("llm_d_epp_nope_total"), "there is no such family", id="unknown family"),
        pytest.param(lambda m: m.counter("llm_d_epp_prefix_indexer_size"), "it is a gauge", id="other type"),
        pytest.param(
            lambda m: m.gauge("llm_d_epp_prefix_indexer_size", plugin_name="p"),
            r"with labels \['plugin_name'\]: the catalogue gives it \['plugin_name', 'plugin_type'\]",
            id="missing label",
        ),
    ],
)
def test_a_plugin_can_bind_only_what_the_catalogue_has(bind: Callable[[Metrics], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bind(Metrics())


def test_a_plugin_binds_its_families_by_name() -> None:
    metrics = Metrics()
    metrics.gauge("llm_d_epp_prefix_indexer_size", plugin_name="p", plugin_type="t").set(7)
    metrics.histogram("llm_d_epp_prefix_indexer_hit_ratio", plugin_type="t", plugin_name="p").observe(0.5)
    metrics.counter(
        "llm_d_epp_pd_decision_total", plugin_name="p", plugin_type="t", model_name="m", decision_type="decode-only"
    ).inc()
    assert value(metrics, "inference_extension_prefix_indexer_size") == 7
    assert value(metrics, "inference_extension_prefix_indexer_hit_ratio_bucket", le="0.5") == 1
    assert value(metrics, "llm_d_inference_scheduler_pd_decision_total", model_name="m") == 1


def test_model_names_that_plugins_count_are_bounded() -> None:
    metrics = Metrics(MetricsOptions(model_name_limit=2))
    for model in ("a", "b", "c", "d"):
        metrics.counter(
            "llm_d_epp_pd_decision_total", plugin_name="p", plugin_type="t", model_name=model, decision_type="decode-only"
        ).inc()
    counts = {model: value(metrics, "llm_d_epp_pd_decision_total", model_name=model) for model in ("a", "b", "c", "other")}
    assert counts == {"a": 1, "b": 1, "c": None, "other": 2}


def test_the_families_of_other_collectors_are_exposed_too() -> None:
    from prometheus_client import Gauge

    metrics = Metrics()
    Gauge("plugins_own_gauge", "From a plugin's client library.", registry=metrics.registry).set(4)
    assert value(metrics, "plugins_own_gauge") == 4


def test_a_page_of_many_series_is_whole() -> None:
    metrics = Metrics()
    for number in range(30):
        one_request(metrics, labels=RequestLabels("m", "", f"tenant-{number}"))
    page = samples(metrics.exposition())
    assert sum(count for (name, _), count in page.items() if name == "llm_d_epp_request_duration_seconds_count") == 30
