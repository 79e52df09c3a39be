"""The whole picker in one process: transport, director, real plugins, stores, metrics; only scraping is left out.

Endpoints have the state that the test gives them. When a picker is stopped it must have settled: no stream had to be aborted,
nothing is counted as running, no body is held, every picked request was completed exactly once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Any

import yaml
from grpc import aio
from prometheus_client.parser import text_string_to_metric_families

from epp.config.instantiate import instantiate
from epp.config.load import load_config
from epp.config.loaded import ConfigSource, Instances, LoadedConfig, LoadedPlugin, LoadFlags
from epp.datalayer.collector import Collector
from epp.datalayer.membership import PluginFollowers
from epp.datalayer.objects import (
    GROUP,
    InferenceModelRewrite,
    InferenceObject,
    InferenceObjective,
    ObjectKey,
    ObjectStore,
    PoolIdentity,
    RewriteRule,
    RewriteTarget,
)
from epp.datalayer.store import EndpointStore
from epp.decision.candidates import CandidateFinder
from epp.decision.director import Director, DirectorOptions
from epp.decision.ledger import Ledger
from epp.decision.pipeline import PipelineInUse
from epp.decision.response import ResponseObserver
from epp.flowcontrol.controller import FlowController
from epp.framework.handle import PluginContext
from epp.framework.interfaces import HasState, Role
from epp.framework.registry import PluginType, Registry
from epp.framework.types import Endpoint, EndpointMetrics
from epp.plugin_calls.defects import PluginDefects
from epp.pool import pages
from epp.pool.build import PipelineBuilder, followers, request_readers
from epp.pool.flow_control import flow_control_settings, start_flow_control
from epp.pool.settings import PoolSettings
from epp.process.health import Health
from epp.process.plugin_types import build_registry
from epp.process.runtime import TaskRuntime
from epp.request.headers import REQUEST_STRIP, RESPONSE_STRIP, WENT_INTO_RESPONSE
from epp.seam import Port, Settings, Transport, TransportStats, total
from epp.telemetry.catalogue import ITL_S, PREFIX
from epp.telemetry.decisions import Decisions
from epp.telemetry.flow_control import FlowMetrics
from epp.telemetry.metrics import Metrics
from plugins.former import FORMER
from tests.conformance.doubles import Recorder
from tests.conformance.seam import Seam
from tests.conformance.wire import DUPLEX, Message, Modes, Refusal, Routed, Stream, request_headers, see_response
from tests.transport.transports import TRANSPORTS as INSTALLED

TRANSPORTS: Sequence[type[Transport]] = [*INSTALLED.values()]
"""Every conformance test runs over each of them."""

MAX_LORA = 2
FRESH_S = 2.0
STOP_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class Server:
    """An endpoint and what its last scrape said."""

    endpoint: Endpoint
    metrics: EndpointMetrics


def server(
    name: str, address: str, waiting_queue: int = 0, kv_cache_usage: float = 0.1, adapters: Iterable[str] = (), port: int = 8000
) -> Server:
    """An endpoint with this state."""
    metrics = EndpointMetrics(
        waiting_queue=waiting_queue,
        running_requests=0,
        kv_cache_usage=kv_cache_usage,
        active_models=frozenset(adapters),
        max_active_models=MAX_LORA,
    )
    return Server(Endpoint.of(name, address, port), metrics)


A = partial(server, "a", "192.168.1.1")
B = partial(server, "b", "192.168.1.2")
C = partial(server, "c", "192.168.1.3")
A_ADDRESS, B_ADDRESS, C_ADDRESS = (f"192.168.1.{number}:8000" for number in (1, 2, 3))


def objective(name: str, priority: int | None) -> InferenceObjective:
    """An InferenceObjective of our pool."""
    return InferenceObjective(ObjectKey(GROUP, "default", name), priority)


def rewrite(
    name: str, target: str | Sequence[tuple[str, int | None]], *models: str, created_s: float = 0.0
) -> InferenceModelRewrite:
    """A rule for ``models``; without any it matches every name."""
    targets = [(target, None)] if isinstance(target, str) else target
    rule = RewriteRule(tuple(RewriteTarget(model, weight) for model, weight in targets), models, generic=not models)
    return InferenceModelRewrite(ObjectKey(GROUP, "default", name), (rule,), created_s=created_s)


OBJECTIVES: tuple[InferenceObject, ...] = (
    objective("my-model", 2),
    objective("sql-lora", 2),
    objective("direct-model", 2),
    objective("sql-lora-sheddable", None),
    objective("prio4", 4),
)
REWRITE: InferenceObject = rewrite("rewrite", "rewritten-model", "model-to-be-rewritten")
PICKER = "max-score-picker"
HEADER = {"apiVersion": "inference.networking.x-k8s.io/v1alpha1", "kind": "EndpointPickerConfig"}
SCORERS = ("queue-scorer", "kv-cache-utilization-scorer", "lora-affinity-scorer")


def configuration(
    doubles: Sequence[PluginType] = (),
    *,
    scorers: Sequence[str] = SCORERS,
    parsers: Sequence[str] = (),
    declared: Sequence[str] = (),
    flow_control: Mapping[str, Any] | None = None,
    document: Mapping[str, Any] | None = None,
) -> str:
    """The document of the fixture, all scorers of weight 1, with a test's own plugins in their places; or a test's own one."""
    if document is not None:
        return yaml.safe_dump({**HEADER, **document})
    filters = [plugin.type for plugin in doubles if Role.FILTER in plugin.roles]
    own_scorers = [plugin.type for plugin in doubles if Role.SCORER in plugin.roles]
    pickers = [plugin.type for plugin in doubles if Role.PICKER in plugin.roles] or [PICKER]
    detectors = [plugin.type for plugin in doubles if Role.SATURATION_DETECTOR in plugin.roles]
    names = (*scorers, *parsers, *declared, *(plugin.type for plugin in doubles), *pickers)
    plugins = [{"type": name} for name in dict.fromkeys(names)]
    profile: list[dict[str, Any]] = [{"pluginRef": name} for name in filters]
    profile += [{"pluginRef": name, "weight": 1} for name in (*scorers, *own_scorers)]
    profile += [{"pluginRef": name} for name in pickers]
    usual: dict[str, Any] = {
        **HEADER,
        "plugins": plugins,
        "schedulingProfiles": [{"name": "default", "plugins": profile}],
    }
    if parsers:
        usual["requestHandler"] = {"parsers": [{"pluginRef": name} for name in parsers]}
    if detectors:
        usual["saturationDetector"] = {"pluginRef": detectors[0]}
    if flow_control is not None:
        usual |= {"featureGates": ["flowControl"], "flowControl": flow_control}
    return yaml.safe_dump(usual)


class Picker:
    """A picker under test.

    Args:
        transport: how it speaks.
        servers: its endpoints.
        doubles: plugin types of the test; all are declared.
        config: further arguments of ``configuration``.
        objects: objectives and rewrites.
        settings: replaces fields of the transport's settings.
        emit_scores: ``--emit-endpoint-scores``.
        use_subset: False is ``--disable-endpoint-subset-filter``.
        leader_election: ``--ha-enable-leader-election``.
        seed: of all that is drawn.
    """

    def __init__(
        self,
        transport: Transport,
        servers: Sequence[Server],
        *,
        doubles: Sequence[PluginType] = (),
        config: dict[str, Any] | None = None,
        objects: Sequence[InferenceObject] = (*OBJECTIVES, REWRITE),
        settings: dict[str, Any] | None = None,
        emit_scores: bool = False,
        use_subset: bool = True,
        leader_election: bool = False,
        seed: int = 7,
    ) -> None:
        self.transport = transport
        self.settings = Settings(
            request_strip=REQUEST_STRIP,
            response_strip=RESPONSE_STRIP,
            response_set=((WENT_INTO_RESPONSE, "true"),),
            gap_bounds_s=ITL_S,
        )._replace(**(settings or {}))
        self.defects: list[tuple[str, Exception]] = []
        """What the picker reported as its own failures."""
        self.metrics = Metrics()
        self.runtime = TaskRuntime()
        self.store = EndpointStore()
        self.objects = ObjectStore(PoolIdentity("pool"), random.Random(seed))
        self.health = Health(("pool", "plugins"), leader_election=leader_election, on_change=transport.set_health)
        self.port = 0
        self._seeds = random.Random(seed)
        self._channel: aio.Channel | None = None
        self._stopped = False
        self.serve(servers)
        for obj in objects:
            self.objects.put(obj)
        self.instances = self._instantiate(doubles, config or {})
        self.settings = self.settings._replace(request_readers=request_readers(self.instances.config))
        self.store.subscribe(PluginFollowers(followers(self.instances), PluginDefects(self.metrics)))
        self.flow_control: FlowController | None = None
        self.director = self._director(emit_scores, use_subset)
        self.seam = Seam(self.director)
        collector = Collector(self.store, [], self.metrics)
        self.metrics.watch_pool(lambda: pages.pool("pool", self.store, collector, FRESH_S, time.monotonic()))

    def serve(self, servers: Sequence[Server]) -> None:
        """Make these the endpoints."""
        self.store.replace_all([server.endpoint for server in servers])
        for server in servers:
            self.store.set_metrics(server.endpoint.id, server.metrics, time.monotonic())

    # ── life ──

    async def start(self) -> None:
        """Listen on loopback."""
        self.transport.set_health(self.health.table())
        handler = total(self.seam, lambda place, error: self.defects.append((place, error)))
        [self.port] = await self.transport.start(handler, self.settings, [Port("127.0.0.1", 0, secure=False)])
        self.health.set_ready("pool")
        self.health.set_ready("plugins")
        unlimited = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
        self._channel = aio.insecure_channel(f"127.0.0.1:{self.port}", options=unlimited)

    @property
    def channel(self) -> aio.Channel:
        """The data plane's connection."""
        assert self._channel is not None, "the picker is not started"
        return self._channel

    async def stop(self) -> None:
        """Drop the connection, stop; does nothing the second time."""
        if self._stopped:
            return
        self._stopped = True
        await self.channel.close(None)
        await self.transport.stop(STOP_GRACE_S)
        await self.runtime.stop()

    async def settle(self) -> None:
        """Stop, and prove that nothing was left behind.

        Everything that ``stop`` waits for ended by itself: a stream that had to be aborted counts as UNAVAILABLE.
        """
        await self.stop()
        stats = self.stats
        assert not {"UNAVAILABLE", "INTERNAL"} & set(stats.ended), stats
        assert stats.open_streams == 0
        assert stats.buffered_bytes == 0
        if self.flow_control is not None:
            assert self.flow_control.bands.count == 0
            assert self.flow_control.saturation.credits.requests == 0
            assert not any(self.series("flow_control_queue_size").values())
        running = self.series("request_running")
        assert not any(running.values()), running
        assert not self.defects
        self.seam.check()
        for plugin in self.instances.by_name.values():
            if isinstance(plugin, Recorder):
                _check_order(plugin)
        active = self.instances.by_name.get("active-request-scorer")
        if isinstance(active, HasState):
            assert active.debug_state() == {"requests": 0, "active": {}}

    # ── the data plane's side ──

    def stream(self, modes: Modes | None = DUPLEX, *, observed: bool = False) -> Stream:
        """A new stream."""
        return Stream(self.channel, modes, observed=observed)

    async def route(self, *messages: Message, modes: Modes | None = DUPLEX) -> Routed:
        """Send a request, take its route, then see a whole response pass: nothing else was sent in between."""
        stream = self.stream(modes)
        await stream.send(*messages)
        routed = await stream.routed()
        await see_response(stream)
        return routed

    async def refuse(self, *messages: Message, modes: Modes | None = DUPLEX) -> Refusal:
        """Send a request that is refused; nothing else was sent, and the stream is over."""
        stream = self.stream(modes)
        await stream.send(*messages)
        return await stream.refused()

    async def round_trip(self) -> None:
        """A request without body, answered: what was sent before on other streams has been read and dealt with.

        Messages of one connection are read in order, so that an answer to a later one proves it; for those who must know that
        the picker keeps silent.
        """
        stream = self.stream()
        await stream.send(request_headers(end=True, method="GET", path="/v1/models"))
        await stream.answer("request_headers")
        stream.cancel()

    # ── what can be seen from outside ──

    @property
    def stats(self) -> TransportStats:
        """The transport's counts."""
        return self.transport.stats()

    def series(self, name: str, *, suffix: str = "") -> dict[tuple[str, ...], float]:
        """Values of a family on the metrics page, by label values in the order of the page.

        Args:
            name: without the common prefix.
            suffix: of the samples: ``_count`` or ``_sum`` of a histogram.
        """
        wanted = PREFIX + name + suffix
        page = self.metrics.exposition().decode().split("\n")
        lines = "\n".join(line for line in page if line.startswith(wanted))  # parsing the whole page takes 30 ms
        samples = (sample for family in text_string_to_metric_families(lines) for sample in family.samples)
        return {tuple(sample.labels.values()): sample.value for sample in samples if sample.name == wanted}

    def total(self, name: str, *, suffix: str = "") -> float:
        """The sum over all label values."""
        return sum(self.series(name, suffix=suffix).values())

    # ── parts ──

    def _instantiate(self, doubles: Sequence[PluginType], config: dict[str, Any]) -> Instances:
        loaded = _load(tuple(doubles), configuration(doubles, **config))

        def context(plugin: LoadedPlugin, references: Mapping[str, object]) -> PluginContext:
            return PluginContext(
                name=plugin.name,
                type=plugin.type.type,
                rng=random.Random(self._seeds.getrandbits(64)),
                plugins=references,
                profiles=tuple(profile.name for profile in loaded.profiles),
                metrics=self.metrics,
                runtime=self.runtime,
            )

        return instantiate(loaded, context)

    def _director(self, emit_scores: bool, use_subset: bool) -> Director:
        ledger = Ledger()
        self.metrics.watch_requests(lambda: ledger.by_labels)
        defects = PluginDefects(self.metrics)
        settings = flow_control_settings(self.instances, PoolSettings(PoolIdentity("pool")))
        if settings is not None:
            metrics = FlowMetrics(self.metrics, "pool")
            self.flow_control = start_flow_control(settings, self.store, self.objects, metrics, defects)
        builder = PipelineBuilder(self.instances, self.metrics, defects, self.runtime.spawn, flow_control=self.flow_control)
        return Director(
            PipelineInUse(builder.build()),
            CandidateFinder(self.store, use_subset=use_subset),
            self.objects,
            self.metrics,
            ResponseObserver(self.store, ledger, self.metrics, lambda place, error: self.defects.append((place, error))),
            Decisions(),
            DirectorOptions(emit_scores, self.settings.max_body_bytes),
            ledger=ledger,
            choose=self._seeds.choice,
            spawn=self.runtime.spawn,
        )


@cache
def _built_in() -> tuple[PluginType, ...]:
    """The plugin types of this installation; looking for those of other packages takes as long as all the rest of a start."""
    registry, _ = build_registry()
    return tuple(registry)


@lru_cache(maxsize=32)
def _load(doubles: tuple[PluginType, ...], document: str) -> LoadedConfig:
    """The configuration of a test; most have the same."""
    registry = Registry((*_built_in(), *doubles))
    registry.remember(FORMER)
    return load_config(ConfigSource.from_text(document), registry, LoadFlags(for_serve=True))


def _check_order(recorder: Recorder) -> None:
    """Each request: the decision, the response's parts in order, and its end exactly once and last."""
    for calls in recorder.calls.values():
        rank = {"pre_request": 0, "received": 1, "streaming": 2, "complete": 3}
        order = [rank[call] for call in calls]
        assert order == sorted(order), calls
        for once in ("pre_request", "complete"):
            assert calls.count(once) == 1, calls
        assert calls.count("received") <= 1, calls
