"""Plugins that write or read headers, metadata and gRPC bodies, on the wire."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from epp.framework.candidates import Candidates
from epp.framework.interfaces import Role
from epp.framework.keys import PREFIX_CACHE_MATCH, PrefixMatch
from epp.framework.registry import PluginType
from epp.framework.types import Cause, InferenceRequest
from tests.conformance.conftest import StartPicker
from tests.conformance.doubles import Recorder, double
from tests.conformance.exchanges import event, pass_chunks, routed, start_watched
from tests.conformance.picker import A_ADDRESS, B_ADDRESS, C_ADDRESS, A, B, C, Picker, Server, server
from tests.conformance.wire import (
    Answer,
    Message,
    Routed,
    Stream,
    cut,
    request_body,
    request_headers,
    respond,
    response_body,
    response_headers,
    response_trailers,
    std_body,
)
from tests.unit.protobuf import chunk, complete, field, frame

FORGED = {"x-prefiller-host-port": "6.6.6.6:1", "mif-prefill-endpoint": "6.6.6.6:1", "x-encoder-hosts-ports": "6.6.6.6:1"}


# ── disaggregated serving ──


def with_role(made: Server, role: str) -> Server:
    """The server with a role label."""
    return Server(dataclasses.replace(made.endpoint, labels={"mif.moreh.io/role": role}), made.metrics)


PREFILL, DECODE = with_role(A(), "prefill"), with_role(B(), "decode")


def prefill_and_decode(*plugins: Mapping[str, Any], handler: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A configuration of two profiles, of which pd-profile-handler always runs both."""
    document = {
        "plugins": [
            handler or {"type": "pd-profile-handler"},
            *plugins,
            {"type": "prefill-filter"},
            {"type": "decode-filter"},
            {"type": "max-score-picker"},
        ],
        "schedulingProfiles": [
            {"name": name, "plugins": [{"pluginRef": f"{name}-filter"}, {"pluginRef": "max-score-picker"}]}
            for name in ("prefill", "decode")
        ],
    }
    return {"document": document}


async def ask(picker: Picker, headers: Mapping[str, str] | None = None) -> Routed:
    return await picker.route(request_headers(headers or {}), request_body(std_body("m", "p")))


HEADERS_HANDLER = {"type": "disagg-headers-handler"}


@pytest.mark.parametrize("plugins", [[HEADERS_HANDLER], []], ids=["a headers handler", "the profile handler itself"])
async def test_c28_prefix_110_no_prefill_is_chosen(start: StartPicker, plugins: Sequence[Mapping[str, Any]]) -> None:
    picker = await start(DECODE, config=prefill_and_decode(*plugins))
    answer = await ask(picker, FORGED)
    assert answer.target == B_ADDRESS
    assert FORGED.keys() <= answer.headers.removed
    assert not FORGED.keys() & answer.headers.headers.keys()


@pytest.mark.parametrize("plugins", [[HEADERS_HANDLER], []], ids=["a headers handler", "the profile handler itself"])
async def test_the_prefill_target_replaces_what_a_client_sent(start: StartPicker, plugins: Sequence[Mapping[str, Any]]) -> None:
    picker = await start(PREFILL, DECODE, config=prefill_and_decode(*plugins))
    answer = await ask(picker, FORGED)
    headers = answer.headers.headers
    assert (headers["x-prefiller-host-port"], headers["mif-prefill-endpoint"]) == (A_ADDRESS, A_ADDRESS)
    assert "x-encoder-hosts-ports" in answer.headers.removed


async def test_decisions_are_counted(start: StartPicker) -> None:
    picker = await start(PREFILL, DECODE, config=prefill_and_decode())
    await ask(picker)
    picker.serve([DECODE])
    await ask(picker)
    kind = "pd-profile-handler"
    assert picker.series("pd_decision_total") == {(kind, kind, "m", "prefill-decode"): 1, (kind, kind, "m", "decode-only"): 1}


