"""Flow control of a configuration: what the section means, and what a reload and a stop do to those who wait."""

from __future__ import annotations

import time
from typing import Any

import pytest
import yaml

from epp.config.instantiate import instantiate
from epp.config.load import load_config
from epp.config.loaded import ConfigSource, LoadedConfig, LoadFlags
from epp.datalayer.objects import GROUP, InferenceObjective, ObjectKey, PoolIdentity
from epp.errors import EppError
from epp.flowcontrol.settings import FlowControlSettings
from epp.framework.interfaces import Role
from epp.framework.registry import PluginType, Registry
from epp.framework.types import EndpointMetrics
from epp.pool.flow_control import flow_control_settings
from epp.pool.pool import Pool
from epp.pool.settings import PoolSettings
from epp.process.plugin_types import build_registry
from epp.process.runtime import TaskRuntime
from epp.telemetry.metrics import Metrics
from tests.config.doubles import HEADER
from tests.unit.decision.rig import FakeStream, outcome, request

SETTINGS = PoolSettings(PoolIdentity("pool"), endpoints=("127.0.0.1:1",))
STALENESS = {"metricsStalenessThreshold": "1h"}
GIB = 1 << 30


def config(section: dict[str, Any] | None = None, *, plugins: tuple[Any, ...] = (), gate: bool = True) -> LoadedConfig:
    registry, _ = build_registry()
    document: dict[str, Any] = {
        "plugins": [{"type": "queue-scorer"}, *plugins],
        "saturationDetector": {"queueDepthThreshold": 5, **STALENESS},
    }
    if gate:
        document |= {"featureGates": ["flowControl"], "flowControl": section or {}}
    return load_config(ConfigSource.from_text(HEADER + yaml.safe_dump(document)), registry, LoadFlags(for_serve=True))


def settings(section: dict[str, Any], *plugins: Any) -> FlowControlSettings:
    found = flow_control_settings(instantiate(config(section, plugins=plugins)), SETTINGS)
    assert found is not None
    return found


# ── what the section means ──


def test_what_is_not_said() -> None:
    found = settings({})
    assert (found.max_requests, found.max_bytes, found.empty_pool_ttl_s, found.eviction) == (0, 0, 0.0, None)
    band = found.template
    assert (band.max_requests, band.max_bytes, band.ttl_s, band.min_share) == (5000, GIB, 0.0, 0.0)
    assert (band.max_flow_requests, band.max_flow_bytes) == (0, 0)
    assert (band.fairness.name, band.ordering.name) == ("global-strict-fairness-policy", "fcfs-ordering-policy")
    assert (found.usage.name, found.detector.name) == ("static-usage-limit-policy", "utilization-detector")
    assert found.negative_template is found.template
    assert dict(found.bands) == {}


def test_without_the_gate_there_is_none() -> None:
    assert flow_control_settings(instantiate(config(gate=False)), SETTINGS) is None


def test_what_is_said() -> None:
    found = settings(
        {
            "maxBytes": "4Gi",
            "maxRequests": "10k",
            "defaultRequestTTL": "20s",
            "noEndpointRequestTTL": "8m",
            "usageLimitPolicyPluginRef": "hold",
            "defaultPriorityBand": {"maxRequestsPerFlow": 7, "maxBytesPerFlow": "1Mi"},
            "defaultNegativePriorityBand": {"maxRequests": 50, "defaultRequestTTL": "0s"},
            "priorityBands": [{"priority": 100, "maxRequests": "2k", "fairnessPolicyRef": "rr", "minShare": 0.25}],
        },
        {"type": "round-robin-fairness-policy", "name": "rr"},
        {"type": "priority-holdback-policy", "name": "hold", "parameters": {"minCeiling": 0.5}},
    )
    assert (found.max_bytes, found.max_requests, found.empty_pool_ttl_s) == (4 * GIB, 10_000, 480.0)
    assert found.usage.name == "hold"
    assert (found.template.max_flow_requests, found.template.max_flow_bytes, found.template.ttl_s) == (7, 1 << 20, 20.0)
    assert (found.band(-1).max_requests, found.band(-1).ttl_s) == (50, 0.0)
    assert (found.band(100).max_requests, found.band(100).fairness.name, found.band(100).min_share) == (2000, "rr", 0.25)
    assert found.band(7) is found.template


