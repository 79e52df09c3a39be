"""dcgm-data-source and dcgm-extractor; endpoint-notification-source with an extractor that writes an attribute."""

from __future__ import annotations

from typing import Any

import pytest

from epp.datalayer.collector import Collector
from epp.datalayer.scrape import ExtractorBinding, SourceBinding
from epp.datalayer.store import EndpointStore
from epp.framework.keys import GPU_UTILIZATION, TOPOLOGY, Topology
from epp.framework.testing import make_plugin
from epp.framework.types import UNSCRAPED, Endpoint, EndpointId
from plugins.datalayer import dcgm, notifications, topology
from tests.unit.datalayer.servers import answer, serving

HERE = Endpoint.of("a-rank-0", "10.0.0.1", 8000, pod_name="a", node_address="10.9.0.1")
HELP = "# HELP DCGM_FI_DEV_GPU_UTIL GPU utilization (in %).\n# TYPE DCGM_FI_DEV_GPU_UTIL gauge\n"


def page(*samples: str) -> bytes:
    """A page of the exporter."""
    lines = "".join(f"DCGM_FI_DEV_GPU_UTIL{sample}\n" for sample in samples)
    return f"{HELP}{lines}DCGM_FI_DEV_GPU_UTIL_MORE 7\n".encode()


@pytest.mark.parametrize(
    ("samples", "utilization"),
    [
        pytest.param(('{gpu="0",pod="a"} 40', '{gpu="1",pod="a"} 90', '{gpu="2",pod="b"} 99'), 0.9, id="M29"),
        pytest.param(('{gpu="0"} 12', '{gpu="1",pod="b"} 99'), 0.12, id="no label pod counts"),
        pytest.param(('{gpu="0",pod="a"} 0',), 0.0, id="idle"),
    ],
)
def test_utilization(samples: tuple[str, ...], utilization: float) -> None:
    extractor: Any = make_plugin(dcgm.EXTRACTOR)
    extraction = extractor.extract(page(*samples), HERE, UNSCRAPED)
    assert extraction.metrics.attributes == {GPU_UTILIZATION.name: utilization}
    assert extraction.problems == ()
    assert not extraction.is_fresh, "it does not tell how busy the server is"
    again = extractor.extract(page(*samples), HERE, extraction.metrics)
    assert again.metrics is extraction.metrics


def test_an_endpoint_of_no_pod_takes_all() -> None:
    extractor: Any = make_plugin(dcgm.EXTRACTOR)
    nameless = Endpoint(EndpointId("n/"), "", "n", "10.0.0.1", 8000, "10.0.0.1:8000", "10.0.0.1:8000")
    extraction = extractor.extract(page('{pod="x"} 30', '{pod="y"} 50'), nameless, UNSCRAPED)
    assert extraction.metrics.attributes == {GPU_UTILIZATION.name: 0.5}


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (b"other 1\n", "DCGM_FI_DEV_GPU_UTIL is missing"),
        (page('{pod="b"} 5'), "DCGM_FI_DEV_GPU_UTIL has no sample of pod a"),
        (page('{pod="a"} 101'), "no percentage"),
        (page('{pod="a"} NaN'), "no percentage"),
        (page('{pod="a" 5'), "not closed"),
    ],
)
def test_what_cannot_be_read_keeps_the_last_value(payload: bytes, problem: str) -> None:
    extractor: Any = make_plugin(dcgm.EXTRACTOR)
    before = extractor.extract(page('{pod="a"} 40'), HERE, UNSCRAPED).metrics
    extraction = extractor.extract(payload, HERE, before)
    assert extraction.metrics is before
    assert len(extraction.problems) == 1
    assert problem in extraction.problems[0]


@pytest.mark.parametrize(
    ("parameters", "url"),
    [
        ({}, "http://10.0.0.1:9400/metrics"),
        ({"useNodeAddress": True, "port": 9401, "path": "/gpu"}, "http://10.9.0.1:9401/gpu"),
        ({"scheme": "https"}, "https://10.0.0.1:9400/metrics"),
    ],
)
def test_where_the_page_is(parameters: dict[str, Any], url: str) -> None:
    source: Any = make_plugin(dcgm.SOURCE, parameters)
    assert str(source.url(HERE)) == url


def test_without_a_node_the_pod_is_asked() -> None:
    source: Any = make_plugin(dcgm.SOURCE, {"useNodeAddress": True})
    assert str(source.url(Endpoint.of("a", "fd00::1", 8000))) == "http://[fd00::1]:9400/metrics"


async def test_the_page_is_fetched() -> None:
    async with serving(answer(page('{pod="a"} 40'))) as server:
        source: Any = make_plugin(dcgm.SOURCE, {"port": server.port})
        assert await source.fetch(Endpoint.of("a", "127.0.0.1", 1)) == page('{pod="a"} 40')
        await source.close()


class NoCounters:
    """Counts nothing."""

    def datalayer_poll_error(self, source_type: str) -> None:
        raise AssertionError(source_type)

    def datalayer_extract_error(self, source_type: str, extractor_type: str) -> None:
        raise AssertionError(extractor_type)


async def test_endpoints_are_given_to_extractors_when_they_come_and_change() -> None:
    source: Any = make_plugin(notifications.ENDPOINTS)
    extractor: Any = make_plugin(topology.PLUGIN)
    binding = SourceBinding(
        "events", "endpoint-notification-source", source, (ExtractorBinding("topology-extractor", extractor),)
    )
    store = EndpointStore()
    collector = Collector(store, [binding], NoCounters())
    await collector.start()
    store.upsert(Endpoint.of("a", "127.0.0.1", 8000, {"topology.kubernetes.io/zone": "z1"}))
    attributes = store.metrics(EndpointId("default/a")).attributes
    assert attributes == {TOPOLOGY.name: Topology("", "", "z1", "")}
    assert store.updated_s(EndpointId("default/a")) is None, "nothing was read of it"
    store.upsert(Endpoint.of("a", "127.0.0.1", 8000, {"topology.kubernetes.io/zone": "z2"}))
    assert store.metrics(EndpointId("default/a")).attributes == {TOPOLOGY.name: Topology("", "", "z2", "")}
    await collector.stop()
