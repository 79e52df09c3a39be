"""The life of a process: signals at any time, plugins that are not ready, discovery that ends."""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from epp.config.load import load_config
from epp.config.loaded import ConfigSource
from epp.datalayer.objects import GROUP, InferenceObjective, ObjectKey, PoolRef
from epp.framework.interfaces import EndpointNotifier, Role
from epp.framework.registry import PluginType, Registry
from epp.process import process as process_module
from epp.process.options import Options
from epp.process.plugin_types import build_registry
from epp.process.process import Process
from epp.process.startup import load, load_flags
from epp.seam import HealthTable, Port, RequestHandler, Settings, TransportStats
from epp.transport.tls import self_signed


class Gate:
    """A plugin with a readiness of its own; counts how often it is asked."""

    def __init__(self) -> None:
        self.ready = False
        self._asked = asyncio.Event()

    def pre_request(self, *_: object) -> None:
        pass

    def is_ready(self) -> bool:
        self._asked.set()
        return self.ready

    async def asked_twice_more(self) -> None:
        """What was answered the first time has been used when the question comes again."""
        for _ in range(2):
            self._asked.clear()
            await self._asked.wait()


class Discovery:
    """Finds endpoints, or never does; ends when told."""

    def __init__(self, *, finds: bool = True) -> None:
        self.ready = asyncio.Event()
        self.began = asyncio.Event()
        self.end = asyncio.Event()
        self._finds = finds

    async def run(self, notifier: EndpointNotifier) -> None:
        self.began.set()
        if self._finds:
            self.ready.set()
        await self.end.wait()

    def reload(self) -> None:
        pass


class NoTransport:
    """A transport that moves nothing: the life of a process does not depend on which one it is."""

    async def start(self, handler: RequestHandler, settings: Settings, ports: Sequence[Port]) -> list[int]:
        return [1] * len(ports)

    def configure(self, settings: Settings) -> None:
        pass

    def set_health(self, table: HealthTable) -> None:
        pass

    def stats(self) -> TransportStats:
        return TransportStats(0, {}, (), 0.0, 0)

    async def stop(self, grace_s: float | None) -> None:
        pass


GATE = PluginType(
    type="gate",
    roles=frozenset({Role.PRE_REQUEST}),
    summary="Has a readiness of its own.",
    factory=lambda context, params: Gate(),
)
GATED = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins: [{type: gate}]\n"


def make_process(discovery: Discovery, **more: Any) -> Process:
    """A picker on ports that the system chooses, with a plugin that may not be ready."""
    options = Options(
        endpoints=("127.0.0.1:1",),
        bind_address="127.0.0.1",
        grpc_port=0,
        grpc_health_port=0,
        metrics_port=0,
        drain_timeout_s=60.0,
        graceful_shutdown_timeout_s=0.0,
        secure_serving=False,
        **more,
    )
    registry, _ = build_registry()
    config = load_config(ConfigSource.from_text(GATED), Registry((*registry, GATE)), load_flags(options))
    return Process(options, config, transport=NoTransport(), discovery=discovery)


def gate_of(picker: Process) -> Gate:
    """Its plugin."""
    gate = picker.served[0].pool.generation.instances.by_name["gate"]
    assert isinstance(gate, Gate)
    return gate


@pytest.fixture(autouse=True)
def _no_freeze(monkeypatch: pytest.MonkeyPatch) -> None:
    """Freezing is for the life of a process, not of a test."""
    monkeypatch.setattr(process_module.gc, "freeze", lambda: None)
    monkeypatch.setattr(process_module, "READINESS_EVERY_S", 0.01)


async def test_a_signal_ends_a_start_that_waits() -> None:
    discovery = Discovery(finds=False)
    picker = make_process(discovery)
    serving = asyncio.create_task(picker.serve())
    await discovery.began.wait()
    picker.stop_on(signal.SIGTERM)
    assert await asyncio.wait_for(serving, 10) == 0
    assert picker.ports == {}


