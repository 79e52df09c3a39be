"""The metrics port over real HTTP and HTTPS."""

from __future__ import annotations

import asyncio
import datetime as dt
import gzip
import ipaddress
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import aiohttp
import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from epp.errors import UsageError
from epp.telemetry.metrics import Metrics, Snapshot
from epp.telemetry.requests import RequestLabels
from epp.transport.http_server import (
    Access,
    AccessRequest,
    HttpOptions,
    HttpServer,
    HttpSources,
    MetricsPage,
    refuse_all,
)

LOCAL = HttpOptions(host="127.0.0.1", port=0)
PATHS = ["/debug/config", "/debug/endpoints", "/debug/plugins/state", "/healthz", "/metrics", "/readyz"]


def sources(metrics: Metrics | None = None, not_ready: list[str] | None = None) -> HttpSources:
    reasons = not_ready if not_ready is not None else []
    return HttpSources(
        metrics=metrics or Metrics(),
        not_ready=lambda: reasons,
        endpoints=lambda: [{"name": "pod-a", "labels": {"role": "decode"}}],
        config=lambda: {"sha256": "abc", "plugins": ["queue-scorer"]},
        plugins=lambda: {"timestamp": "now", "plugins": {}},
    )


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, object]:
        found: dict[str, object] = orjson.loads(self.body)
        return found


class Client:
    """Asks one server; nothing is decompressed."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        self._base = f"{'https' if context else 'http'}://127.0.0.1:{port}"
        self._context = context

    async def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        connector = aiohttp.TCPConnector(ssl=self._context or True)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with (
            aiohttp.ClientSession(connector=connector, auto_decompress=False) as session,
            session.request(method, self._base + path, headers=named, skip_auto_headers=["Accept-Encoding"]) as response,
        ):
            return Answer(response.status, dict(response.headers), await response.read())


Serve = Callable[..., Coroutine[object, object, Client]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts servers on ports the system chooses, and stops them afterwards."""
    running: list[HttpServer] = []

    async def start(own: HttpSources | None = None, options: HttpOptions = LOCAL) -> Client:
        server = HttpServer(own or sources(), options)
        port = await server.start()
        running.append(server)
        return Client(port)

    yield start
    for server in running:
        await server.stop()


