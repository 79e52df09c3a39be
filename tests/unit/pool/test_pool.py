"""A pool: its configuration can be replaced while requests run, and every plugin is stopped once, whatever the others do."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from epp.cluster.connection import ClusterConnection
from epp.config.load import load_config
from epp.config.loaded import ConfigSource, LoadedConfig, LoadFlags
from epp.datalayer.objects import PoolIdentity
from epp.framework.interfaces import Role
from epp.framework.notifications import ObjectEvent
from epp.framework.registry import PluginType, Registry
from epp.framework.types import EndpointChange
from epp.pool.pool import Pool
from epp.pool.settings import PoolSettings, Surroundings
from epp.process.plugin_types import build_registry
from epp.process.runtime import TaskRuntime
from epp.telemetry.metrics import Metrics
from tests.unit.decision.rig import FakeStream, outcome, request
from tests.unit.telemetry.scrape import value


class Watched:
    """A plugin that is started, told of requests, and stopped; it writes that down."""

    def __init__(self, name: str, journal: list[str], fails: str = "") -> None:
        self._name, self._journal, self._fails = name, journal, fails
        self.stopped = asyncio.Event()
        self.endpoints: list[str] = []

    def endpoints_changed(self, change: EndpointChange) -> None:
        self.endpoints += [endpoint.host_port for endpoint in change.added]

    async def start(self) -> None:
        self._journal.append(f"{self._name} started")
        if self._fails == "start":
            raise OSError("cannot start")

    async def stop(self) -> None:
        self._journal.append(f"{self._name} stopped")
        self.stopped.set()
        if self._fails == "stop":
            raise OSError("cannot stop")

    def response_complete(self, *_: object) -> None:
        self._journal.append(f"{self._name} completes")


def config(journal: list[str], *names: str, fails: Callable[[str], str] = lambda name: "") -> LoadedConfig:
    """A configuration of plugins with these names."""
    registry, _ = build_registry()
    watched = PluginType(
        type="watched",
        roles=frozenset({Role.RESPONSE_COMPLETE}),
        summary="Writes down what happens to it.",
        factory=lambda context, params: Watched(context.name, journal, fails(context.name)),
    )
    document = "\n".join(
        [
            "apiVersion: llm-d.ai/v1alpha1",
            "kind: EndpointPickerConfig",
            "plugins:",
            *(f"- {{type: watched, name: {name}}}" for name in names),
        ]
    )
    return load_config(ConfigSource.from_text(document), Registry((*registry, watched)), LoadFlags(for_serve=True))


class Served:
    """A pool that serves two endpoints."""

    def __init__(self, config: LoadedConfig, cluster: ClusterConnection | None = None) -> None:
        self.metrics = Metrics()
        self.runtime = TaskRuntime()
        self.defects: list[tuple[str, Exception]] = []
        settings = PoolSettings(PoolIdentity("pool"), endpoints=("127.0.0.1:1", "127.0.0.1:2"))
        self.pool = Pool(
            settings,
            config,
            self.metrics,
            self.runtime,
            self.runtime.spawn,
            lambda *defect: self.defects.append(defect),
            surroundings=Surroundings(cluster=cluster),
        )

    def send(self) -> FakeStream:
        stream = FakeStream()
        self.pool.director.request(stream, request())
        assert stream.route
        return stream

    def finish(self, stream: FakeStream) -> None:
        self.pool.director.finished(stream, outcome())

    def plugin(self, name: str) -> Any:
        return self.pool.generation.instances.by_name[name]


@asynccontextmanager
async def serving(config: LoadedConfig, cluster: ClusterConnection | None = None) -> AsyncIterator[Served]:
    served = Served(config, cluster)
    await served.pool.start()
    yield served
    await served.pool.pause()
    await served.runtime.stop()
    await served.pool.stop()


async def test_a_configuration_is_replaced_while_requests_run() -> None:
    journal: list[str] = []
    async with serving(config(journal, "old")) as served:
        first, old = served.send(), served.plugin("old")
        endpoints = list(served.pool.store)
        await served.pool.swap(config(journal, "new"))
        second = served.send()
        assert list(served.pool.store) == endpoints, "endpoints stay"
        assert not old.stopped.is_set()
        served.finish(second)
        served.finish(first)
        await old.stopped.wait()
        assert served.pool.ledger.running == 0
        reloads = "llm_d_epp_config_reloads_total"
        assert value(served.metrics, reloads, result="success") == 1
    assert journal == ["old started", "new started", "new completes", "old completes", "old stopped", "new stopped"]


async def test_a_configuration_that_nobody_uses_any_more_is_stopped_at_once() -> None:
    journal: list[str] = []
    async with serving(config(journal, "old")) as served:
        old = served.plugin("old")
        await served.pool.swap(config(journal, "new"))
        await old.stopped.wait()
    assert journal == ["old started", "new started", "old stopped", "new stopped"]


async def test_a_configuration_that_cannot_start_changes_nothing() -> None:
    journal: list[str] = []
    async with serving(config(journal, "old")) as served:
        generation = served.pool.generation
        with pytest.raises(OSError, match="cannot start"):
            await served.pool.swap(config(journal, "new", fails=lambda _: "start"))
        assert served.pool.generation is generation
        served.finish(served.send())
        assert value(served.metrics, "llm_d_epp_config_reloads_total", result="failure") == 1
    assert journal == ["old started", "new started", "new stopped", "old completes", "old stopped"]


async def test_a_plugin_that_does_not_change_serves_on_with_its_state() -> None:
    journal: list[str] = []
    async with serving(config(journal, "kept", "old")) as served:
        first, kept, old = served.send(), served.plugin("kept"), served.plugin("old")
        await served.pool.swap(config(journal, "kept", "new"))
        assert served.plugin("kept") is kept
        second = served.send()
        await served.pool.swap(config(journal, "newest"))
        served.finish(first)
        await old.stopped.wait()
        assert not kept.stopped.is_set(), "a request runs that began while it was used"
        served.finish(second)
        await kept.stopped.wait()
    assert [entry for entry in journal if entry.startswith("kept")] == [
        "kept started",
        "kept completes",
        "kept completes",
        "kept stopped",
    ]


async def test_nothing_is_left_of_a_configuration_that_is_over() -> None:
    async with serving(config([], "kept", "old")) as served:
        left = weakref.ref(served.pool.generation)
        old = served.plugin("old")
        await served.pool.swap(config([], "kept", "new"))
        await old.stopped.wait()
        await asyncio.sleep(0)  # the task that stopped it ends
        gc.collect()
        assert left() is None


async def test_a_configuration_that_cannot_start_stops_nothing_that_serves() -> None:
    journal: list[str] = []
    async with serving(config(journal, "kept")) as served:
        with pytest.raises(OSError, match="cannot start"):
            await served.pool.swap(config(journal, "kept", "new", fails=lambda name: "start" if name == "new" else ""))
        assert journal == ["kept started", "new started", "new stopped"]


async def test_a_plugin_that_serves_on_is_told_of_each_endpoint_once() -> None:
    journal: list[str] = []
    async with serving(config(journal, "kept", "old")) as served:
        await served.pool.swap(config(journal, "kept", "new"))
        assert served.plugin("kept").endpoints == served.plugin("new").endpoints == ["127.0.0.1:1", "127.0.0.1:2"]


class Heard:
    """An extractor that writes down which objects it was told of."""

    input = "kubernetes:v1/ConfigMap"

    def __init__(self) -> None:
        self.names: list[str] = []

    def object_changed(self, event: ObjectEvent) -> None:
        self.names.append(event.name)


class OneConfigMap(ClusterConnection):
    """A cluster with one object, in which nothing ever changes."""

    def __init__(self) -> None:
        super().__init__(environ={})
        self.watches = 0
        self.watched = asyncio.Event()

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> bytes:
        if query is None:
            return orjson.dumps({"resources": [{"kind": "ConfigMap", "name": "configmaps", "namespaced": True}]})
        found = {"metadata": {"name": "a", "namespace": "default", "resourceVersion": "1"}}
        return orjson.dumps({"metadata": {"resourceVersion": "1"}, "items": [found]})

    @asynccontextmanager
    async def stream(self, path: str, query: Mapping[str, str], timeout_s: float) -> AsyncIterator[AsyncIterator[bytes]]:
        self.watches += 1
        self.watched.set()
        try:
            yield self._silence()
        finally:
            self.watches -= 1

    async def _silence(self) -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""


def following(*more: str) -> LoadedConfig:
    """A configuration with a plugin that follows objects, and others."""
    registry, _ = build_registry()
    heard = PluginType(
        "heard", frozenset({Role.OBJECT_EXTRACTOR}), "Hears.", factory=lambda context, params: Heard(), package="acme"
    )
    document = {
        "apiVersion": "llm-d.ai/v1alpha1",
        "kind": "EndpointPickerConfig",
        "plugins": [
            {"type": "heard"},
            {"type": "k8s-notification-source", "parameters": {"version": "v1", "kind": "ConfigMap"}},
            *({"type": name} for name in more),
        ],
        "dataLayer": {"sources": [{"pluginRef": "k8s-notification-source", "extractors": [{"pluginRef": "heard"}]}]},
    }
    return load_config(ConfigSource.from_text(orjson.dumps(document).decode()), Registry((*registry, heard)))


async def test_a_plugin_that_serves_on_is_told_of_each_object_once() -> None:
    cluster = OneConfigMap()
    async with serving(following("queue-scorer"), cluster) as served:
        await cluster.watched.wait()
        heard = served.plugin("heard")
        first = served.send()
        cluster.watched.clear()
        await served.pool.swap(following("random-picker"))
        assert served.plugin("heard") is heard
        for _ in range(50):
            await asyncio.sleep(0)
        assert (heard.names, cluster.watches) == (["a"], 1)
        served.finish(first)
        for _ in range(50):
            await asyncio.sleep(0)
        assert cluster.watches == 1, "it still hears of changes"
    assert cluster.watches == 0


async def test_a_pool_that_stops_stops_what_still_retires() -> None:
    journal: list[str] = []
    async with serving(config(journal, "old")) as served:
        served.send()
        await served.pool.swap(config(journal, "new"))
    assert journal == ["old started", "new started", "old stopped", "new stopped"]


async def test_a_plugin_that_cannot_be_stopped_keeps_no_other_from_it() -> None:
    journal: list[str] = []
    async with serving(config(journal, "a", "b", "c", fails=lambda name: "stop" if name == "b" else "")):
        pass
    assert journal[3:] == ["c stopped", "b stopped", "a stopped"]


async def test_two_pools_know_nothing_of_each_other() -> None:
    journal: list[str] = []
    async with serving(config(journal, "a")) as one, serving(config(journal, "b")) as other:
        stream = one.send()
        assert (one.pool.ledger.running, other.pool.ledger.running) == (1, 0)
        assert value(other.metrics, "llm_d_epp_request_total") is None
        one.finish(stream)
    assert journal == ["a started", "b started", "a completes", "b stopped", "a stopped"]
