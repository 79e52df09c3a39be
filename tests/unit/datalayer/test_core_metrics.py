"""core-metrics-extractor: pages of engines, and what becomes of odd values."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from epp.framework.handle import MetricsFlags
from epp.framework.testing import make_context, make_plugin
from epp.framework.types import UNSCRAPED, Endpoint, EndpointMetrics
from plugins.datalayer.core_metrics import ENGINE_LABEL, LEGACY_ENGINE_LABEL, PLUGIN
from tests.unit.datalayer import pages

BEFORE = EndpointMetrics(
    waiting_queue=40,
    running_requests=41,
    kv_cache_usage=0.42,
    active_models=frozenset({"old"}),
    waiting_models=frozenset({"older"}),
    max_active_models=2,
    cache_block_size=43,
    cache_num_blocks=44,
)

Values = tuple[int | None, int | None, float | None, int, int]
"""waiting, running, KV usage, block size, blocks."""


def server(engine: str | None = None, label: str = ENGINE_LABEL) -> Endpoint:
    return Endpoint.of("a", "10.0.0.1", 8000, {label: engine} if engine is not None else None)


def extract(
    page: str,
    engine: str | None = None,
    previous: EndpointMetrics = UNSCRAPED,
    parameters: dict[str, Any] | None = None,
    flags: dict[str, str] | None = None,
) -> tuple[EndpointMetrics, list[str]]:
    context = make_context()
    context.metrics_flags = MetricsFlags(specs=flags or {})
    extractor = make_plugin(PLUGIN, parameters, context)
    extraction = extractor.extract(page.encode(), server(engine), previous)
    assert extraction.is_fresh == (extraction.metrics is not previous)
    return extraction.metrics, list(extraction.problems)


def values(metrics: EndpointMetrics) -> Values:
    return (
        metrics.waiting_queue,
        metrics.running_requests,
        metrics.kv_cache_usage,
        metrics.cache_block_size,
        metrics.cache_num_blocks,
    )


def lora(running: str, waiting: str = "", max_lora: str = "") -> str:
    labels = f'max_lora="{max_lora}",running_lora_adapters="{running}",waiting_lora_adapters="{waiting}"'
    return f"vllm:lora_requests_info{{{labels}}} 5"


def vllm(**lines: str) -> str:
    """A page with the four plain values, of which each can be replaced by other lines ("" = left out)."""
    known = {
        "waiting": "vllm:num_requests_waiting 2",
        "running": "vllm:num_requests_running 6",
        "kv": "vllm:kv_cache_usage_perc 0.5",
        "cache": 'vllm:cache_config_info{block_size="16",num_gpu_blocks="100"} 1',
        "lora": "",
    }
    return "".join(f"{line}\n" for line in (known | lines).values() if line)


@pytest.mark.parametrize(
    ("page", "engine", "expected"),
    [
        pytest.param(pages.VLLM, "vllm", (2, 6, 0.4175, 16, 27832), id="M1 vllm"),
        pytest.param(pages.VLLM_TWO_ENGINES, "vllm", (7, 8, 0.55, 16, 2200), id="M2 vllm, two engines"),
        pytest.param(pages.SGLANG, "sglang", (4, 11, 0.28, 64, 5120), id="M3 sglang"),
        pytest.param(pages.SGLANG_OLD, "sglang", (4, 11, 0.28, 64, 5120), id="M3 sglang, older"),
        pytest.param(pages.SGLANG_WITHOUT_CACHE, "sglang", (4, 11, 0.28, 0, 0), id="sglang without cache series"),
        pytest.param(pages.TRTLLM, "trtllm-serve", (1, 9, 0.62, 32, 8000), id="M4 trtllm-serve"),
        pytest.param(pages.TRITON_TRTLLM, "triton-tensorrt-llm", (3, 5, 0.125, 64, 6239), id="M5 triton with trtllm"),
        pytest.param(pages.TRITON, "triton", (5, 81234, None, 0, 0), id="triton, two models"),
    ],
)
def test_pages_of_engines(page: str, engine: str, expected: Values) -> None:
    metrics, problems = extract(page, engine)
    assert values(metrics) == pytest.approx(expected)
    assert problems == []


def test_adapters_are_those_of_the_latest_series() -> None:
    metrics, _ = extract(pages.VLLM)
    assert metrics.active_models == metrics.waiting_models == {"sql", "chat"}
    assert metrics.max_active_models == 4


def test_m2_a_label_in_the_spec_restores_one_engine() -> None:
    config = {"name": "vllm", "queuedRequestsSpec": 'vllm:num_requests_waiting{engine="0"}'}
    metrics, _ = extract(pages.VLLM_TWO_ENGINES, parameters={"engineConfigs": [config]})
    assert metrics.waiting_queue == 0


def test_m5_triton_without_its_waiting_series_keeps_the_rest() -> None:
    metrics, problems = extract(pages.TRITON_TRTLLM.replace(pages.TRITON_WAITING, ""), "triton-tensorrt-llm")
    assert values(metrics) == (None, 5, 0.125, 64, 6239)
    assert problems == ['nv_trt_llm_request_metrics{request_type="waiting"} is not on the page']


def test_m6_an_empty_page_changes_nothing_and_names_what_is_missing() -> None:
    metrics, problems = extract("", previous=BEFORE)
    assert metrics is BEFORE
    assert len(problems) == 4


def test_m7_a_single_value_is_stored_and_the_others_are_named() -> None:
    metrics, problems = extract("vllm:num_requests_waiting 5\n", previous=BEFORE)
    assert values(metrics) == (5, 41, 0.42, 43, 44)
    assert problems == [
        "vllm:num_requests_running is not on the page",
        "vllm:kv_cache_usage_perc is not on the page",
        "vllm:cache_config_info is not on the page",
    ]


@pytest.mark.parametrize(
    ("lines", "expected", "problem"),
    [
        pytest.param(
            {"waiting": "vllm:num_requests_waiting 7 100\nvllm:num_requests_waiting 8 200"},
            {"waiting_queue": 8},
            "",
            id="M14 the latest timestamp",
        ),
        pytest.param(
            {"waiting": "vllm:num_requests_waiting 7 200\nvllm:num_requests_waiting 8 200"},
            {"waiting_queue": 7},
            "vllm:num_requests_waiting has one series twice, with 7 and 8; the first one is used",
            id="the first of equal timestamps",
        ),
        pytest.param(
            {"waiting": "vllm:num_requests_waiting NaN"},
            {"waiting_queue": 40},
            "vllm:num_requests_waiting is nan, not a number",
            id="M15 NaN",
        ),
        pytest.param(
            {"waiting": "vllm:num_requests_waiting +Inf"},
            {"waiting_queue": 40},
            "vllm:num_requests_waiting is inf, not a number",
            id="M15 infinite",
        ),
        pytest.param(
            {"kv": "vllm:kv_cache_usage_perc NaN"},
            {"kv_cache_usage": 0.42},
            "vllm:kv_cache_usage_perc is nan, not a number",
            id="NaN usage",
        ),
        pytest.param(
            {"waiting": "vllm:num_requests_waiting -3"},
            {"waiting_queue": 0},
            "vllm:num_requests_waiting is -3; a count cannot be negative",
            id="negative count",
        ),
        pytest.param({"kv": "vllm:kv_cache_usage_perc 1.07"}, {"kv_cache_usage": 1.0}, "", id="M16 usage above 1"),
        pytest.param({"kv": "vllm:kv_cache_usage_perc -0.1"}, {"kv_cache_usage": 0.0}, "", id="M16 usage below 0"),
        pytest.param({"waiting": "vllm:num_requests_waiting 2.9"}, {"waiting_queue": 2}, "", id="M17 fraction cut"),
        pytest.param({}, {"waiting_queue": 2, "running_requests": 6, "kv_cache_usage": 0.5}, "", id="M18 no TYPE lines"),
        pytest.param(
            {"waiting": 'vllm:num_requests_waiting{model_name="a\\"b,c}d"} 3'},
            {"waiting_queue": 3},
            "",
            id="M19 quotes and braces in a label",
        ),
        pytest.param(
            {"waiting": 'vllm:num_requests_waiting_by_reason{r="x"} 9\nvllm:num_requests_waiting 3'},
            {"waiting_queue": 3},
            "",
            id="M20 a longer name first",
        ),
        pytest.param(
            {"waiting": "vllm:num_requests_waiting three"},
            {"waiting_queue": 40},
            "vllm:num_requests_waiting: 'three' is no value",
            id="malformed value",
        ),
        pytest.param(
            {"waiting": "vllm:num_requests_waiting{a=b} 3"},
            {"waiting_queue": 40},
            "vllm:num_requests_waiting: the label set {a=b} is malformed at 'a=b'",
            id="malformed label",
        ),
        pytest.param(
            {"waiting": '# TYPE vllm:num_requests_waiting summary\nvllm:num_requests_waiting{quantile="0.5"} 3'},
            {"waiting_queue": 40},
            "vllm:num_requests_waiting is a summary, which has no single value",
            id="summary",
        ),
        pytest.param({"kv": "vllm:gpu_cache_usage_perc 0.3"}, {"kv_cache_usage": 0.3}, "", id="the older name of the usage"),
        pytest.param(
            {"cache": 'vllm:cache_config_info{block_size="16",num_gpu_blocks="None"} 1'},
            {"cache_block_size": 16, "cache_num_blocks": 44},
            "label num_gpu_blocks is 'None', not an integer",
            id="M13 blocks not known yet",
        ),
        pytest.param(
            {"cache": 'vllm:cache_config_info{block_size="None",num_gpu_blocks="9"} 1'},
            {"cache_block_size": 0, "cache_num_blocks": 9},
            "label block_size is 'None', not an integer",
            id="block size not known yet",
        ),
        pytest.param(
            {"cache": 'vllm:cache_config_info{block_size="16",num_gpu_blocks=""} 1'},
            {"cache_num_blocks": 44},
            "",
            id="empty label",
        ),
        pytest.param(
            {},
            {"active_models": frozenset(), "waiting_models": frozenset(), "max_active_models": 0},
            "",
            id="M8, M9 no adapter series",
        ),
        pytest.param(
            {"lora": lora(" a , ,b", "c", max_lora="4")},
            {"active_models": frozenset("ab"), "waiting_models": frozenset("c"), "max_active_models": 4},
            "",
            id="M10 adapters trimmed",
        ),
        pytest.param(
            {"lora": lora("a") + "\n" + lora("b")}, {"active_models": frozenset("a")}, "", id="M11 the first of equal ages"
        ),
        pytest.param(
            {"lora": lora("a", max_lora="x")},
            {"active_models": frozenset("a"), "max_active_models": 2},
            "label max_lora is 'x', not an integer",
            id="M12 max_lora no integer",
        ),
        pytest.param(
            {"lora": lora("", max_lora="4")},
            {"active_models": frozenset(), "waiting_models": frozenset()},
            "",
            id="the latest series is empty",
        ),
    ],
)
def test_values_of_a_vllm_page(lines: dict[str, str], expected: dict[str, object], problem: str) -> None:
    metrics, problems = extract(vllm(**lines), previous=BEFORE)
    assert {name: getattr(metrics, name) for name in expected} == expected
    assert problems == ([problem] if problem else [])


def test_different_block_sizes_give_the_smallest_and_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    page = pages.VLLM_TWO_ENGINES.replace('block_size="16",engine="1"', 'block_size="8",engine="1"')
    extractor = make_plugin(PLUGIN)
    read = [extractor.extract(page.encode(), server(), UNSCRAPED)[0] for _ in range(2)]
    assert [metrics.cache_block_size for metrics in read] == [8, 8]
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("labels", "engine"),
    [
        pytest.param({ENGINE_LABEL: "sglang"}, "sglang", id="M23 engine label"),
        pytest.param({LEGACY_ENGINE_LABEL: "sglang"}, "sglang", id="M23 legacy label"),
        pytest.param({ENGINE_LABEL: "vllm", LEGACY_ENGINE_LABEL: "sglang"}, "vllm", id="engine label before the legacy one"),
        pytest.param({ENGINE_LABEL: ""}, "vllm", id="M23 empty"),
        pytest.param({ENGINE_LABEL: "foo"}, "vllm", id="M23 unknown"),
        pytest.param({"engine": "sglang"}, "vllm", id="none"),
    ],
)
def test_the_engine_of_an_endpoint(labels: dict[str, str], engine: str) -> None:
    page = b"vllm:num_requests_waiting 1\nsglang:num_queue_reqs 2\n"
    endpoint = Endpoint.of("a", "10.0.0.1", 8000, labels)
    metrics = make_plugin(PLUGIN).extract(page, endpoint, UNSCRAPED).metrics
    assert metrics.waiting_queue == {"vllm": 1, "sglang": 2}[engine]


def test_another_engine_label_and_default_engine() -> None:
    extractor = make_plugin(PLUGIN, {"engineLabelKey": "engine", "defaultEngine": "sglang"})
    page = b"vllm:num_requests_waiting 1\nsglang:num_queue_reqs 2\n"
    for labels, expected in (({"engine": "vllm"}, 1), ({LEGACY_ENGINE_LABEL: "vllm"}, 1), ({}, 2)):
        metrics = extractor.extract(page, Endpoint.of("a", "10.0.0.1", 8000, labels), UNSCRAPED).metrics
        assert metrics.waiting_queue == expected


def test_m24_a_configured_engine_replaces_the_built_in_one_whole() -> None:
    parameters = {"engineConfigs": [{"name": "vllm", "queuedRequestsSpec": "q"}]}
    metrics, problems = extract(pages.VLLM + "q 77\n", parameters=parameters)
    assert values(metrics) == (77, None, None, 0, 0)
    assert problems == []
    assert values(extract(pages.SGLANG, "sglang", parameters=parameters)[0]) == (4, 11, 0.28, 64, 5120)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        pytest.param({"queued": "my_queue"}, 9, id="other series"),
        pytest.param({"queued": '"my_queue"'}, 9, id="quotes that a chart passes"),
        pytest.param({"queued": 'my_queue{engine="1"}'}, 4, id="with a label"),
        pytest.param({"queued": ""}, None, id="switched off"),
        pytest.param({"running": "x"}, 2, id="another value's flag"),
    ],
)
def test_flags_name_series_of_the_default_engine(flags: dict[str, str], expected: int | None) -> None:
    page = pages.VLLM + 'my_queue{engine="0"} 5\nmy_queue{engine="1"} 4\n'
    assert extract(page, flags=flags)[0].waiting_queue == expected


@pytest.mark.parametrize("asked", ["vllm:gpu_cache_usage_perc", "vllm:kv_cache_usage_perc"])
@pytest.mark.parametrize("served", ["vllm:gpu_cache_usage_perc", "vllm:kv_cache_usage_perc"])
def test_the_two_names_of_the_usage_stand_in_for_each_other(asked: str, served: str) -> None:
    assert extract(f"{served} 0.7\n", flags={"kv_usage": asked})[0].kv_cache_usage == 0.7


def test_the_document_goes_before_flags() -> None:
    context = make_context()
    context.metrics_flags = MetricsFlags(specs={"queued": "flag_queue"})
    extractor = make_plugin(PLUGIN, {"engineConfigs": [{"name": "vllm", "queuedRequestsSpec": "own_queue"}]}, context)
    metrics = extractor.extract(b"own_queue 1\nflag_queue 2\n", server(), UNSCRAPED).metrics
    assert metrics.waiting_queue == 1
    assert [parameter for parameter, _ in context.warnings] == ["engineConfigs"]


def test_a_wrong_flag_is_refused_with_its_text() -> None:
    context = make_context()
    context.metrics_flags = MetricsFlags(specs={"queued": "a b"})
    with pytest.raises(ValueError, match="'a b' is not a metric selector"):
        make_plugin(PLUGIN, {}, context)


START = "process_start_time_seconds"


@pytest.mark.parametrize(
    ("lines", "known_s", "expected"),
    [
        pytest.param(f"# TYPE {START} gauge\n{START} 1.73288492156e+09", None, 1732884921.56, id="as a library writes it"),
        pytest.param(f"{START} 1732884921.56", 100.0, 1732884921.56, id="a later one"),
        pytest.param("", None, None, id="a server that does not tell"),
        pytest.param("", 100.0, 100.0, id="a page without it says nothing new"),
        pytest.param(f"{START} 99", 100.0, 100.0, id="another worker behind the same address"),
        pytest.param(f'{START}{{engine="0"}} 100\n{START}{{engine="1"}} 300', None, 300.0, id="the latest of two engines"),
        pytest.param(f'{START}{{pid="7"}} 100\n{START}{{pid="8"}} 300', 50.0, 50.0, id="several workers on one page"),
        pytest.param(f"{START} 100\n{START} 300", None, None, id="said twice, differently"),
        pytest.param(f"{START} NaN", 100.0, 100.0, id="no number"),
        pytest.param(f"{START} +Inf", None, None, id="no time"),
        pytest.param(f"{START} soon", 100.0, 100.0, id="malformed"),
        pytest.param(f"my_{START} 300\n{START}_created 300", None, None, id="other names"),
    ],
)
def test_when_the_server_began(lines: str, known_s: float | None, expected: float | None) -> None:
    page = vllm() + (f"{lines}\n" if lines else "")
    metrics, problems = extract(page, previous=replace(UNSCRAPED, started_s=known_s))
    assert metrics.started_s == expected
    assert problems == []
    assert START in make_plugin(PLUGIN).families(server())


def test_a_page_with_nothing_but_a_start_is_not_fruitful() -> None:
    metrics, problems = extract(f"{START} 300\n", previous=BEFORE)
    assert metrics is BEFORE
    assert len(problems) == 4


def test_m26_custom_metrics_become_attributes() -> None:
    config = {
        "name": "mine",
        "queuedRequestsSpec": "q",
        "customMetrics": [{"attributeKey": "foo", "metricSpec": "foo_total"}, {"attributeKey": "bar", "metricSpec": "bar"}],
    }
    parameters = {"engineConfigs": [config]}
    metrics, problems = extract("q 1\n# TYPE foo_total counter\nfoo_total 12\nbar NaN\n", "mine", parameters=parameters)
    assert metrics.attributes == {"foo": 12.0}
    assert problems == ["bar is nan, not a number"]
    later, problems = extract("q 2\nbar 1\n", "mine", metrics, parameters)
    assert later.attributes == {"foo": 12.0, "bar": 1.0}
    assert problems == ["foo_total is not on the page"]


@pytest.mark.parametrize(
    ("engine", "configured", "expected"),
    [
        pytest.param("vllm", None, None, id="the source's own"),
        pytest.param("trtllm-serve", None, "/prometheus/metrics", id="built in"),
        pytest.param("trtllm-serve", "/own", None, id="the source's own goes before a built-in one"),
        pytest.param("mine", "/own", "/mine", id="an engine's own goes before the source's"),
    ],
)
def test_the_path_of_an_engine(engine: str, configured: str | None, expected: str | None) -> None:
    extractor = make_plugin(PLUGIN, {"engineConfigs": [{"name": "mine", "path": "/mine"}]})
    assert extractor.path_for(server(engine), configured) == expected


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        pytest.param({"engineConfigs": [{"name": "default"}]}, "'default' is reserved", id="M25 reserved name"),
        pytest.param({"engineConfigs": [{"name": ""}]}, "at least 1 character", id="empty name"),
        pytest.param({"engineConfigs": [{}]}, "Field required", id="no name"),
        pytest.param(
            {"engineConfigs": [{"name": "a"}, {"name": "a"}]}, "engine 'a' is configured twice", id="M25 doubled name"
        ),
        pytest.param({"defaultEngine": "x"}, "defaultEngine 'x' not found in engineConfigs", id="M25 unknown default engine"),
        pytest.param(
            {"engineConfigs": [{"name": "a", "queuedRequestsSpec": "m{a}"}]}, "'a' is not a list of", id="M25 bad series"
        ),
        pytest.param({"engineConfigs": [{"name": "a", "queued": "m"}]}, "Extra inputs", id="unknown field"),
        pytest.param({"engineConfigs": [{"name": "a", "path": "x"}]}, "must begin with /", id="relative path"),
        pytest.param(
            {"engineConfigs": [{"name": "a", "customMetrics": [{"attributeKey": "k", "metricSpec": "m"}] * 2}]},
            "attributeKey 'k' is used twice",
            id="doubled attribute",
        ),
        pytest.param(
            {"engineConfigs": [{"name": "a", "customMetrics": [{"attributeKey": "k"}]}]}, "Field required", id="no series"
        ),
    ],
)
def test_wrong_parameters(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make_plugin(PLUGIN, parameters)


def test_w9_the_old_type_name_is_an_alias() -> None:
    assert "model-server-protocol-metrics" in PLUGIN.names


def test_m27_a_page_of_eight_engines_is_read_in_half_a_millisecond() -> None:
    extractor = make_plugin(PLUGIN)
    page = pages.full_page(341_000, engines=8).encode()
    extractor.extract(page, server(), UNSCRAPED)

    def once_s() -> float:
        start = time.process_time()
        extractor.extract(page, server(), UNSCRAPED)
        return time.process_time() - start

    assert min(once_s() for _ in range(20)) < 0.0005