@pytest.mark.parametrize(("section", "expected"), [({"defaultRequestTTL": "5s"}, 5.0), ({"defaultRequestTTL": "0s"}, 0.0)])
def test_flow_65_the_wait_for_the_first_endpoint_follows_the_other(section: dict[str, Any], expected: float) -> None:
    assert settings(section).empty_pool_ttl_s == expected


def test_eviction_has_the_usual_policies_unless_others_are_declared() -> None:
    found = settings({"enableEviction": True}).eviction
    assert found is not None
    assert (found.filter.type, found.order.type) == ("sheddable-eviction-filter", "priority-then-time-eviction-order-policy")
    assert found.grace_s == pytest.approx(2.3)
    named = settings({"enableEviction": True}, {"type": "sheddable-eviction-filter", "name": "mine"}).eviction
    assert named is not None
    assert named.filter.name == "mine"


def test_the_grace_is_short_where_the_detector_counts_for_itself() -> None:
    registry, _ = build_registry()
    document = HEADER + yaml.safe_dump(
        {
            "featureGates": ["flowControl"],
            "plugins": [{"type": "queue-scorer"}, {"type": "concurrency-detector"}],
            "flowControl": {"enableEviction": True, "saturationDetector": {"pluginRef": "concurrency-detector"}},
        }
    )
    found = flow_control_settings(instantiate(load_config(ConfigSource.from_text(document), registry)), SETTINGS)
    assert found is not None
    assert found.eviction is not None
    assert found.eviction.grace_s == 0.01


def test_a_policy_that_is_none_is_told_when_it_is_made() -> None:
    registry, _ = build_registry()
    fake = PluginType(
        "fake-order",
        frozenset({Role.ORDERING_POLICY}),
        "Orders nothing.",
        factory=lambda context, params: object(),
        package="acme",
    )
    document = HEADER + yaml.safe_dump(
        {
            "featureGates": ["flowControl"],
            "plugins": [{"type": "queue-scorer"}, {"type": "fake-order"}],
            "flowControl": {"priorityBands": [{"priority": 1, "orderingPolicyRef": "fake-order"}]},
        }
    )
    loaded = load_config(ConfigSource.from_text(document), Registry((*registry, fake)))
    with pytest.raises(EppError, match="type fake-order of acme claims to be a OrderingPolicy, but object lacks"):
        flow_control_settings(instantiate(loaded), SETTINGS)


# ── a pool that lives ──


class Served:
    """A pool with one endpoint."""

    def __init__(self, loaded: LoadedConfig) -> None:
        self.runtime = TaskRuntime()
        self.metrics = Metrics()
        self.defects: list[tuple[str, Exception]] = []
        self.pool = Pool(SETTINGS, loaded, self.metrics, self.runtime, self.runtime.spawn, lambda *d: self.defects.append(d))

    async def start(self) -> None:
        await self.pool.start()
        await self.pool.collector.stop()  # its state is what the test says
        self.waiting(100)

    def waiting(self, requests: int) -> None:
        """A scrape says that so many requests wait in the endpoint."""
        (endpoint,) = self.pool.store
        metrics = EndpointMetrics(waiting_queue=requests, kv_cache_usage=0.0)
        self.pool.store.set_metrics(endpoint.id, metrics, time.monotonic())

    def send(self, **headers: str) -> FakeStream:
        stream = FakeStream()
        self.pool.director.request(stream, request(headers={key.replace("_", "-"): value for key, value in headers.items()}))
        return stream

    async def stop(self) -> None:
        await self.pool.pause()
        await self.runtime.stop()
        await self.pool.stop()
        assert self.defects == []


