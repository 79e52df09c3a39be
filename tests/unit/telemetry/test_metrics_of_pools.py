"""Several pools on one page of metrics: nothing is lost, nothing appears twice, and one pool alone is as ever."""

from __future__ import annotations

from prometheus_client import Counter as ClientCounter

from epp.telemetry.catalogue import POOL_LABEL, PREFIX
from epp.telemetry.metrics import Metrics
from epp.telemetry.metrics_of_pools import MetricsOfPools
from epp.telemetry.pool import EndpointSample, PoolSnapshot
from epp.transport.metrics_page import Exposed
from tests.unit.telemetry.events import LABELS, STREAMED
from tests.unit.telemetry.scrape import samples, types

INFO = {f"{PREFIX}info", "inference_extension_info"}
"""The build, by both names."""


def busy(requests: int) -> Metrics:
    """A pool that had some requests."""
    metrics = Metrics()
    for _ in range(requests):
        metrics.request_scheduled(LABELS)
        metrics.request_finished(LABELS, STREAMED)
    metrics.watch_pool(lambda: PoolSnapshot("p", [EndpointSample("e", is_fresh=True, waiting_queue=requests)]))
    metrics.config_loaded("abc", 1.0)
    return metrics


def page(process: Metrics, **pools: Metrics) -> bytes:
    merged: Exposed = MetricsOfPools(process, lambda: pools, legacy=True)
    return merged.render(merged.snapshot())


def test_each_sample_of_a_pool_is_there_once_with_its_name() -> None:
    chat, code, process = busy(1), busy(3), Metrics()
    merged = samples(page(process, chat=chat, code=code))
    for name, pool in (("chat", chat), ("code", code)):
        own = {
            (sample, labels | {(POOL_LABEL, name)}): value
            for (sample, labels), value in samples(pool.exposition()).items()
            if not sample.startswith("process_") and sample not in INFO
        }
        assert own.items() <= merged.items()
    others = {sample for sample, labels in merged if not any(label == POOL_LABEL for label, _ in labels)}
    assert {sample for sample in others if not sample.startswith("process_")} == INFO


def test_each_family_is_described_once() -> None:
    types(page(Metrics(), chat=busy(1), code=busy(1)))


def test_what_the_process_has_once_is_its_own() -> None:
    process, chat = Metrics(), busy(1)
    process.counter(f"{PREFIX}pool_refusals_total", pool="", reason="no-pool").inc()
    chat.counter(f"{PREFIX}pool_refusals_total", pool="x", reason="y").inc()
    merged = samples(page(process, chat=chat))
    assert {labels for sample, labels in merged if sample == f"{PREFIX}pool_refusals_total"} == {
        frozenset({("pool", ""), ("reason", "no-pool")})
    }


def test_what_a_plugins_library_collects_has_the_name_of_its_pool_too() -> None:
    chat, code = Metrics(), Metrics()
    for metrics, count in ((chat, 1), (code, 2)):
        ClientCounter("theirs", "Of a plugin.", ["x"], registry=metrics.registry).labels("y").inc(count)
    merged = samples(page(Metrics(), chat=chat, code=code))
    for name, count in (("chat", 1), ("code", 2)):
        assert merged["theirs_total", frozenset({("x", "y"), ("pool", name)})] == count


def test_without_pools_there_is_the_process() -> None:
    assert {name for name, _ in samples(page(Metrics())) if not name.startswith("process_")} == INFO
