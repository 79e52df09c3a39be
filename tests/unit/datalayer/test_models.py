"""models-data-source and model-server-protocol-models against real servers on loopback. Cases W and M that concern models."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from pydantic import ValidationError

from epp.config.instantiate import instantiate
from epp.config.load import load_config
from epp.config.loaded import ConfigSource
from epp.datalayer.collector import Collector
from epp.datalayer.scrape import ExtractorBinding, SourceBinding
from epp.datalayer.store import EndpointStore
from epp.errors import ConfigError
from epp.framework.handle import MetricsFlags
from epp.framework.interfaces import Extractor
from epp.framework.keys import SERVED_MODELS, ServedModel
from epp.framework.testing import FakeClock, make_context, make_plugin
from epp.framework.types import Endpoint, EndpointId, EndpointMetrics
from epp.pool import pages
from epp.process.plugin_types import build_registry
from plugins.datalayer.client_headers import CHECK_INTERVAL_S
from plugins.datalayer.core_metrics import PLUGIN as CORE_METRICS
from plugins.datalayer.http_fetch import MAX_BODY_BYTES, HttpFetcher, endpoint_url
from plugins.datalayer.metrics_source import PLUGIN as METRICS_SOURCE
from plugins.datalayer.models import EXTRACTOR, SOURCE, ModelsSource
from tests.unit.datalayer.servers import PAGE, Respond, answer, certificate, dribble, hang, reset, serving, stop_half_way
from tests.unit.datalayer.test_metrics_source import NoRuntime

MODELS = (
    '{"object": "list", "data": [{"id": "b", "object": "model", "created": 7, "owned_by": "v"}, {"id": "l", "parent": "b"}]}'
)
BASE, ADAPTER = ServedModel("b", "", "model", 7, "v"), ServedModel("l", "b")
HERE = Endpoint.of("a", "10.0.0.1", 8000)


def make(
    parameters: dict[str, Any] | None = None, flags: MetricsFlags | None = None, clock: FakeClock | None = None
) -> ModelsSource:
    context = make_context(clock=clock)
    context.metrics_flags = flags or MetricsFlags()
    context.runtime = NoRuntime()
    source = make_plugin(SOURCE, parameters, context)
    assert isinstance(source, ModelsSource)
    return source


async def fetched(source: ModelsSource, endpoint: Endpoint) -> bytes:
    try:
        return await source.fetch(endpoint)
    finally:
        await source.close()


def extract(payload: str, previous: EndpointMetrics) -> tuple[EndpointMetrics, list[str]]:
    extractor = make_plugin(EXTRACTOR)
    assert isinstance(extractor, Extractor)
    metrics, problems, is_fresh = extractor.extract(payload.encode(), HERE, previous)
    assert not is_fresh, "metrics do not get younger"
    return metrics, list(problems)


# ── the source ──


async def test_the_list_is_asked_for_uncompressed() -> None:
    async with serving(answer(MODELS)) as server:
        assert await fetched(make(), server.endpoint()) == MODELS.encode()
    request = server.requests[0]
    assert request.path == "/v1/models"
    assert request.headers["Accept-Encoding"] == "identity", "W21"
    assert request.headers["Accept"] == "application/json"
    assert "Authorization" not in request.headers


async def test_the_connection_is_kept() -> None:
    async with serving(answer(MODELS)) as server:
        source = make({"path": "/api/models"})
        await source.fetch(server.endpoint())
        await fetched(source, server.endpoint("b"))
    assert server.requests[0].transport is server.requests[1].transport
    assert server.requests[0].path == "/api/models"


@pytest.mark.parametrize(
    ("respond", "message"),
    [
        pytest.param(answer("", 401), "status 401", id="401"),
        pytest.param(answer("", 500), "status 500", id="W15 500"),
        pytest.param(answer("", 404), "status 404", id="W15 404"),
        pytest.param(reset, "was lost before", id="W15 reset"),
        pytest.param(stop_half_way, "was lost before", id="half of the promised length"),
        pytest.param(answer(b"\x00\x8f\xff\n"), "is not JSON", id="W15 garbage"),
        pytest.param(answer('{"data": ['), "is not JSON", id="M28 half a list"),
        pytest.param(answer(b" " * (MAX_BODY_BYTES + 1)), "larger than", id="too large"),
    ],
)
async def test_answers_that_are_no_list(respond: Respond, message: str) -> None:
    async with serving(respond) as server:
        with pytest.raises(OSError, match=message):
            await fetched(make(), server.endpoint())


@pytest.mark.parametrize("respond", [hang, dribble])
async def test_w14_a_server_that_takes_too_long(respond: Respond) -> None:
    fetcher = HttpFetcher(accept="application/json", timeout_s=0.05)
    async with serving(respond) as server:
        with pytest.raises(TimeoutError, match=r"no whole answer within 0\.05 s from http://127\.0\.0\.1"):
            await fetcher.get(endpoint_url("http", server.endpoint().metrics_host, "/v1/models"))
    await fetcher.close()


async def test_w15_nobody_listens() -> None:
    async with serving() as server:
        gone = server.endpoint()
    with pytest.raises(OSError, match=r"cannot connect to .*: Connection refused"):
        await fetched(make(), gone)


@pytest.mark.parametrize(
    ("interval", "flags", "expected_s"),
    [
        pytest.param("", MetricsFlags(), 5.0, id="nobody says anything"),
        pytest.param("", MetricsFlags(refresh_interval_s=2.0, refresh_interval_is_given=True), None, id="the flag"),
        pytest.param("", MetricsFlags(refresh_interval_is_given=True), None, id="the flag, at its default"),
        pytest.param("1s", MetricsFlags(refresh_interval_s=5.0, refresh_interval_is_given=True), 1.0, id="W12 the parameter"),
    ],
)
def test_the_interval(interval: str, flags: MetricsFlags, expected_s: float | None) -> None:
    assert make({"interval": interval}, flags).interval_s == expected_s


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"scheme": "ftp"}, "'http' or 'https'"),
        ({"path": "v1/models"}, "must begin with /"),
        ({"interval": "soon"}, "'soon' is not a duration"),
        ({"interval": "-1s"}, "not positive"),
        ({"clientCertPath": "a.crt"}, "given together"),
        ({"port": 1}, "Extra inputs"),
        ({"headers": {"a b": "x"}}, "'a b' is no name of a header"),
        ({"headers": {"a": "x\r\ny: z"}}, "the value of a has characters"),
        ({"headers": {"authorization": "x"}, "bearerTokenFile": "t"}, "exclude each other"),
    ],
    ids=str,
)
def test_wrong_parameters(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make(parameters)


# ── credentials ──


async def test_headers_are_sent() -> None:
    async with serving(answer(MODELS)) as server:
        await fetched(make({"headers": {"x-api-key": "k", "Accept": "*/*"}}), server.endpoint())
    assert server.requests[0].headers["x-api-key"] == "k"
    assert server.requests[0].headers["Accept"] == "*/*"


@pytest.mark.parametrize("headers", [{}, {"x-api-key": "k"}], ids=["followed", "not with credentials"])
async def test_redirects(headers: dict[str, str]) -> None:
    async def respond(request: web.BaseRequest, closing: asyncio.Event) -> web.StreamResponse:
        if request.path == "/v1/models":
            raise web.HTTPFound("/moved")
        return web.Response(text=MODELS)

    async with serving(respond) as server:
        source = make({"headers": headers})
        if headers:
            with pytest.raises(OSError, match="status 302"):
                await fetched(source, server.endpoint())
        else:
            assert await fetched(source, server.endpoint()) == MODELS.encode()


async def test_a_token_is_read_again_when_it_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    clock = FakeClock()
    source = make({"bearerTokenFile": str(file)}, clock=clock)
    async with serving(answer(MODELS)) as server:
        for content in ("second", "", "two\nlines"):
            await source.fetch(server.endpoint())
            file.write_text(content)
            clock.advance(CHECK_INTERVAL_S)
        await fetched(source, server.endpoint())
    sent = [request.headers["Authorization"] for request in server.requests]
    assert sent == ["Bearer first", "Bearer second", "Bearer second", "Bearer second"]
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["the token file cannot be used, the previous token stays"] * 2


def test_a_missing_token_ends_the_start_but_not_a_check(tmp_path: Path) -> None:
    parameters = {"bearerTokenFile": str(tmp_path / "none")}
    with pytest.raises(ValueError, match=r"bearerTokenFile: .*none cannot be read"):
        make(parameters)
    make_plugin(SOURCE, parameters)


# ── TLS ──


@pytest.fixture
def server_tls(tmp_path: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate(tmp_path))
    return context


async def test_w19_https(server_tls: ssl.SSLContext, tmp_path: Path) -> None:
    strict = {"scheme": "https", "insecureSkipVerify": False}
    async with serving(answer(MODELS), tls=server_tls) as server:
        assert await fetched(make({"scheme": "https"}), server.endpoint()) == MODELS.encode()
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            await fetched(make(strict), server.endpoint())
        verified = make(strict | {"caCertPath": str(tmp_path / "server.crt")})
        assert await fetched(verified, server.endpoint()) == MODELS.encode()


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
    make_plugin(SOURCE, {"scheme": "https"} | parameters)


@pytest.mark.parametrize(
    ("parameters", "needed"),
    [({"scheme": "https"}, "insecureSkipVerify: false"), ({"insecureSkipVerify": False}, "scheme: https")],
    ids=["unverified", "plain"],
)
def test_a_ca_that_is_not_used_is_told(parameters: dict[str, Any], needed: str) -> None:
    context = make_context()
    make_plugin(SOURCE, {"caCertPath": "ca.crt"} | parameters, context)
    assert context.warnings == [("caCertPath", f"not used without {needed}")]


# ── the extractor ──

KEPT = EndpointMetrics(waiting_queue=3, attributes={"other": 1, SERVED_MODELS.name: (BASE,)})


@pytest.mark.parametrize(
    ("payload", "models", "problems"),
    [
        pytest.param(MODELS, (BASE, ADAPTER), [], id="M28 two entries"),
        pytest.param("{}", (), [], id="M28 an empty list"),
        pytest.param('{"data": null}', (), [], id="no data"),
        pytest.param('{"data": [{"id": "b", "created": 7.9, "owned_by": null, "x": []}]}', (ServedModel("b", created=7),), [],
                     id="lenient"),
        pytest.param('{"data": [{"id": "b", "created": "now"}]}', (ServedModel("b"),), [], id="a date in words"),
        pytest.param('{"data": [{"id": "b"}, {"name": "c"}, 3]}', (ServedModel("b"),), ["2 entries of data have no id"],
                     id="entries without id"),
        pytest.param('{"data": "b"}', (BASE,), ["data is not a list"], id="no list"),
        pytest.param("[]", (BASE,), ["the answer is not an object"], id="no object"),
    ],
)  # fmt: skip
def test_what_is_kept(payload: str, models: tuple[ServedModel, ...], problems: list[str]) -> None:
    metrics, found = extract(payload, KEPT)
    assert metrics.attributes == {"other": 1, SERVED_MODELS.name: models}
    assert found == problems
    assert metrics.waiting_queue == 3


def test_the_same_list_changes_nothing() -> None:
    metrics, _ = extract(MODELS, KEPT)
    assert extract(MODELS, metrics)[0] is metrics


# ── loading ──

DOCUMENT = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{{type: queue-scorer}}, {{type: max-score-picker}}, {{type: {source}}}, {{type: {extractor}}}]
dataLayer: {{sources: [{{pluginRef: {source}, extractors: [{{pluginRef: {extractor}}}]}}]}}
"""
METRICS = METRICS_SOURCE.type