async def test_a_scrape_lets_those_who_wait_go() -> None:
    served = Served(config())
    await served.start()
    stream = served.send()
    assert stream.answers == []
    served.waiting(0)
    await stream.answered.wait()
    assert stream.route
    served.pool.director.finished(stream, outcome())
    await served.stop()


async def test_a_reload_keeps_those_who_wait_and_holds_for_those_who_come() -> None:
    served = Served(config({"defaultPriorityBand": {"maxRequests": 5}}))
    await served.start()
    waiting = [served.send() for _ in range(3)]
    await served.pool.swap(config({"defaultPriorityBand": {"maxRequests": 1}}))
    await served.pool.collector.stop()
    assert served.send().reply.status == 429
    served.waiting(0)
    for stream in waiting:
        await stream.answered.wait()
        assert stream.route
        served.pool.director.finished(stream, outcome())
    await served.stop()


async def test_a_reload_without_flow_control_still_serves_those_who_wait() -> None:
    served = Served(config())
    await served.start()
    waiting = served.send()
    await served.pool.swap(config(gate=False))
    await served.pool.collector.stop()
    passes = served.send()
    assert passes.route, "legacy admission lets priority 0 in"
    assert served.pool.queues_page() == {"enabled": False, "message": "the feature gate flowControl is off"}
    served.waiting(0)
    await waiting.answered.wait()
    assert waiting.route
    for stream in (waiting, passes):
        served.pool.director.finished(stream, outcome())
    await served.stop()


async def test_a_pool_that_stops_refuses_those_who_wait_and_those_who_come() -> None:
    served = Served(config())
    await served.start()
    waiting = served.send()
    served.pool.refuse_queued()
    assert (waiting.reply.status, served.send().reply.status) == (503, 503)
    await served.stop()


async def test_a_pool_that_no_longer_leads_sends_those_who_wait_elsewhere() -> None:
    served = Served(config())
    await served.start()
    waiting = served.send()
    served.pool.step_down()
    assert waiting.reply.status == 503
    assert ("x-llm-d-request-dropped-reason", "rejected-shutting-down") in waiting.reply.headers
    late = served.send()
    assert late.answers == []
    await served.stop()
    assert late.reply.status == 503


async def test_objectives_bring_bands_about() -> None:
    served = Served(config({"priorityBands": [{"priority": 9}]}))
    await served.start()
    served.pool.objects.put(InferenceObjective(ObjectKey(GROUP, "default", "batch"), priority=-7))
    page: Any = served.pool.queues_page()
    assert [band["priority"] for band in page["bands"]] == [9, 0, -7]
    await served.stop()


async def test_the_page_shows_who_waits() -> None:
    served = Served(config({"maxRequests": 10, "defaultPriorityBand": {"fairnessPolicyRef": "rr"}},
                           plugins=({"type": "round-robin-fairness-policy", "name": "rr"},)))  # fmt: skip
    await served.start()
    for tenant in ("a", "b", "b"):
        served.send(x_llm_d_inference_fairness_id=tenant)
    page: Any = served.pool.queues_page()
    (band,) = page["bands"]
    size = band["bytes"] // 3
    assert (page["enabled"], page["requests"], page["maxRequests"], page["poolIsEmpty"]) == (True, 3, 10, False)
    assert page["saturation"] == {"effective": 20.0, "prefill": None, "decode": 20.0}
    assert band["flows"] == [{"id": "b", "requests": 2, "bytes": 2 * size}, {"id": "a", "requests": 1, "bytes": size}]
    assert (band["fairness"], band["ceiling"], band["servedPerSecond"], band["moreFlows"]) == ("rr", 1.0, 0.0, 0)
    await served.stop()
