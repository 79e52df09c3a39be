"""A model server that begins anew behind its address: seen on its page, whoever reads it, and told to who follows endpoints."""

from __future__ import annotations

import asyncio

import pytest

from epp.datalayer.collector import Collector
from epp.datalayer.page_rounds import make_page_reader
from epp.datalayer.scrape import ExtractorBinding, SourceBinding
from epp.datalayer.store import EndpointStore
from epp.framework.prometheus_text import MAX_PAGE_BYTES
from epp.framework.testing import make_plugin
from epp.framework.types import EndpointChange
from plugins.datalayer.core_metrics import PLUGIN as CORE_METRICS
from plugins.datalayer.metrics_source import MetricsSource
from tests.unit.datalayer.collector_bench import Counters
from tests.unit.datalayer.servers import Server, answer, serving

PATIENCE_S = 20.0


class Follower:
    """Knows what it was told, and whether something was."""

    def __init__(self) -> None:
        self.changes: list[tuple[list[str], list[str]]] = []
        self.told = asyncio.Event()

    def endpoints_changed(self, change: EndpointChange) -> None:
        self.changes.append(([e.name for e in change.removed], [e.name for e in change.added]))
        self.told.set()


class Scraped:
    """Waits for metrics of an endpoint to be written."""

    def __init__(self, store: EndpointStore) -> None:
        self._event = asyncio.Event()
        store.on_scrape(self._event.set)

    async def __call__(self, times: int = 1) -> None:
        for _ in range(times):
            self._event.clear()
            await self._event.wait()


def page_of(started_s: float, waiting: int, running: int | None = None) -> str:
    lines = [f"process_start_time_seconds {started_s!r}", f"vllm:num_requests_waiting {waiting}"]
    return "\n".join([*lines, *([f"vllm:num_requests_running {running}"] if running is not None else [])]) + "\n"


async def follow(server: Server, is_native: bool) -> None:
    store, follower = EndpointStore(), Follower()
    scraped = Scraped(store)
    extractors = (ExtractorBinding("core-metrics-extractor", make_plugin(CORE_METRICS)),)
    binding = SourceBinding("scrape", "metrics-data-source", MetricsSource(), extractors)
    pages = make_page_reader(MAX_PAGE_BYTES, 1.0) if is_native else None
    collector = Collector(store, [binding], Counters(), pages=pages)
    endpoint = server.endpoint()
    store.replace_all([endpoint, server.endpoint("b", other="yes")])
    await collector.start()
    store.subscribe(follower)
    follower.changes.clear()
    try:
        async with asyncio.timeout(PATIENCE_S):
            while store.metrics(endpoint.id).running_requests != 5:
                await scraped()
            await scraped(4)
            assert follower.changes == [], "the same process"
            follower.told.clear()
            server.respond = answer(page_of(200.0, waiting=1))
            while len(follower.changes) < 2:
                await follower.told.wait()
                follower.told.clear()
            while store.metrics(endpoint.id).waiting_queue != 1:
                await scraped()
            await scraped(4)
    finally:
        await collector.stop()
    assert sorted(follower.changes) == [(["a"], ["a"]), (["b"], ["b"])], "each once"
    assert store.metrics(endpoint.id).started_s == 200.0
    assert store.metrics(endpoint.id).running_requests is None, "nothing is left of what the one before said"
    assert [e.name for e in store] == ["a", "b"]


@pytest.mark.parametrize("is_native", [False, True], ids=["tasks", "native"])
async def test_a_process_that_begins_anew_is_another_server(is_native: bool) -> None:
    if is_native:
        pytest.importorskip("epp_native")
    async with serving(answer(page_of(100.0, waiting=3, running=5))) as server:
        await follow(server, is_native)
