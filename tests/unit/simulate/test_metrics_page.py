"""The metrics page: what vLLM shows, in the size that vLLM shows it."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from epp.framework.testing import FakeClock
from epp.simulate.engine import Engine
from epp.simulate.metrics import MetricsRenderer
from epp.simulate.options import EngineOptions, MetricsPage, ServerOptions
from epp.simulate.sequence import Sequence

ENGINE = EngineOptions(max_num_seqs=2, kv_blocks=100, max_lora=1)
Sample = tuple[str, tuple[tuple[str, str], ...]]


class Server:
    """An engine with its page and clocks."""

    def __init__(
        self, page: MetricsPage = MetricsPage.FULL, models: tuple[str, ...] = ("m",), lora: tuple[str, ...] = ()
    ) -> None:
        self.clock = FakeClock()
        self.engine = Engine(ENGINE)
        options = ServerOptions(engine=ENGINE, models=models, lora=lora, metrics_page=page)
        self.renderer = MetricsRenderer(options, self.engine, wall_clock=self.clock, clock=self.clock)

    def submit(self, *sequences: Sequence) -> None:
        for one in sequences:
            self.engine.submit(one, self.clock.now_s)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.engine.settle(self.clock.now_s)

    def values(self) -> dict[Sample, float]:
        families = text_string_to_metric_families(self.renderer.page().decode())
        return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}

    def value(self, name: str, **labels: str) -> float:
        found = [value for (n, pairs), value in self.values().items() if n == name and labels.items() <= dict(pairs).items()]
        assert len(found) == 1, f"{name}{labels}: {found}"
        return found[0]


@pytest.mark.parametrize(("page", "low", "high"), [(MetricsPage.SMALL, 700, 900), (MetricsPage.FULL, 60_000, 64_000)], ids=str)
def test_pages_have_the_size_of_real_ones(page: MetricsPage, low: int, high: int) -> None:
    options = ServerOptions(metrics_page=page)
    assert low < len(MetricsRenderer(options, Engine(options.engine)).page()) < high


@pytest.mark.parametrize("page", list(MetricsPage), ids=str)
def test_gauges_follow_the_engine(page: MetricsPage) -> None:
    server = Server(page)
    assert server.value("vllm:num_requests_running", model_name="m", engine="0") == 0
    server.submit(*(Sequence(letter * 4 * 160, b"a" * 400) for letter in (b"x", b"y", b"z")))
    server.advance(0.15)
    assert server.value("vllm:num_requests_running") == 2
    assert server.value("vllm:num_requests_waiting") == 1
    assert server.value("vllm:kv_cache_usage_perc") == server.engine.kv_usage_ratio > 0.2
    assert server.value("vllm:cache_config_info", block_size="16", num_gpu_blocks="100") == 1


@pytest.mark.parametrize("page", list(MetricsPage), ids=str)
def test_prefix_counters_count_tokens(page: MetricsPage) -> None:
    server = Server(page)
    for _ in range(2):
        server.submit(Sequence(b"x" * 4 * 160, b"a" * 4))
        server.advance(10)
    assert server.value("vllm:prefix_cache_queries_total") == 320
    assert server.value("vllm:prefix_cache_hits_total") == 144


def test_histograms_and_counters_count_requests() -> None:
    server = Server()
    server.submit(Sequence(b"x" * 400, b"a" * 80, finish="stop"), Sequence(b"y" * 400, b"a" * 40))
    server.advance(10)
    assert server.value("vllm:request_success_total", finished_reason="stop") == 1
    assert server.value("vllm:request_success_total", finished_reason="length") == 1
    assert server.value("vllm:prompt_tokens_total") == 200
    assert server.value("vllm:generation_tokens_total") == 30
    assert server.value("vllm:time_to_first_token_seconds_count") == 2
    assert server.value("vllm:e2e_request_latency_seconds_bucket", le="+Inf") == 2
    assert server.value("vllm:request_generation_tokens_sum") == 30
    assert server.value("vllm:inter_token_latency_seconds_count") == 28


def test_bucket_counts_only_grow_along_the_bounds() -> None:
    server = Server()
    for length in (1, 10, 40):
        server.submit(Sequence(b"x" * 40, b"a" * 4 * length))
        server.advance(5)
    buckets: dict[object, list[tuple[float, float]]] = {}
    for (name, labels), value in server.values().items():
        if name.endswith("_bucket"):
            rest = tuple(pair for pair in labels if pair[0] != "le")
            buckets.setdefault((name, rest), []).append((float(dict(labels)["le"]), value))
    assert len(buckets) > 15
    for rows in buckets.values():
        counts = [count for _, count in sorted(rows)]
        assert counts == sorted(counts)


def test_the_full_page_has_the_families_of_a_vllm_server() -> None:
    families = {family.name for family in text_string_to_metric_families(Server().renderer.page().decode())}
    assert families >= {
        "python_gc_objects_collected", "process_resident_memory_bytes", "vllm:num_preemptions", "vllm:prompt_tokens",
        "vllm:time_to_first_token_seconds", "vllm:inter_token_latency_seconds", "vllm:e2e_request_latency_seconds",
        "vllm:request_queue_time_seconds", "vllm:request_prefill_time_seconds", "vllm:request_decode_time_seconds",
        "vllm:iteration_tokens_total", "vllm:request_params_n", "http_requests", "http_request_duration_seconds",
    }  # fmt: skip


def test_an_unchanged_page_is_not_rendered_again() -> None:
    server = Server()
    first = server.renderer.page()
    server.clock.advance(100)
    assert server.renderer.page() is first


def test_histograms_are_rendered_once_a_second_and_gauges_at_once() -> None:
    server = Server()
    assert server.value("vllm:e2e_request_latency_seconds_count") == 0
    server.submit(Sequence(b"x" * 40, b"a" * 4))
    assert server.value("vllm:num_requests_running") == 1
    server.advance(0.5)
    assert server.value("vllm:num_requests_running") == 0
    assert server.value("vllm:e2e_request_latency_seconds_count") == 0
    server.clock.advance(0.6)
    assert server.value("vllm:e2e_request_latency_seconds_count") == 1


@pytest.mark.parametrize("page", list(MetricsPage), ids=str)
def test_the_latest_lora_series_tells_the_adapters_of_now(page: MetricsPage) -> None:
    server = Server(page, lora=("chat", "sql"))

    def latest() -> tuple[str, str]:
        series = {labels: value for (name, labels), value in server.values().items() if name == "vllm:lora_requests_info"}
        labels = dict(max(series, key=lambda each: series[each]))
        assert labels["max_lora"] == "1"
        return labels["running_lora_adapters"], labels["waiting_lora_adapters"]

    assert latest() == ("", "")
    server.submit(Sequence(b"x" * 40, b"a" * 400, adapter="sql"), Sequence(b"y" * 40, b"a" * 400, adapter="chat"))
    assert latest() == ("sql", "chat")
    server.advance(1.2)
    assert latest() == ("chat", "")
    server.advance(10)
    assert latest() == ("", "")
    assert sum(name == "vllm:lora_requests_info" for name, _ in server.values()) == 3


def test_without_adapters_there_is_no_lora_family() -> None:
    assert b"lora" not in Server().renderer.page()


def test_a_model_name_with_odd_characters_survives() -> None:
    name = 'a"b\\c%sd\n100%'
    assert Server(models=(name,)).value("vllm:num_requests_running", model_name=name) == 0
