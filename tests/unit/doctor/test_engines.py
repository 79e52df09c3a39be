"""What was seen of model servers → findings; and pages read by the picker's own mapping."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from epp.doctor.engine_pages import engine_reading, look_at_engines
from epp.doctor.engines import EngineView, EventPort, check_engines
from epp.doctor.known import KvEventSettings, Picker
from epp.doctor.probes import Pages
from epp.framework.handle import MetricsFlags
from epp.framework.types import Endpoint, EndpointMetrics
from epp.simulate.server import SimulatedPool

A = Endpoint.of("a", "10.0.0.1", 8000)
GOOD = EndpointMetrics(waiting_queue=0, running_requests=0, kv_cache_usage=0.1, cache_block_size=16)
SEEN = EngineView(A, GOOD)
EVENTS = KvEventSettings("precise", 5557, connects=True, topic="kv@", block_size=16)
LORA = Picker(scores_lora=True)
PRECISE = Picker(kv_events=(EVENTS,))


def topic(text: str) -> Picker:
    return Picker(kv_events=(replace(EVENTS, topic=text),))


def blocks(size: int, name: str = "b") -> EngineView:
    return EngineView(Endpoint.of(name, "10.0.0.2", 8000), replace(GOOD, cache_block_size=size))


CASES: list[tuple[str, list[EngineView], Picker, list[str]]] = [
    ("all is well", [SEEN], Picker(), []),
    ("no page", [EngineView(A, error="connection refused")], Picker(), ["ENG001"]),
    ("no page here", [EngineView(A, error="connection refused", is_read_by_picker=True)], Picker(), ["ENG002"]),
    ("no queue", [EngineView(A, replace(GOOD, waiting_queue=None), ["x is not on the page"])], Picker(), ["ENG003"]),
    ("nothing at all", [EngineView(A, EndpointMetrics())], Picker(), ["ENG003"]),
    ("something misses", [EngineView(A, GOOD, ["cache is not on the page"])], Picker(), ["ENG004"]),
    ("no block size", [EngineView(A, replace(GOOD, cache_block_size=0))], Picker(), ["ENG005"]),
    ("other block sizes", [SEEN, blocks(32)], Picker(), ["ENG006"]),
    ("equal block sizes", [SEEN, blocks(16)], Picker(), []),
    ("an unknown block size", [SEEN, blocks(0)], Picker(), ["ENG005"]),
    ("the precise cache agrees", [SEEN], PRECISE, []),
    ("the precise cache counts otherwise", [blocks(64)], PRECISE, ["ENG007"]),
    ("no adapters", [SEEN], LORA, ["ENG008"]),
    ("room for adapters", [EngineView(A, replace(GOOD, max_active_models=2))], LORA, []),
    ("clock ahead", [replace(SEEN, skew_s=6.0)], Picker(), ["ENG009"]),
    ("clock right", [replace(SEEN, skew_s=-4.0)], Picker(), []),
    ("events come", [replace(SEEN, events=EventPort.ZEROMQ)], PRECISE, []),
    ("no port for events", [replace(SEEN, events=EventPort.CLOSED)], PRECISE, ["ENG010"]),
    ("another port for events", [replace(SEEN, events=EventPort.OTHER)], PRECISE, ["ENG011"]),
    ("a topic that engines have", [SEEN], topic("kv@10.0.0.1@m"), []),
    ("all topics", [SEEN], topic(""), []),
    ("a topic that no engine has", [SEEN], topic("events"), ["ENG012"]),
]


@pytest.mark.parametrize(("views", "picker", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_was_seen_of_engines(views: list[EngineView], picker: Picker, expected: list[str]) -> None:
    findings = check_engines("http://picker", views, picker)
    assert [found.code for found in findings] == expected
    assert all(found.fix and found.file == "http://picker" for found in findings)


async def look(effective: dict[str, Any] | None, *endpoints: Endpoint, flags: MetricsFlags | None = None) -> list[EngineView]:
    reading = engine_reading("picker", effective, flags or MetricsFlags())
    assert [found.code for found in reading.findings] == []
    try:
        async with Pages(5.0) as pages:
            return await look_at_engines([(endpoint, False) for endpoint in endpoints], reading, Picker(), pages, 5.0)
    finally:
        await reading.close()


def at(address: str, **labels: str) -> Endpoint:
    host, _, port = address.rpartition(":")
    return Endpoint.of("a", host, int(port), labels)


async def test_a_simulated_server_is_read_by_the_built_in_mapping() -> None:
    async with SimulatedPool(1) as pool:
        [view] = await look(None, at(pool.addresses[0]))
    assert view.metrics is not None
    assert view.metrics.waiting_queue == 0
    assert view.metrics.cache_block_size == 16
    assert view.problems == []
    assert view.skew_s is not None
    assert abs(view.skew_s) < 5
    assert check_engines("picker", [view], Picker()) == []


async def test_a_page_without_the_needed_families_is_told() -> None:
    async with SimulatedPool(1) as pool:
        [view] = await look(None, replace(at(pool.addresses[0]), labels={"llm-d.ai/engine-type": "sglang"}))
    [found] = [each for each in check_engines("picker", [view], Picker()) if each.code == "ENG003"]
    assert "sglang:num_queue_reqs is not on the page" in found.message


async def test_a_server_that_is_gone_is_told_with_the_reason() -> None:
    async with SimulatedPool(1) as pool:
        address = pool.addresses[0]
    [view] = await look(None, at(address))
    [found] = check_engines("picker", [view], Picker())
    assert found.code == "ENG001"
    assert address in found.message


MINE: dict[str, Any] = {
    "apiVersion": "inference.networking.x-k8s.io/v1alpha1",
    "kind": "EndpointPickerConfig",
    "plugins": [
        {"type": "file-discovery", "name": "file-discovery", "parameters": {"path": "/only/where/the/picker/runs"}},
        {"type": "metrics-data-source", "name": "source", "parameters": {"path": "/metrics"}},
        {
            "type": "core-metrics-extractor",
            "name": "extractor",
            "parameters": {
                "defaultEngine": "mine",
                "engineConfigs": [{"name": "mine", "queuedRequestsSpec": "vllm:num_requests_running"}],
            },
        },
    ],
    "dataLayer": {"injectDefaults": False, "sources": [{"pluginRef": "source", "extractors": [{"pluginRef": "extractor"}]}]},
}


async def test_pages_are_read_as_the_configuration_of_the_picker_says() -> None:
    async with SimulatedPool(1) as pool:
        [view] = await look(MINE, at(pool.addresses[0]))
    assert view.metrics == EndpointMetrics(waiting_queue=0, started_s=view.metrics.started_s)
    [found] = check_engines("picker", [view], Picker())
    assert found.value == "running requests, KV cache use"


async def test_an_extractor_that_raises_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no page for me")

    monkeypatch.setattr("plugins.datalayer.core_metrics.CoreMetricsExtractor.extract", broken)
    async with SimulatedPool(1) as servers:
        [view] = await look(None, at(servers.addresses[0]))
    assert view.problems == ["core-metrics-extractor raised RuntimeError: no page for me"]


def test_a_mapping_that_cannot_be_made_here_is_told_and_the_built_in_one_is_used() -> None:
    broken = {**MINE, "plugins": [{"type": "of-another-package", "name": "source"}]}
    reading = engine_reading("picker", broken, MetricsFlags())
    assert [found.code for found in reading.findings] == ["ENG013"]
    assert [binding.type for binding in reading.bindings] == ["metrics-data-source"]


def covered() -> set[str]:
    """Codes that a case of this module expects."""
    return {code for case in CASES for code in case[3]} | {"ENG013"}