def sources(source: str, extractor: str) -> list[str]:
    """The sources that a document with this pair has."""
    registry, _ = build_registry()
    text = DOCUMENT.format(source=source, extractor=extractor)
    return [found.name for found in instantiate(load_config(ConfigSource.from_text(text), registry)).config.sources]


@pytest.mark.parametrize("extractor", ["model-server-protocol-models", "models-data-extractor"], ids=["name", "W9 alias"])
def test_w2_the_source_of_metrics_is_there_too(extractor: str) -> None:
    assert sources("models-data-source", extractor) == ["models-data-source", METRICS]


@pytest.mark.parametrize(
    ("source", "extractor", "reads", "gives"),
    [
        (METRICS, "models-data-extractor", "openai-model-list", "prometheus-text"),
        ("models-data-source", "core-metrics-extractor", "prometheus-text", "openai-model-list"),
    ],
)
def test_w7_a_source_of_something_else_is_refused(source: str, extractor: str, reads: str, gives: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sources(source, extractor)
    (finding,) = caught.value.findings
    assert finding.code == "CFG084"
    assert finding.message == f'the extractor "{extractor}" reads {reads}, but the source "{source}" gives {gives}'


# ── with the metrics of the same endpoints ──


class Counters:
    """Counts what failed."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    def datalayer_poll_error(self, source_type: str) -> None:
        self.failed.append(source_type)

    def datalayer_extract_error(self, source_type: str, extractor_type: str) -> None:
        self.failed.append(extractor_type)


class Store(EndpointStore):
    """Tells when something was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = asyncio.Event()

    def set_metrics(self, endpoint_id: EndpointId, metrics: EndpointMetrics, updated_s: float | None = None) -> bool:
        self.written.set()
        return super().set_metrics(endpoint_id, metrics, updated_s)

    async def until(self, endpoint: Endpoint, models: int, queue: int) -> EndpointMetrics:
        """Wait for so many models and so long a queue."""
        async with asyncio.timeout(5):
            while True:
                metrics = self.metrics(endpoint.id)
                if len(_served(metrics)) == models and metrics.waiting_queue == queue:
                    return metrics
                self.written.clear()
                await self.written.wait()


def _served(metrics: EndpointMetrics) -> tuple[ServedModel, ...]:
    served = metrics.attributes.get(SERVED_MODELS.name, ())
    assert isinstance(served, tuple)
    return served


async def test_both_sources_fill_one_endpoint_and_its_page_shows_it() -> None:
    is_broken = False

    async def respond(request: web.BaseRequest, closing: asyncio.Event) -> web.StreamResponse:
        if request.path == "/metrics":
            return web.Response(text="vllm:num_requests_waiting 9\n" if is_broken else PAGE)
        return web.Response(text="nonsense" if is_broken else MODELS)

    store, counters = Store(), Counters()
    bindings = [
        SourceBinding(
            "metrics", "metrics-data-source", make_plugin(METRICS_SOURCE),
            (ExtractorBinding("core-metrics-extractor", make_plugin(CORE_METRICS)),),
        ),
        SourceBinding(
            "models", "models-data-source", make({"interval": "50ms"}),
            (ExtractorBinding("model-server-protocol-models", make_plugin(EXTRACTOR)),),
        ),
    ]  # fmt: skip
    collector = Collector(store, bindings, counters)
    async with serving(respond) as server:
        endpoint = server.endpoint()
        store.upsert(endpoint)
        await collector.start()
        try:
            metrics = await store.until(endpoint, models=2, queue=3)
            page = orjson.loads(orjson.dumps(pages.endpoints(store, collector, time.monotonic())))
            is_broken = True
            later = await store.until(endpoint, models=2, queue=9)
        finally:
            await collector.stop()
    assert _served(later) is _served(metrics), "M28 a list stays where the next one cannot be read"
    (shown,) = page["endpoints"]
    assert [model["id"] for model in shown["attributes"]["/v1/models"]] == ["b", "l"]
