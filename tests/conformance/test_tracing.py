"""Traces of a running picker, as a collector receives them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from grpc import aio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

from epp.demo.picker import PickerProcess
from tests.conformance.wire import Stream, request_body, request_headers, respond, response_body, response_headers, std_body
from tests.transport.transports import TRANSPORTS

NOBODY = "127.0.0.1:9"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector(TraceServiceServicer):
    """Takes spans over gRPC or HTTP."""

    def __init__(self) -> None:
        self.spans: dict[str, Any] = {}
        self.resource: dict[str, str] = {}

    async def Export(  # noqa: N802 — the service names it
        self,
        request: ExportTraceServiceRequest,
        context: object,
    ) -> ExportTraceServiceResponse:
        for resource in request.resource_spans:
            self.resource = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            self.spans.update({span.name: span for scope in resource.scope_spans for span in scope.spans})
        return ExportTraceServiceResponse()

    async def post(self, request: web.BaseRequest) -> web.Response:
        message = ExportTraceServiceRequest.FromString(await request.read())
        return web.Response(body=(await self.Export(message, None)).SerializeToString())


@contextlib.asynccontextmanager
async def collecting(protocol: str) -> AsyncIterator[tuple[Collector, str]]:
    """A collector, and its endpoint."""
    collector = Collector()
    if protocol == "grpc":
        server = aio.server()
        add_TraceServiceServicer_to_server(collector, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        yield collector, f"http://127.0.0.1:{port}"
        await server.stop(None)
        return
    runner = web.ServerRunner(web.Server(collector.post))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield collector, f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_a_request_is_traced_from_its_client_to_the_model_server(
    protocol: str, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with collecting(protocol) as (collector, endpoint):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=epp-0")
        flags = [f"--endpoint={NOBODY}", "--secure-serving=false", f"--transport={transport}"]
        async with PickerProcess(flags) as picker, aio.insecure_channel(f"127.0.0.1:{picker.grpc_port}") as channel:
            stream = Stream(channel)
            headers = {"traceparent": f"00-{TRACE}-{SPAN}-01", "baggage": "user=1"}
            await stream.send(request_headers(headers), request_body(std_body("m", "p")))
            routed = await stream.routed()
            await respond(stream, response_headers(), response_body(b"{}"))
            await stream.closes()  # what is left of the trace is sent when the picker ends
        request = collector.spans["gateway.request"]
        assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, SPAN)
        assert routed.headers.headers["traceparent"] == f"00-{TRACE}-{request.span_id.hex()}-01"
        assert collector.spans["run_scheduler_profile"].trace_id.hex() == TRACE
        assert {"gateway.request_orchestration", "llm_d.epp.scoring", "pick_endpoints"} <= collector.spans.keys()
        assert collector.resource["service.name"] == "heimdall"
        assert collector.resource["k8s.pod.name"] == "epp-0"


async def test_only_sampled_requests_are_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    async with collecting("grpc") as (collector, endpoint):
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint.removeprefix("http://"))
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "epp")
        flags = [f"--endpoint={NOBODY}", "--secure-serving=false"]
        async with PickerProcess(flags) as picker, aio.insecure_channel(f"127.0.0.1:{picker.grpc_port}") as channel:
            for number, traceparent in enumerate([None, f"00-{TRACE}-{SPAN}-00", f"00-{TRACE}-{SPAN}-01"]):
                stream = Stream(channel)
                headers = {} if traceparent is None else {"traceparent": traceparent}
                await stream.send(request_headers(headers, request_id=f"r-{number}"), request_body("{"))
                assert (await stream.refused()).status == 400
        [request] = [span for span in collector.spans.values() if span.name == "gateway.request"]
        values = {pair.key: pair.value.string_value for pair in request.attributes}
        assert values["gen_ai.request.id"] == "r-2"
        assert request.status.code == request.status.STATUS_CODE_ERROR
        assert collector.resource["service.name"] == "epp"


@pytest.mark.parametrize(
    ("flags", "environ", "problem"),
    [
        pytest.param(
            [], {"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER=zipkin is not known", id="an unknown exporter"
        ),
        pytest.param(["--tracing=false"], {"OTEL_TRACES_EXPORTER": "zipkin"}, "", id="off"),
        pytest.param([], {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, "", id="a collector that is not there"),
    ],
)
async def test_what_is_wrong_with_tracing_keeps_no_picker_from_serving(
    flags: list[str], environ: dict[str, str], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    async with PickerProcess([f"--endpoint={NOBODY}", "--secure-serving=false", *flags]) as picker:
        async with aio.insecure_channel(f"127.0.0.1:{picker.grpc_port}") as channel:
            stream = Stream(channel)
            await stream.send(request_headers(), request_body(std_body("m", "p")))
            assert (await stream.routed()).target == NOBODY
        assert (problem in picker.log) if problem else '"msg":"tracing"' not in picker.log