async def test_metrics_are_prometheus_text(serve: Serve) -> None:
    metrics = Metrics()
    metrics.request_scheduled(RequestLabels("llama"))
    answer = await (await serve(sources(metrics))).ask("/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "Content-Encoding" not in answer.headers
    assert b'llm_d_epp_request_total{model_name="llama"' in answer.body
    assert b"process_resident_memory_bytes" in answer.body


@pytest.mark.parametrize(
    ("accepted", "compressed"),
    [
        ("gzip", True),
        ("deflate, gzip;q=0.5", True),
        ("GZIP", True),
        ("gzip; q=0", False),
        ("br", False),
        ("identity", False),
    ],
)
async def test_metrics_are_compressed_if_accepted(serve: Serve, accepted: str, compressed: bool) -> None:
    answer = await (await serve()).ask("/metrics", Accept_Encoding=accepted)
    assert (answer.headers.get("Content-Encoding") == "gzip") is compressed
    assert answer.headers["Vary"] == "Accept-Encoding"
    page = gzip.decompress(answer.body) if compressed else answer.body
    assert page.startswith(b"# HELP llm_d_epp_info")


async def test_liveness_does_not_depend_on_readiness(serve: Serve) -> None:
    answer = await (await serve(sources(not_ready=["pool: not synced"]))).ask("/healthz")
    assert (answer.status, answer.json()) == (200, {"status": "ok"})


async def test_readiness_says_why_not(serve: Serve) -> None:
    reasons = ["draining", "pool: not synced"]
    client = await serve(sources(not_ready=reasons))
    answer = await client.ask("/readyz")
    assert (answer.status, answer.json()) == (503, {"status": "not ready", "reasons": ["draining", "pool: not synced"]})
    reasons.clear()
    answer = await client.ask("/readyz")
    assert (answer.status, answer.json()) == (200, {"status": "ready", "reasons": []})


@pytest.mark.parametrize(
    ("path", "fragment"),
    [
        ("/debug/endpoints", b'"name": "pod-a"'),
        ("/debug/config", b'"sha256": "abc"'),
        ("/debug/plugins/state", b'"timestamp": "now"'),
    ],
)
async def test_debug_pages_are_json(serve: Serve, path: str, fragment: bytes) -> None:
    answer = await (await serve()).ask(path)
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("application/json")
    assert fragment in answer.body


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_other_methods_are_refused(serve: Serve, path: str, method: str) -> None:
    answer = await (await serve()).ask(path, method)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET")


async def test_head_has_the_headers_of_get(serve: Serve) -> None:
    answer = await (await serve()).ask("/healthz", "HEAD")
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/debug/pprof/goroutine", "/debug/pprof/heap"])
async def test_unknown_paths_list_the_known_ones(serve: Serve, path: str) -> None:
    answer = await (await serve()).ask(path)
    assert answer.status == 404
    assert answer.json() == {"error": f"no page {path}", "paths": PATHS}


async def test_profiling_pages_exist_only_on_request(serve: Serve) -> None:
    client = await serve(options=replace(LOCAL, pprof=True))
    waiting = [asyncio.create_task(asyncio.Event().wait(), name=f"waiting-{number}") for number in range(3)]
    answer = await client.ask("/debug/pprof/goroutine")
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    text = answer.body.decode()
    assert answer.status == 200
    assert "3 tasks @\n    Event.wait" in text
    assert "test_profiling_pages_exist_only_on_request" in text
    assert "thread MainThread @" in text
    assert (await client.ask("/debug/pprof/heap")).status == 404


async def test_a_page_that_fails_is_answered_and_the_server_goes_on(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> object:
        raise RuntimeError("defect")

    client = await serve(replace(sources(), config=broken))
    answer = await client.ask("/debug/config")
    assert (answer.status, answer.json()) == (500, {"error": "/debug/config failed; the log says why"})
    assert "debug page failed" in caplog.text
    assert "RuntimeError: defect" in caplog.text
    assert (await client.ask("/healthz")).status == 200


async def test_bytes_that_are_not_http_disturb_nobody(serve: Serve) -> None:
    server = HttpServer(sources(), LOCAL)
    port = await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\x16\x03\x01 not http\r\n\r\n")
    assert b"400 Bad Request" in await reader.read()
    writer.close()
    await writer.wait_closed()
    assert (await Client(port).ask("/healthz")).status == 200
    await server.stop()


async def test_a_port_in_use_is_a_usage_error(serve: Serve) -> None:
    first = HttpServer(sources(), LOCAL)
    port = await first.start()
    second = HttpServer(sources(), replace(LOCAL, port=port))
    with pytest.raises(UsageError, match=f"--metrics-port: cannot listen on 127.0.0.1:{port}: "):
        await second.start()
    await second.stop()
    await first.stop()


# Who may read


async def by_token(request: AccessRequest) -> Access:
    known = {"reader": Access(), "stranger": Access(403, "Authorization denied for user stranger")}
    return known.get(request.token, Access(401, "Unauthorized"))


@pytest.mark.parametrize("path", [*PATHS, "/nothing-here"])
@pytest.mark.parametrize(
    ("authorization", "status", "text"),
    [
        pytest.param(None, 401, b"Unauthorized\n", id="no token"),
        pytest.param("Bearer wrong", 401, b"Unauthorized\n", id="unknown token"),
        pytest.param("Basic reader", 401, b"Unauthorized\n", id="other scheme"),
        pytest.param("Bearer stranger", 403, b"Authorization denied for user stranger\n", id="denied"),
    ],
)
async def test_every_path_is_protected(serve: Serve, path: str, authorization: str | None, status: int, text: bytes) -> None:
    client = await serve(options=replace(LOCAL, authorize=by_token))
    answer = await client.ask(path, **({"Authorization": authorization} if authorization else {}))
    assert (answer.status, answer.body) == (status, text)
    assert ("WWW-Authenticate" in answer.headers) is (status == 401)


@pytest.mark.parametrize("authorization", ["Bearer reader", "bearer  reader"])
async def test_a_reader_with_a_token_may_read(serve: Serve, authorization: str) -> None:
    client = await serve(options=replace(LOCAL, authorize=by_token))
    assert (await client.ask("/metrics", Authorization=authorization)).status == 200


async def test_the_authorizer_is_told_path_and_verb(serve: Serve) -> None:
    asked: list[AccessRequest] = []

    async def remember(request: AccessRequest) -> Access:
        asked.append(request)
        return Access()

    client = await serve(options=replace(LOCAL, authorize=remember))
    await client.ask("/metrics?name=x", Authorization="Bearer t")
    assert asked == [AccessRequest("/metrics", "get", "t")]


async def test_without_an_api_server_demanded_authentication_refuses_all(serve: Serve) -> None:
    client = await serve(options=replace(LOCAL, authorize=refuse_all))
    assert (await client.ask("/metrics", Authorization="Bearer anything")).status == 401


async def test_an_authorizer_that_fails_lets_nobody_in(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(_request: AccessRequest) -> Access:
        raise OSError("no route to the API server")

    client = await serve(options=replace(LOCAL, authorize=broken))
    answer = await client.ask("/metrics")
    assert answer.status == 500
    assert b"llm_d" not in answer.body
    assert "no route to the API server" in caplog.text


# Rendering off the event loop


class SlowMetrics(Metrics):
    """Renders only when allowed, and counts how often."""

    def __init__(self) -> None:
        super().__init__()
        self.allowed = threading.Event()
        self.threads: list[str] = []

    def render(self, snapshot: Snapshot) -> bytes:
        self.threads.append(threading.current_thread().name)
        assert self.allowed.wait(10)
        if len(self.threads) == 1 and self.fails_first:
            raise RuntimeError("defect")
        return f"page {len(self.threads)}\n".encode()

    fails_first = False


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1, "render") as pool:
        yield pool


async def test_other_pages_are_served_while_metrics_render(serve: Serve) -> None:
    metrics = SlowMetrics()
    client = await serve(sources(metrics))
    scrape = asyncio.create_task(client.ask("/metrics"))
    assert (await client.ask("/healthz")).status == 200
    assert not scrape.done()
    metrics.allowed.set()
    assert (await scrape).body == b"page 1\n"
    assert metrics.threads == ["http-render_0"]


async def test_scrapers_share_a_page_until_it_is_old(executor: ThreadPoolExecutor) -> None:
    metrics, clock = SlowMetrics(), Clock()
    page = MetricsPage(metrics, executor, 1.0, clock)
    together = [asyncio.create_task(page.rendered()) for _ in range(5)]
    await asyncio.sleep(0)
    metrics.allowed.set()
    assert {plain for plain, _ in await asyncio.gather(*together)} == {b"page 1\n"}
    clock.now_s += 0.99
    assert (await page.rendered())[0] == b"page 1\n"
    clock.now_s += 0.02
    assert (await page.rendered())[0] == b"page 2\n"


async def test_a_scraper_that_leaves_does_not_stop_the_others(executor: ThreadPoolExecutor) -> None:
    metrics = SlowMetrics()
    page = MetricsPage(metrics, executor, 1.0, Clock())
    leaving, staying = (asyncio.create_task(page.rendered()) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    metrics.allowed.set()
    assert (await staying)[0] == b"page 1\n"
    assert leaving.cancelled()


async def test_a_failed_rendering_is_not_kept(executor: ThreadPoolExecutor) -> None:
    metrics = SlowMetrics()
    metrics.fails_first = True
    metrics.allowed.set()
    page = MetricsPage(metrics, executor, 1.0, Clock())
    with pytest.raises(RuntimeError, match="defect"):
        await page.rendered()
    assert (await page.rendered())[0] == b"page 2\n"


async def test_metrics_may_be_written_while_they_are_rendered(executor: ThreadPoolExecutor) -> None:
    metrics = Metrics()
    page = MetricsPage(metrics, executor, 0.0)
    done = 0
    for batch in range(10):
        task = asyncio.create_task(page.rendered())
        while not task.done():
            metrics.request_scheduled(RequestLabels(f"m{batch}", "", str(done % 50)))
            done += 1
            await asyncio.sleep(0)
        plain, _ = await task
        assert plain.endswith(b"\n")
    total = sum(
        float(line.rsplit(b" ", 1)[1])
        for line in (await page.rendered())[0].splitlines()
        if line.startswith(b"llm_d_epp_request_total{")
    )
    assert total == done > 0


# TLS


class Authority:
    """A certificate authority in memory."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._sign(self._name, self._key.public_key(), is_ca=True)

    def write_pair(self, directory: Path, name: str) -> Path:
        """``tls.crt`` and ``tls.key`` for 127.0.0.1 in ``directory``."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        directory.mkdir(exist_ok=True)
        (directory / "tls.crt").write_bytes(pem(self._sign(subject, key.public_key(), is_ca=False)))
        (directory / "tls.key").write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return directory

    def write(self, path: Path) -> Path:
        path.write_bytes(pem(self.certificate))
        return path

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, is_ca: bool) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=5))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        )
        return builder.sign(self._key, hashes.SHA256())


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def trusting(authority: Path, own: Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority))
    if own is not None:
        context.load_cert_chain(own / "tls.crt", own / "tls.key")
    return context