async def test_an_older_configuration_with_two_decode_targets(start: StartPicker) -> None:
    document = {
        "plugins": [
            {"type": "pd-profile-handler"},
            {"type": "prefill-header-handler"},
            {"type": "response-header-handler"},
            {"type": "prefill-filter"},
            {"type": "decode-filter"},
            {"type": "queue-scorer"},
            {"type": "active-request-scorer", "parameters": {"requestTimeout": "90s"}},
            {"type": "max-score-picker", "parameters": {"maxNumOfEndpoints": 2}},
        ],
        "schedulingProfiles": [
            {"name": name, "plugins": [{"pluginRef": plugin} for plugin in (f"{name}-filter", scorer, "max-score-picker")]}
            for name, scorer in (("prefill", "queue-scorer"), ("decode", "active-request-scorer"))
        ],
    }
    prefill = with_role(server("p", "fd00::5", waiting_queue=1), "prefill")
    busier = with_role(server("q", "fd00::6", waiting_queue=2), "prefill")
    decode = with_role(C(), "both")
    picker = await start(prefill, busier, DECODE, decode, config={"document": document})
    answer = await ask(picker)
    assert sorted(answer.target.split(",")) == [B_ADDRESS, C_ADDRESS]
    headers = answer.headers.headers
    assert headers["mif-prefill-endpoint"] == headers["x-prefiller-host-port"] == "[fd00::5]:8000"


async def test_the_primary_port(start: StartPicker) -> None:
    handler = {"type": "pd-profile-handler", "parameters": {"primaryPort": 8200}}
    picker = await start(DECODE, config=prefill_and_decode(handler=handler))
    answer = await ask(picker, {"x-data-parallel-host-port": "6.6.6.6:1"})
    assert answer.target == "192.168.1.2:8200"
    assert answer.headers.headers["x-data-parallel-host-port"] == B_ADDRESS


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        pytest.param([PREFILL, DECODE], {"x-decoder-host-port": B_ADDRESS, "x-prefiller-host-port": A_ADDRESS}, id="split"),
        pytest.param([DECODE], {"x-decoder-host-port": B_ADDRESS}, id="decode only"),
    ],
)
async def test_c88_response_headers_name_the_endpoints(
    start: StartPicker, pool: list[Server], expected: dict[str, str]
) -> None:
    picker = await start(*pool, config=prefill_and_decode({"type": "response-header-handler"}))
    stream = await routed(picker)
    forged = {"x-decoder-host-port": "server:1", "x-prefiller-host-port": "server:1"}
    headers, _ = await respond(stream, response_headers(forged), response_body(b"{}"))
    await stream.closes()
    assert {name: value for name, value in headers.set if name in forged} == expected
    assert forged.keys() - expected.keys() <= headers.removed


# ── conditional requests ──


class Index:
    """Knows how many blocks of every prompt each endpoint holds."""

    def __init__(self, **blocks: int) -> None:
        self._blocks = blocks

    def produce(self, request: InferenceRequest, candidates: Candidates) -> None:
        matches = {endpoint.id: PrefixMatch(self._blocks.get(endpoint.name, 0), 4, 16) for endpoint in candidates}
        request.data.set(PREFIX_CACHE_MATCH.by("index"), matches)


def index(**blocks: int) -> PluginType:
    return dataclasses.replace(double(Index(**blocks), Role.DATA_PRODUCER), produces=(PREFIX_CACHE_MATCH,))


async def test_c56_a_conditional_request_whose_prefix_is_cached(start: StartPicker) -> None:
    picker = await start(A(3), B(), doubles=[index(a=0, b=2)])
    assert (await ask(picker, {"prefer": "if-available"})).target == B_ADDRESS


async def test_c56_a_conditional_request_whose_prefix_is_not_cached(start: StartPicker) -> None:
    picker = await start(A(3), B(), doubles=[index(a=2)])
    refusal = await picker.refuse(request_headers({"prefer": "if-available"}), request_body(std_body("m", "p")))
    assert (refusal.status, refusal.reason) == (412, None)
    assert refusal.message == "inference error: PreconditionFailed - no decode worker has the requested KV cache"
    assert (await ask(picker)).target == B_ADDRESS


# ── gRPC bodies ──


GENERATE = "/vllm.grpc.engine.VllmEngine/Generate"
GRPC = "application/grpc"
CALL = frame(field(1, "request-1") + field(3, "hello"))
STREAM_CALL = frame(field(3, "hello") + field(5, 1))
PARSERS = {"parsers": ("vllmgrpc-parser", "passthrough-parser")}