async def test_readiness_follows_the_plugins() -> None:
    picker = make_process(Discovery())
    gate = gate_of(picker)
    serving = asyncio.create_task(picker.serve())
    await gate.asked_twice_more()
    assert picker.health.why() == ["plugins: gate not ready"]
    gate.ready = True
    await gate.asked_twice_more()
    assert picker.health.ready
    gate.ready = False
    await gate.asked_twice_more()
    assert not picker.health.ready
    picker.stop_on(signal.SIGINT)
    assert await asyncio.wait_for(serving, 10) == 0


async def test_the_process_ends_with_its_discovery() -> None:
    discovery = Discovery()
    picker = make_process(discovery)
    gate = gate_of(picker)
    serving = asyncio.create_task(picker.serve())
    await gate.asked_twice_more()
    discovery.end.set()
    with pytest.raises(OSError, match="discovery has ended"):
        await asyncio.wait_for(serving, 10)


@pytest.mark.parametrize("serves", [True, False])
async def test_a_second_signal_ends_at_once(serves: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    monkeypatch.setattr(process_module.os, "_exit", codes.append)
    discovery = Discovery(finds=serves)
    picker = make_process(discovery)
    serving = asyncio.create_task(picker.serve())
    await discovery.began.wait()
    picker.stop_on(signal.SIGINT)
    picker.stop_on(signal.SIGTERM)
    assert codes == [128 + signal.SIGTERM]
    await asyncio.wait_for(serving, 10)


def write_pair(directory: Path) -> str:
    """A new key pair; returns its certificate."""
    pair = self_signed()
    (directory / "tls.key").write_bytes(pair.key)
    (directory / "tls.crt").write_bytes(pair.certificate)
    return pair.certificate.decode()


async def test_hangup_reloads_the_certificate_of_the_metrics_port(tmp_path: Path) -> None:
    first = write_pair(tmp_path)
    picker = make_process(Discovery(), metrics_cert_dir=str(tmp_path))
    gate = gate_of(picker)
    gate.ready = True
    serving = asyncio.create_task(picker.serve())
    await gate.asked_twice_more()
    address = ("127.0.0.1", picker.ports["metrics_port"])
    assert await asyncio.to_thread(ssl.get_server_certificate, address) == first
    second = write_pair(tmp_path)
    picker.reload()
    assert await asyncio.to_thread(ssl.get_server_certificate, address) == second
    (tmp_path / "tls.key").write_text("garbage")
    picker.reload()
    assert await asyncio.to_thread(ssl.get_server_certificate, address) == second
    picker.stop_on(signal.SIGINT)
    assert await asyncio.wait_for(serving, 10) == 0


class Started(NoTransport):
    """Says when it was told to listen."""

    def __init__(self) -> None:
        self.began = asyncio.Event()

    async def start(self, handler: RequestHandler, settings: Settings, ports: Sequence[Port]) -> list[int]:
        self.began.set()
        return await super().start(handler, settings, ports)


FROM_A_FILE = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{{type: queue-scorer}}, {{type: file-discovery, parameters: {{path: {path}}}}}]
dataLayer: {{discovery: {{pluginRef: file-discovery}}}}
"""


async def test_f17_a_pool_from_a_file_needs_no_name(tmp_path: Path) -> None:
    file = tmp_path / "endpoints.yaml"
    file.write_text("endpoints: [{name: a, address: 127.0.0.1, port: 1}]")
    options = Options(
        config_text=FROM_A_FILE.format(path=file),
        bind_address="127.0.0.1",
        metrics_port=0,
        secure_serving=False,
    )
    started = Started()
    picker = Process(options, load(options), transport=started)
    serving = asyncio.create_task(picker.serve())
    await asyncio.wait_for(started.began.wait(), 10)
    picker.served[0].pool.objects.put(InferenceObjective(ObjectKey(GROUP, "default", "o"), 7, PoolRef("epp")))
    assert picker.served[0].pool.objects.priority("o") == 7, "it is called epp"
    picker.stop_on(signal.SIGINT)
    assert await asyncio.wait_for(serving, 10) == 0
