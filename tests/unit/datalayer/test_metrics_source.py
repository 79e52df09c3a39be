"""metrics-data-source against real servers on loopback."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import ValidationError

from epp.framework.handle import MetricsFlags
from epp.framework.prometheus_text import MAX_PAGE_BYTES
from epp.framework.testing import FakeClock, make_context, make_plugin
from epp.framework.types import Endpoint
from plugins.datalayer.client_tls import CHECK_INTERVAL_S
from plugins.datalayer.core_metrics import PLUGIN as CORE_METRICS
from plugins.datalayer.metrics_source import PLUGIN, MetricsSource
from tests.unit.datalayer.servers import PAGE, Respond, answer, certificate, dribble, hang, page, reset, serving, stop_half_way


class NoRuntime:
    """Stands for the process: its presence says that this is no mere check."""

    def spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        raise NotImplementedError

    def offload(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Awaitable[Any]:
        raise NotImplementedError


def make(
    parameters: dict[str, Any] | None = None, flags: MetricsFlags | None = None, clock: FakeClock | None = None
) -> MetricsSource:
    context = make_context(clock=clock)
    context.metrics_flags = flags or MetricsFlags()
    context.runtime = NoRuntime()
    source = make_plugin(PLUGIN, parameters, context)
    assert isinstance(source, MetricsSource)
    return source


async def fetched(source: MetricsSource, endpoint: Endpoint) -> bytes:
    try:
        return await source.fetch(endpoint)
    finally:
        await source.close()


async def test_w21_a_page_is_asked_for_uncompressed() -> None:
    async with serving() as server:
        assert await fetched(make(), server.endpoint()) == PAGE.encode()
    request = server.requests[0]
    assert request.path == "/metrics"
    assert request.headers["Accept-Encoding"] == "identity"
    assert request.headers["Accept"] == "text/plain; version=0.0.4"


async def test_the_connection_is_kept() -> None:
    async with serving() as server:
        source = make()
        await source.fetch(server.endpoint())
        await fetched(source, server.endpoint("b"))
    assert server.requests[0].transport is server.requests[1].transport


async def test_w21_a_compressed_answer_is_read_all_the_same() -> None:
    async with serving(answer(gzip.compress(PAGE.encode()), headers={"Content-Encoding": "gzip"})) as server:
        assert await fetched(make(), server.endpoint()) == PAGE.encode()


async def test_redirects_are_followed() -> None:
    async def respond(request: web.BaseRequest, closing: asyncio.Event) -> web.StreamResponse:
        if request.path == "/metrics":
            raise web.HTTPFound("/moved")
        return await page(request, closing)

    async with serving(respond) as server:
        assert await fetched(make(), server.endpoint()) == PAGE.encode()


@pytest.mark.parametrize("size", [0, MAX_PAGE_BYTES])
async def test_pages_of_any_allowed_size(size: int) -> None:
    body = b"#" * (size - 1) + b"\n" if size else b""
    async with serving(answer(body)) as server:
        assert len(await fetched(make(), server.endpoint())) == size


@pytest.mark.parametrize(
    ("respond", "message"),
    [
        pytest.param(answer("", 500), "status 500", id="500"),
        pytest.param(answer("", 404), "status 404", id="404"),
        pytest.param(answer(PAGE, 203), "status 203", id="not quite 200"),
        pytest.param(reset, "was lost before", id="reset"),
        pytest.param(stop_half_way, "was lost before", id="half of the promised length"),
        pytest.param(answer("vllm:num_requests_wai"), "cut off", id="half a page"),
        pytest.param(answer(b"\x00\x8f\xff\n"), "no Prometheus text page", id="garbage"),
        pytest.param(answer('{"queue": 3}\n'), "no Prometheus text page", id="JSON"),
        pytest.param(answer(b"#" * MAX_PAGE_BYTES + b"\n"), "larger than", id="M22 too large"),
        pytest.param(answer(b"this is no gzip", headers={"Content-Encoding": "gzip"}), "cannot be unpacked", id="false gzip"),
    ],
)
async def test_answers_that_are_no_page(respond: Respond, message: str) -> None:
    async with serving(respond) as server:
        with pytest.raises(OSError, match=message):
            await fetched(make(), server.endpoint())


@pytest.mark.parametrize("respond", [hang, dribble])
async def test_a_server_that_takes_too_long(respond: Respond) -> None:
    async with serving(respond) as server:
        with pytest.raises(TimeoutError, match=r"no whole answer within 0\.05 s from http://127\.0\.0\.1"):
            await fetched(MetricsSource(timeout_s=0.05), server.endpoint())


async def test_nobody_listens() -> None:
    async with serving() as server:
        gone = server.endpoint()
    with pytest.raises(OSError, match=r"cannot connect to .*: Connection refused"):
        await fetched(make(), gone)


@pytest.mark.parametrize(
    ("parameters", "flags", "expected"),
    [
        pytest.param({}, MetricsFlags(), "http://10.0.0.1:8000/metrics", id="defaults"),
        pytest.param({"path": "/prom"}, MetricsFlags(path="/flag"), "http://10.0.0.1:8000/prom", id="path"),
        pytest.param({}, MetricsFlags(path="/flag"), "http://10.0.0.1:8000/flag", id="path by flag"),
        pytest.param({"port": 9400}, MetricsFlags(port=1), "http://10.0.0.1:9400/metrics", id="port"),
        pytest.param({}, MetricsFlags(port=9400), "http://10.0.0.1:9400/metrics", id="port by flag"),
        pytest.param({"scheme": "https"}, MetricsFlags(), "https://10.0.0.1:8000/metrics", id="scheme"),
        pytest.param({}, MetricsFlags(scheme="https"), "https://10.0.0.1:8000/metrics", id="scheme by flag"),
    ],
)
def test_where_the_page_is(parameters: dict[str, Any], flags: MetricsFlags, expected: str) -> None:
    assert str(make(parameters, flags).url(Endpoint.of("a", "10.0.0.1", 8000))) == expected


def test_where_the_page_of_an_ipv6_address_is() -> None:
    endpoint = Endpoint.of("a", "2001:db8::1", 8000)
    assert str(make().url(endpoint)) == "http://[2001:db8::1]:8000/metrics"
    assert str(make({"port": 9400}).url(endpoint)) == "http://[2001:db8::1]:9400/metrics"


def test_an_engine_may_have_a_path_of_its_own() -> None:
    endpoint = Endpoint.of("a", "10.0.0.1", 8000, {"llm-d.ai/engine-type": "trtllm-serve"})
    default, own = make(), make({"path": "/own"})
    for source in (default, own):
        source.take_paths(make_plugin(CORE_METRICS))
    assert default.url(endpoint).path == "/prometheus/metrics"
    assert default.url(Endpoint.of("b", "10.0.0.1", 8000)).path == "/metrics"
    assert own.url(endpoint).path == "/own"


@pytest.mark.parametrize(("text", "expected"), [("", None), ("200ms", 0.2), ("1m", 60.0)])
def test_the_interval(text: str, expected: float | None) -> None:
    assert make({"interval": text}).interval_s == expected


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"scheme": "ftp"}, "unsupported scheme: ftp"),
        ({"path": "metrics"}, "must begin with /"),
        ({"port": 0}, "greater than or equal to 1"),
        ({"port": 65536}, "less than or equal to 65535"),
        ({"interval": "soon"}, "'soon' is not a duration"),
        ({"interval": "-1s"}, "not positive"),
        ({"clientCertPath": "a.crt"}, "given together"),
        ({"prot": 1}, "Extra inputs"),
    ],
    ids=str,
)
def test_wrong_parameters(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make(parameters)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"insecureSkipVerify": False, "caCertPath": "/none/ca.crt"}, r"caCertPath: /none/ca\.crt cannot be used"),
        ({"clientCertPath": "/none/a", "clientKeyPath": "/none/b"}, "clientCertPath, clientKeyPath: /none/a and /none/b"),
    ],
    ids=["CA", "client"],
)
def test_w20_missing_tls_files_end_the_start_but_not_a_check(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make({"scheme": "https"} | parameters)
    make_plugin(PLUGIN, {"scheme": "https"} | parameters)


@pytest.mark.parametrize(
    ("parameters", "needed"),
    [({"scheme": "https"}, "insecureSkipVerify: false"), ({"insecureSkipVerify": False}, "scheme: https")],
    ids=["unverified", "plain"],
)
def test_a_ca_that_is_not_used_is_told(parameters: dict[str, Any], needed: str) -> None:
    context = make_context()
    make_plugin(PLUGIN, {"caCertPath": "ca.crt"} | parameters, context)
    assert context.warnings == [("caCertPath", f"not used without {needed}")]


@pytest.fixture
def server_tls(tmp_path: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate(tmp_path))
    return context


async def test_w19_https_is_not_verified_by_default(server_tls: ssl.SSLContext) -> None:
    async with serving(tls=server_tls) as server:
        assert await fetched(make({"scheme": "https"}), server.endpoint()) == PAGE.encode()


async def test_w19_https_is_verified_on_demand(server_tls: ssl.SSLContext, tmp_path: Path) -> None:
    strict = {"scheme": "https", "insecureSkipVerify": False}
    async with serving(tls=server_tls) as server:
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            await fetched(make(strict), server.endpoint())
        verified = make(strict | {"caCertPath": str(tmp_path / "server.crt")})
        assert await fetched(verified, server.endpoint()) == PAGE.encode()


async def test_changed_tls_files_are_used_within_half_a_minute(
    server_tls: ssl.SSLContext, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ca = tmp_path / "ca.crt"
    ca.write_bytes(certificate(tmp_path, "other")[0].read_bytes())
    clock = FakeClock()
    source = make({"scheme": "https", "insecureSkipVerify": False, "caCertPath": str(ca)}, clock=clock)
    assert CHECK_INTERVAL_S <= 30
    async with serving(tls=server_tls) as server:
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            await source.fetch(server.endpoint())
        ca.write_bytes((tmp_path / "server.crt").read_bytes())
        clock.advance(CHECK_INTERVAL_S)
        assert await source.fetch(server.endpoint()) == PAGE.encode()
        ca.write_text("no certificate")
        clock.advance(CHECK_INTERVAL_S)
        assert await fetched(source, server.endpoint()) == PAGE.encode()
    assert [record.getMessage() for record in caplog.records] == [
        "TLS files of a data source reloaded",
        "changed TLS files cannot be used, the previous ones stay",
    ]


async def test_a_client_certificate_is_shown(tmp_path: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificate(tmp_path))
    client_certificate, client_key = certificate(tmp_path, "client")
    tls.load_verify_locations(client_certificate)
    tls.verify_mode = ssl.CERT_REQUIRED
    files = {"clientCertPath": str(client_certificate), "clientKeyPath": str(client_key)}
    async with serving(tls=tls) as server:
        with pytest.raises(OSError, match=r"."):
            await fetched(make({"scheme": "https"}), server.endpoint())
        assert await fetched(make({"scheme": "https"} | files), server.endpoint()) == PAGE.encode()


async def test_closing_twice_or_before_the_first_fetch_is_fine() -> None:
    source = make()
    await source.close()
    await source.close()