def served_name(port: int, authority: Path) -> str:
    """Common name of the certificate that the server shows."""
    text = ssl.get_server_certificate(("127.0.0.1", port), ca_certs=str(authority))
    certificate = x509.load_pem_x509_certificate(text.encode())
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


async def test_pages_are_served_over_tls_and_the_certificate_is_reloaded(tmp_path: Path) -> None:
    authority = Authority("ca")
    ca_file = authority.write(tmp_path / "ca.crt")
    pair = authority.write_pair(tmp_path / "pair", "first")
    server = HttpServer(sources(), replace(LOCAL, cert_dir=pair))
    port = await server.start()
    assert (await Client(port, trusting(ca_file)).ask("/healthz")).status == 200
    authority.write_pair(pair, "second")
    assert await asyncio.to_thread(served_name, port, ca_file) == "first"
    server.reload_tls()
    assert await asyncio.to_thread(served_name, port, ca_file) == "second"
    (pair / "tls.key").write_text("garbage")
    with pytest.raises(UsageError, match="--metrics-cert-dir"):
        server.reload_tls()
    assert await asyncio.to_thread(served_name, port, ca_file) == "second"
    await server.stop()


async def test_clients_must_show_a_certificate_of_the_given_authority(tmp_path: Path) -> None:
    authority, stranger = Authority("ca"), Authority("stranger")
    ca_file = authority.write(tmp_path / "ca.crt")
    pair = authority.write_pair(tmp_path / "server", "server")
    own = authority.write_pair(tmp_path / "client", "client")
    foreign = stranger.write_pair(tmp_path / "foreign", "client")
    server = HttpServer(sources(), replace(LOCAL, cert_dir=pair, client_ca_file=ca_file))
    port = await server.start()
    assert (await Client(port, trusting(ca_file, own)).ask("/metrics")).status == 200
    for context in (trusting(ca_file), trusting(ca_file, foreign)):
        with pytest.raises(aiohttp.ClientError):
            await Client(port, context).ask("/metrics")
    await server.stop()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param("tls.crt", "--metrics-cert-dir: .*tls.crt and .*tls.key cannot be used", id="certificate missing"),
        pytest.param("ca.crt", "--metrics-client-ca-file: .*ca.crt cannot be used", id="client CA missing"),
    ],
)
async def test_unusable_tls_files_are_usage_errors(tmp_path: Path, spoil: str, message: str) -> None:
    authority = Authority("ca")
    ca_file = authority.write(tmp_path / "ca.crt")
    authority.write_pair(tmp_path, "server")
    (tmp_path / spoil).unlink()
    server = HttpServer(sources(), replace(LOCAL, cert_dir=tmp_path, client_ca_file=ca_file))
    with pytest.raises(UsageError, match=message):
        await server.start()
    await server.stop()


async def test_pages_end_with_the_server() -> None:
    server = HttpServer(sources(), LOCAL)
    port = await server.start()
    client = Client(port)
    assert (await client.ask("/healthz")).status == 200
    await server.stop()
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.ask("/healthz")
