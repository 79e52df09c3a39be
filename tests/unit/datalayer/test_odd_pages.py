"""Pages with several ranks, models or views of one number, whichever way the series were named: read right, or reported."""

from __future__ import annotations

import pytest

from tests.unit.datalayer.test_core_metrics import Values, extract, values


def lines(name: str, *series: str) -> str:
    """One line for each of ``labels value``."""
    return "".join(f"{name}{{{labels}}} {value}\n" for labels, value in (entry.rsplit(" ", 1) for entry in series))


SGLANG_RANKS = (
    lines("sglang:num_queue_reqs", 'dp_rank="0" 9', 'dp_rank="1" 1')
    + lines("sglang:num_running_reqs", 'dp_rank="0" 4', 'dp_rank="1" 3')
    + lines("sglang:token_usage", 'dp_rank="0" 0.5', 'dp_rank="1" 0.1')
)
SGLANG_FLAGS = {
    "queued": "sglang:num_queue_reqs",
    "running": "sglang:num_running_reqs",
    "kv_usage": "sglang:token_usage",
    "lora": "",
    "cache_info": "",
}
LMDEPLOY = lines("lmdeploy:num_requests_waiting", 'engine="0",model_name="m" 2', 'engine="1",model_name="m" 3')
TRTLLM_MODELS = "".join(
    lines(name, *(f'{label}="{kind}",model="{model}",version="1" {value}' for model, value in rows))
    for name, label, kind, rows in (
        ("nv_trt_llm_request_metrics", "request_type", "waiting", (("a", 1), ("b", 2))),
        ("nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type", "fraction", (("a", 0.5), ("b", 0.7))),
    )
)


def queue(*series: str, **parameters: str) -> tuple[int | None, list[str]]:
    """The waiting queue of a configured engine, and the problems."""
    config = {"name": "mine", "queuedRequestsSpec": "q"} | parameters
    metrics, problems = extract(lines("q", *series), "mine", parameters={"engineConfigs": [config]})
    return metrics.waiting_queue, problems


@pytest.mark.parametrize(
    ("page", "flags", "expected"),
    [
        pytest.param(SGLANG_RANKS, SGLANG_FLAGS, (10, 7, 0.3, 0, 0), id="ranks of SGLang, named by flags"),
        pytest.param(LMDEPLOY, {"queued": "lmdeploy:num_requests_waiting"}, (5, None, None, 0, 0), id="engines of LMDeploy"),
        pytest.param("llamacpp:requests_deferred 4\n", {"queued": "llamacpp:requests_deferred"}, (4, None, None, 0, 0),
                     id="llama.cpp, without labels"),
        pytest.param("# TYPE tgi_queue_size gauge\ntgi_queue_size 6\n", {"queued": "tgi_queue_size"}, (6, None, None, 0, 0),
                     id="TGI, without labels"),
    ],
)  # fmt: skip
def test_metrics_that_flags_name(page: str, flags: dict[str, str], expected: Values) -> None:
    metrics, problems = extract(page, flags=flags)
    assert values(metrics) == pytest.approx(expected)
    assert [problem for problem in problems if "not on the page" not in problem] == []


def test_several_models_of_one_triton_are_one_load() -> None:
    metrics, _ = extract(TRTLLM_MODELS, "triton-tensorrt-llm")
    assert (metrics.waiting_queue, metrics.kv_cache_usage) == (3, pytest.approx(0.6))


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        pytest.param(('engine="0" 5', 'engine="1" 4'), 9, id="engines add up"),
        pytest.param(('dp_rank="0" 9', 'dp_rank="1" 1'), 10, id="replicas add up"),
        pytest.param(('dp_rank="0",tp_rank="0" 3', 'dp_rank="0",tp_rank="1" 4', 'tp_rank="2",dp_rank="1" 5'), 9,
                     id="of workers that repeat a number the greatest counts, whatever the order of labels"),
        pytest.param(('pp_rank="0",tp_rank="0" 3', 'pp_rank="1",tp_rank="0" 2'), 3, id="stages repeat a number"),
        pytest.param(('priority="" 14', 'priority="-1" 0', 'priority="0" 14'), 14, id="priorities are in their sum"),
        pytest.param(('model_name="a" 1', 'model_name="b" 2'), 3, id="models of one server add up"),
        pytest.param(('model_name="a\\",}b" 1', 'model_name="a\\",}c" 2'), 3, id="quotes, commas and braces in names"),
        pytest.param(('engine="0",x="" 1', 'engine="1" 2'), 3, id="an empty label is none"),
        pytest.param(('engine="0" 2e3',), 2000, id="exponent"),
    ],
)  # fmt: skip
def test_series_of_one_name(series: tuple[str, ...], expected: int) -> None:
    assert queue(*series) == (expected, [])


@pytest.mark.parametrize(
    ("series", "expected", "problem"),
    [
        pytest.param(('shard="0" 1', 'shard="1" 2'), 1,
                     "q has several series that differ in shard; the first one is used", id="a label that is not known"),
        pytest.param(('kind="a",engine="0" 1', 'kind="b",engine="0" 2', 'kind="a",engine="1" 4'), 5,
                     "q has several series that differ in kind; the first one is used", id="beside one that is"),
        pytest.param(('engine="0" 1', 'engine="0" 2'), 1,
                     "q has one series twice, with 1 and 2; the first one is used", id="a series twice"),
        pytest.param(('engine="0" 1', 'engine="1" NaN'), None, "q is nan, not a number", id="a rank without a number"),
        pytest.param(('engine="0" 1\r',), None, "q: ' 1\\r' is no value", id="CRLF"),
    ],
)  # fmt: skip
def test_what_is_not_certain_is_reported(series: tuple[str, ...], expected: int | None, problem: str) -> None:
    assert queue(*series) == (expected, [problem])


@pytest.mark.parametrize(
    ("rank_label", "expected"),
    [
        pytest.param("shard", 10, id="beside the known ones"),
        pytest.param("", 1, id="no label tells ranks apart"),
    ],
)
def test_a_rank_label_can_be_configured(rank_label: str, expected: int) -> None:
    found, problems = queue('shard="0",engine="0" 1', 'shard="0",engine="1" 2', 'shard="1",engine="0" 7', rankLabel=rank_label)
    assert (found, bool(problems)) == (expected, rank_label == "")


def test_info_series_of_one_engine_that_contradict_each_other_are_reported() -> None:
    page = lines(
        "vllm:cache_config_info", 'block_size="16",num_gpu_blocks="10",x="1" 1', 'block_size="8",num_gpu_blocks="10",x="2" 1'
    )
    metrics, problems = extract(page)
    assert (metrics.cache_block_size, metrics.cache_num_blocks) == (16, 10)
    assert "vllm:cache_config_info has several series that differ in block_size; the first one is used" in problems


def test_ranks_whose_sum_is_too_large_are_reported() -> None:
    config = {"name": "mine", "customMetrics": [{"attributeKey": "k", "metricSpec": "q"}]}
    metrics, problems = extract(
        lines("q", 'engine="0" 1e308', 'engine="1" 1e308'), "mine", parameters={"engineConfigs": [config]}
    )
    assert metrics.attributes == {}
    assert problems == ["q adds up to inf, not a number"]


def test_a_usage_in_percent_is_reported() -> None:
    metrics, problems = extract("usage 41.5\n", flags={"kv_usage": "usage"})
    assert metrics.kv_cache_usage is None
    assert "usage is 41.5; a fraction from 0 to 1 is needed, not a percentage" in problems
