"""The picker as a process, in a cluster as its pods see it: a kubeconfig, a service account, a way there that can break."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import uuid
from asyncio.subprocess import Process
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import grpc.aio
import yaml
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from prometheus_client.parser import text_string_to_metric_families

from epp.demo.lifeline import tied
from tests.conformance.wire import Refusal, Routed, Stream, request_body, request_headers, std_body
from tests.kube.api import until
from tests.kube.cluster import Cluster

CONFIG = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: random-picker
- type: endpoint-recorder
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: random-picker
"""
EXTPROC = "envoy.service.ext_proc.v3.ExternalProcessor"
RECORDER = Path(__file__).parent / "recorder"
"""A package with a plugin that shows what plugins are told."""
_STOP_TIMEOUT_S = 15.0


class Way:
    """A TCP proxy in front of an API server: the network between a picker and it, as an async context manager.

    Args:
        port: of the API server on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._frozen = asyncio.Event()
        self.port = 0

    async def __aenter__(self) -> Self:
        await self.mend()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cut()

    async def cut(self) -> None:
        """Break all connections and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()

    async def mend(self) -> None:
        """Let connections through, at the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            there, to_there = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            self._writers.discard(writer)
            return
        self._writers.add(to_there)
        await asyncio.gather(_copy(reader, to_there), _copy(there, writer))
        self._writers -= {writer, to_there}


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await source.read(65536):
            target.write(piece)
            await target.drain()
    target.transport.abort()


def below(pool: str) -> str:
    """Where the pages of a pool begin; "" = those of a picker of one pool."""
    return f"/pools/{pool}" if pool else ""


def write_kubeconfig(path: Path, cluster: Cluster, *, port: int = 0, token: str = "", user: Any = None) -> Path:
    """A kubeconfig for an API server.

    Args:
        port: where it is reached; 0 = its own.
        token: how we show who we are, unless ``user`` says it in another way.
    """
    server = f"https://127.0.0.1:{port or cluster.port}"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority": str(cluster.ca_file)}}],
        "users": [{"name": "u", "user": user or {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(document))
    return path


class Picker:
    """``epp serve``, as an async context manager; entering returns when it listens.

    Args:
        folder: for its files.
        arguments: flags beside those for ports and the configuration.
        config: its configuration.
        name: of its files.
        environ: variables beside ours.
        pools_file: the pools that it serves; it has no configuration of its own then.
    """

    def __init__(
        self,
        folder: Path,
        arguments: Sequence[str],
        *,
        config: str = CONFIG,
        name: str = "picker",
        environ: dict[str, str] | None = None,
        pools_file: Path | None = None,
    ) -> None:
        paths = f"{RECORDER}:{os.environ.get('PYTHONPATH', '')}"
        self._environ = {**os.environ, "PYTHONPATH": paths, **(environ or {})}
        self._ready_file = folder / f"{name}.ready"
        self.log_file = folder / f"{name}.log"
        self._config_file = folder / f"{name}.yaml"
        self._config_file.write_text(config)
        serves = f"--pools-file={pools_file}" if pools_file else f"--config-file={self._config_file}"
        self._command = [
            sys.executable, "-m", "epp", "serve", serves, f"--ready-file={self._ready_file}",
            "--bind-address=127.0.0.1", "--grpc-port=0", "--grpc-health-port=0", "--metrics-port=0", "--secure-serving=false",
            "--drain-timeout=0s", "--metrics-endpoint-auth=false", *arguments,
        ]  # fmt: skip
        self._process: Process | None = None
        self._http: aiohttp.ClientSession | None = None
        self._channel: grpc.aio.Channel | None = None
        self.ports: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        with self.log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *tied(self._command), stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=self._environ
            )
        try:
            self.ports = await until(self._listens, "the picker listens")
        except BaseException:
            self._process.kill()
            raise
        self._http = aiohttp.ClientSession()
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.ports['grpc_health_port']}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._http is not None
        assert self._channel is not None
        await self._http.close()
        await self._channel.close()
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGINT)
            try:
                async with asyncio.timeout(_STOP_TIMEOUT_S):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
                if error is None:
                    raise
        if error is not None:
            error.add_note(f"log of the picker:\n{self.log[-8000:]}")

    async def _listens(self) -> dict[str, int]:
        assert self.process.returncode is None, f"the picker has ended with {self.process.returncode}:\n{self.log}"
        if not self._ready_file.exists():
            return {}
        ports: dict[str, int] = json.loads(self._ready_file.read_text())
        return ports

    @property
    def process(self) -> Process:
        """The process."""
        assert self._process is not None
        return self._process

    @property
    def log(self) -> str:
        """All that it wrote."""
        return self.log_file.read_text()

    @property
    def grpc_port(self) -> int:
        """Of the ext_proc service."""
        return self.ports["grpc_port"]

    def write_config(self, config: str) -> None:
        """Replace its configuration file, and tell it nothing."""
        self._config_file.write_text(config)

    async def reload(self, config: str) -> None:
        """Have it go on by another configuration."""
        self.write_config(config)
        before = self.log.count("configuration reloaded")
        self.process.send_signal(signal.SIGHUP)
        await self.says("configuration reloaded", times=before + 1)

    async def page(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        """Status and body of a page on the metrics port."""
        assert self._http is not None
        async with self._http.get(f"http://127.0.0.1:{self.ports['metrics_port']}{path}", headers=headers) as answer:
            return answer.status, await answer.read()

    async def endpoints(self, pool: str = "") -> dict[str, str]:
        """Name → address:port of its endpoints; of one pool where it serves several."""
        return {name: entry["address"] for name, entry in (await self.entries(pool)).items()}

    async def entries(self, pool: str = "") -> dict[str, dict[str, Any]]:
        """Name → what is known of its endpoints."""
        _, page = await self.page(f"{below(pool)}/debug/endpoints")
        return {entry["id"].partition("/")[2]: entry for entry in json.loads(page)["endpoints"]}

    async def has(self, expected: dict[str, str], timeout_s: float = 30.0, pool: str = "") -> None:
        """Wait until these are its endpoints, name → address:port."""
        try:
            await until(lambda: self._has(expected, pool), f"the endpoints are {expected}", timeout_s)
        except AssertionError as error:
            error.add_note(f"they are {await self.endpoints(pool)}")
            raise

    async def _has(self, expected: dict[str, str], pool: str) -> bool:
        return await self.endpoints(pool) == expected

    async def changes(self) -> list[dict[str, list[str]]]:
        """What plugins were told of the endpoints: names that were added, updated, removed, change by change."""
        changes: list[dict[str, list[str]]] = await self.state("endpoint-recorder")
        return changes

    async def state(self, plugin: str) -> Any:
        """What a plugin shows of itself."""
        _, page = await self.page("/debug/plugins/state")
        return json.loads(page)["plugins"][plugin]["state"]

    async def pick(self, model: str = "m", headers: dict[str, str] | None = None, port: int = 0) -> Routed:
        """Ask for an endpoint, as a data plane does.

        Args:
            port: where; 0 = the one that pools share.
        """
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port or self.grpc_port}") as channel:
            stream = Stream(channel)
            await stream.send(request_headers(headers or {}), request_body(std_body(model, "Hello")))
            routed = await stream.routed()
            await stream.call.done_writing()
            return routed

    async def refusal(self, headers: dict[str, str] | None = None, port: int = 0) -> Refusal:
        """Ask for an endpoint, and be refused."""
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port or self.grpc_port}") as channel:
            stream = Stream(channel)
            await stream.send(request_headers(headers or {}), request_body(std_body("m", "Hello")))
            return await stream.refused()

    async def samples(self, family: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series of a family, as of now."""
        _, page = await self.page("/metrics")
        families = text_string_to_metric_families(page.decode())
        return [(sample.labels, sample.value) for found in families for sample in found.samples if sample.name == family]

    async def priority_of(self, objective: str) -> str:
        """The priority that a request with this objective gets."""
        model = f"asked-{uuid.uuid4().hex}"
        await self.pick(model, {"x-llm-d-inference-objective": objective})

        async def counted() -> str:
            found = [labels for labels, _ in await self.samples("llm_d_epp_request_total") if labels["model_name"] == model]
            return found[0]["priority"] if found else ""

        return await until(counted, "the request is counted")

    async def reasons(self, pool: str = "") -> list[str]:
        """Why it is not ready; empty = it is."""
        _, page = await self.page(f"{below(pool)}/readyz")
        reasons: list[str] = json.loads(page)["reasons"]
        return reasons

    async def health(self, service: str = "readiness") -> str:
        """Name of the status of a service."""
        assert self._channel is not None
        answer = await HealthStub(self._channel).Check(HealthCheckRequest(service=service))
        name: str = HealthCheckResponse.ServingStatus.Name(answer.status)
        return name

    async def is_ready(self, *, ready: bool = True, timeout_s: float = 30.0, service: str = "readiness") -> None:
        """Wait until its readiness, or that of a pool, is this."""
        wanted = "SERVING" if ready else "NOT_SERVING"

        async def holds() -> bool:
            return await self.health(service) == wanted

        await until(holds, f"{service} is {wanted}", timeout_s)

    async def says(self, text: str, timeout_s: float = 30.0, times: int = 1) -> None:
        """Wait until its log contains a text."""

        async def holds() -> bool:
            return self.log.count(text) >= times

        await until(holds, f"the log has {text!r}", timeout_s)

    async def ends(self, timeout_s: float = 30.0) -> int:
        """Wait until it has ended; returns the exit code."""
        async with asyncio.timeout(timeout_s):
            return await self.process.wait()