def call(data: bytes, *, pieces: int = 1, path: str = GENERATE) -> list[Message]:
    """A gRPC request."""
    parts = cut(data, -(-len(data) // pieces))
    return [
        request_headers(path=path, content_type=GRPC),
        *[request_body(part, end=part is parts[-1]) for part in parts],
    ]


async def grpc_stream(start: StartPicker, *messages: Message, sent: bytes) -> tuple[Stream, Picker, Recorder]:
    """A stream whose gRPC request is answered, with the bytes that were sent."""
    picker, recorder = await start_watched(start, config=PARSERS)
    stream = picker.stream()
    await stream.send(*messages)
    assert (await stream.routed()).body == sent
    return stream, picker, recorder


def observed(picker: Picker) -> tuple[float, float]:
    """Input and output tokens of one request."""
    names = ("request_input_tokens", "request_output_tokens")
    assert [picker.total(name, suffix="_count") for name in names] == [1, 1]
    return picker.total(names[0], suffix="_sum"), picker.total(names[1], suffix="_sum")


async def test_c80_a_unary_call(start: StartPicker) -> None:
    stream, picker, recorder = await grpc_stream(start, *call(CALL, pieces=2), sent=CALL)
    reply = frame(complete(7, 10, 4))
    first, second = cut(reply, -(-len(reply) // 2))
    await stream.send(response_headers(content_type=GRPC), response_body(first, end=False), response_body(second, end=False))
    await stream.send(response_trailers())
    await stream.answer("response_headers")
    assert await stream.response_body(end=False, trailers=True) == (reply, {})
    await stream.closes()
    await picker.settle()
    assert observed(picker) == (7, 10)
    completion = await recorder.completion()
    assert (completion.cause, completion.usage.cached_tokens) == (Cause.NATURAL, 4)


async def test_c81_a_streaming_call(start: StartPicker) -> None:
    stream, picker, recorder = await grpc_stream(start, *call(STREAM_CALL), sent=STREAM_CALL)
    messages = [frame(chunk(7, 1)), frame(chunk(7, 2))]
    answers = await respond(
        stream, response_headers(content_type=GRPC), *[response_body(message, end=False) for message in messages]
    )
    assert [(answer.body, answer.end) for answer in answers[1:]] == [(message, False) for message in messages]
    await respond(stream, response_trailers())
    await stream.closes()
    await picker.settle()
    assert observed(picker) == (7, 2)
    completion = await recorder.completion()
    assert (completion.cause, completion.streaming, completion.usage.events) == (Cause.NATURAL, True, 2)
    assert len(recorder.completions) == 1


async def test_c82_a_reply_that_is_no_frame(start: StartPicker) -> None:
    stream, picker, recorder = await grpc_stream(start, *call(CALL), sent=CALL)
    await stream.send(response_headers(content_type=GRPC), response_body("no healthy upstream", end=False), response_trailers())
    await stream.answer("response_headers")
    assert await stream.response_body(end=False, trailers=True) == (b"no healthy upstream", {})
    await stream.closes()
    assert not (await recorder.completion()).usage.found
    assert picker.total("request_input_tokens", suffix="_sum") == 0


async def test_a_call_without_input_is_refused_as_grpc(start: StartPicker) -> None:
    picker = await start(A(), config=PARSERS)
    refusal = await picker.refuse(*call(frame(field(1, "request-1"))))
    assert (refusal.status, refusal.grpc_status) == (400, 3)
    assert refusal.message == "inference error: BadRequest - not supported request inputType"


async def test_other_methods_of_the_service_pass_unread(start: StartPicker) -> None:
    picker = await start(A(), config={"parsers": ("vllmgrpc-parser",)})
    stream = picker.stream()
    await stream.send(*call(frame(b""), path="/vllm.grpc.engine.VllmEngine/HealthCheck"))
    assert (await stream.routed()).body == frame(b"")
    stream.cancel()


# ── metadata ──


REPORTER = {
    "type": "request-attribute-reporter",
    "parameters": {
        "attributes": [
            {
                "key": {"name": "x-gateway-inference-request-cost"},
                "expression": "usage.completion_tokens",
                "condition": "has(usage.completion_tokens)",
            }
        ]
    },
}


def one_profile(*plugins: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration of one profile, with these plugins declared."""
    profiles = [{"name": "default", "plugins": [{"pluginRef": "queue-scorer"}]}]
    return {"document": {"plugins": [*plugins, {"type": "queue-scorer"}], "schedulingProfiles": profiles}}


async def test_c85_a_number_of_the_usage_is_reported(start: StartPicker) -> None:
    picker = await start(A(), config=one_profile(REPORTER))
    stream = await routed(picker)
    usage = {"prompt_tokens": 7, "completion_tokens": 10, "total_tokens": 17}
    await respond(stream, response_headers(content_type="text/event-stream"))
    for data in (event({"choices": []}), event({"usage": usage})):
        (answer,) = await respond(stream, response_body(data, end=False))
        assert answer.metadata == {}
    await stream.send(response_body(b"data: [DONE]\n\n"))
    body, metadata = await stream.response_body()
    await stream.closes()
    assert body == b"data: [DONE]\n\n"
    assert metadata == {"envoy.lb": {"x-gateway-inference-request-cost": 10}}


async def test_nothing_is_reported_of_a_response_without_usage(start: StartPicker) -> None:
    picker = await start(A(), config=one_profile(REPORTER))
    stream = await routed(picker)
    chunks = [event({"choices": []}), b"data: [DONE]\n\n"]
    assert await pass_chunks(stream, chunks) == chunks


SERVED = "x-gateway-destination-endpoint-served"


@pytest.mark.parametrize(
    ("metadata", "text", "served"),
    [
        pytest.param({"envoy.lb": {SERVED: "192.168.1.3:8000"}}, "192.168.1.3:8000", "c", id="reported"),
        pytest.param(None, "fail: missing envoy lb metadata", "a", id="no metadata"),
        pytest.param(
            {"envoy.lb": {"x": 1}}, "fail: missing destination endpoint served metadata", "a", id="something else reported"
        ),
    ],
)
async def test_c87_the_served_endpoint_is_repeated(
    start: StartPicker, metadata: dict[str, dict[str, Any]] | None, text: str, served: str
) -> None:
    recorder = Recorder()
    declared = ("destination-endpoint-served-verifier",)
    doubles = [double(recorder, *Recorder.ROLES)]
    picker = await start(A(), B(5), C(5), doubles=doubles, config={"declared": declared})
    stream = await routed(picker)
    headers, _ = await respond(stream, response_headers(metadata=metadata), response_body(b"{}"))
    await stream.closes()
    assert _value(headers, "x-conformance-test-served-endpoint") == text
    assert [response.served.name for response in recorder.responses] == [served]


def _value(answer: Answer, name: str) -> str:
    return dict(answer.set)[name]


# ── identities ──


async def test_the_session_of_an_agent_is_its_fairness_id(start: StartPicker) -> None:
    recorder = Recorder()
    picker = await start(A(), doubles=[double(recorder, *Recorder.ROLES)], config={"declared": ("agent-identity",)})
    await ask(picker, {"session-id": "codex-1"})
    await ask(picker, {"session-id": "codex-1", "x-llm-d-inference-fairness-id": "team"})
    await ask(picker)
    assert [request.fairness_id for request in recorder.requests] == ["codex-1", "team", "default-flow"]


async def test_ranks_behind_a_primary_port(start: StartPicker) -> None:
    document = {
        "plugins": [{"type": "data-parallel-profile-handler"}, {"type": "queue-scorer"}],
        "schedulingProfiles": [{"name": "default", "plugins": [{"pluginRef": "queue-scorer"}]}],
    }
    ranks = [server(f"pod-rank-{i}", "192.168.1.1", waiting_queue=3 - i, port=8000 + i) for i in range(4)]
    picker = await start(*ranks, config={"document": document})
    answer = await ask(picker)
    assert answer.target == "192.168.1.1:8000"
    assert answer.headers.headers["x-data-parallel-host-port"] == "192.168.1.1:8003"
