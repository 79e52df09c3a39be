"""Routing and bodies: cases C01 to C32."""

from __future__ import annotations

import uuid
from collections import Counter

import pytest

from epp.framework.interfaces import Role
from tests.conformance.conftest import StartPicker
from tests.conformance.doubles import CallsBack, PicksByName, Recorder, double
from tests.conformance.picker import A_ADDRESS, B_ADDRESS, C_ADDRESS, A, B, C, rewrite, server
from tests.conformance.wire import (
    DESTINATION,
    Message,
    cut,
    request_body,
    request_headers,
    request_trailers,
    respond,
    response_headers,
    see_response,
    std_body,
)

OBJECTIVE = "x-llm-d-inference-objective"
REWRITE = "x-llm-d-model-name-rewrite"
BIG_NUMBERS = b'{"prompt":"x","model":"m","n":1,"big":12345678901234567890,"f":1.0}'


def llm(model: str, prompt: str, target: str = "", *, objective_name: str | None = None) -> tuple[Message, Message]:
    """A completion request as the gateway sends it: objective and target in headers."""
    headers = {OBJECTIVE: model if objective_name is None else objective_name}
    if target:
        headers[REWRITE] = target
    return request_headers(headers), request_body(std_body(model, prompt))


async def test_c01_shortest_queue_and_rewrite_header(start: StartPicker) -> None:
    picker = await start(A(3, 0.2), B(0, 0.1), C(10, 0.2))
    routed = await picker.route(*llm("my-model", "test1", "my-model-12345"))
    assert routed.target == B_ADDRESS
    assert routed.body == std_body("my-model-12345", "test1")
    assert picker.series("request_total") == {("my-model", "my-model-12345", "default-flow", "2"): 1}
    assert picker.series("ready_endpoints") == {("pool",): 3}


async def test_c02_active_adapter(start: StartPicker) -> None:
    picker = await start(A(0, 0.2, ["foo", "bar"]), B(0, 0.1, ["foo", "sql-lora-1fdg2"]), C(10, 0.2, ["foo", "bar"]))
    routed = await picker.route(*llm("sql-lora", "test2", "sql-lora-1fdg2"))
    assert (routed.target, routed.json["model"]) == (B_ADDRESS, "sql-lora-1fdg2")


async def test_c03_adapter_beats_cache(start: StartPicker) -> None:
    picker = await start(A(10, 0.2, ["foo", "bar"]), B(10, 0.4, ["foo", "sql-lora-1fdg2"]), C(10, 0.3, ["foo"]))
    routed = await picker.route(*llm("sql-lora", "test3", "sql-lora-1fdg2"))
    assert routed.target == B_ADDRESS


async def test_c04_busy_pool_does_not_shed_priority(start: StartPicker) -> None:
    picker = await start(A(6, 0.2, ["foo", "sql-lora-1fdg2"]), B(0, 0.85, ["foo"]), C(10, 0.9, ["foo"]))
    routed = await picker.route(*llm("sql-lora", "test4", "sql-lora-1fdg2"))
    assert routed.target == A_ADDRESS
    assert picker.series("request_total") == {("sql-lora", "sql-lora-1fdg2", "default-flow", "2"): 1}


async def test_c05_body_in_two_pieces(start: StartPicker) -> None:
    picker = await start(A(4, 0.2, ["foo", "sql-lora-1fdg3"]), B(4, 0.85), C(4, 0.9))
    first = b'{"max_tokens":100,"model":"sql-lo'
    second = b'ra-sheddable","prompt":"test6","temperature":0}'
    stream = picker.stream()
    headers = request_headers({OBJECTIVE: "sql-lora-sheddable", REWRITE: "sql-lora-1fdg3"})
    await stream.send(headers, request_body(first, end=False))
    await picker.round_trip()
    assert picker.stats.buffered_bytes == len(first)
    await stream.send(request_body(second))
    routed = await stream.routed()
    assert (routed.target, routed.body) == (A_ADDRESS, std_body("sql-lora-1fdg3", "test6"))
    await see_response(stream)


async def test_c06_empty_end(start: StartPicker) -> None:
    picker = await start(A(3, 0.2), B(0, 0.1))
    body = std_body("my-model", "test1")
    whole = await picker.route(request_headers(), request_body(body))
    split = await picker.route(request_headers(), request_body(body, end=False), request_body(b""))
    assert (split.target, split.body, split.pieces) == (whole.target, whole.body, whole.pieces)


@pytest.mark.parametrize("repeats", [1, 3])
async def test_c07_end_is_repeated(start: StartPicker, repeats: int) -> None:
    picker = await start(A())
    stream = picker.stream()
    await stream.send(request_headers(), request_body(std_body("m", "p"), end=False), request_body(b""))
    for _ in range(repeats):
        await stream.send(request_body(b""))
    await stream.routed()
    await stream.send(request_body(b""))
    await see_response(stream)


async def test_c08_trailers_end_the_body(start: StartPicker) -> None:
    picker = await start(A())
    body = std_body("m", "p")
    stream = picker.stream()
    await stream.send(request_headers(), request_body(body, end=False), request_trailers())
    routed = await stream.routed(trailers=True)
    assert routed.body == body
    await see_response(stream)


async def test_c09_trailers_behind_the_end(start: StartPicker) -> None:
    picker = await start(A())
    stream = picker.stream()
    await stream.send(request_headers(), request_body(std_body("m", "p")))
    await stream.routed()
    await stream.send(request_trailers())
    await stream.answer("request_trailers")
    await see_response(stream)


def body_of(size: int) -> bytes:
    """A request of exactly this many bytes."""
    return std_body("m", "x" * (size - len(std_body("m", ""))))


async def test_c10_long_body_in_pieces(start: StartPicker) -> None:
    picker = await start(A())
    body = body_of(150_025)
    routed = await picker.route(
        request_headers(), *(request_body(part, end=False) for part in cut(body, 16_384)), request_body(b"")
    )
    assert routed.pieces == (62_000, 62_000, 26_025)
    assert routed.body == body


@pytest.mark.parametrize(("size", "pieces"), [(62_000, (62_000,)), (124_000, (62_000, 62_000)), (62_001, (62_000, 1))])
async def test_c11_no_empty_piece(start: StartPicker, size: int, pieces: tuple[int, ...]) -> None:
    picker = await start(A())
    routed = await picker.route(request_headers(), request_body(body_of(size)))
    assert routed.pieces == pieces
    assert routed.body == body_of(size)


async def test_c12_bytes_stay(start: StartPicker) -> None:
    picker = await start(A())
    routed = await picker.route(request_headers(), request_body(BIG_NUMBERS))
    assert routed.body == BIG_NUMBERS


async def test_c13_only_the_model_changes(start: StartPicker) -> None:
    picker = await start(A())
    routed = await picker.route(request_headers({REWRITE: 'a"b'}), request_body(BIG_NUMBERS))
    assert routed.body == BIG_NUMBERS.replace(b'"m"', rb'"a\"b"')


async def test_c14_unknown_model_keeps_its_name(start: StartPicker) -> None:
    picker = await start(A(6, 0.2), B(0, 0.1))
    routed = await picker.route(*llm("direct-model", "test6"))
    assert (routed.target, routed.json["model"]) == (B_ADDRESS, "direct-model")
    assert picker.series("request_total") == {("direct-model", "direct-model", "default-flow", "2"): 1}


async def test_c15_rule_rewrites(start: StartPicker) -> None:
    picker = await start(A(6, 0.2), B(0, 0.1))
    routed = await picker.route(*llm("model-to-be-rewritten", "test"))
    assert routed.body == std_body("rewritten-model", "test")
    assert picker.series("request_total") == {("model-to-be-rewritten", "rewritten-model", "default-flow", "0"): 1}
    assert picker.series("model_rewrite_decisions_total") == {("rewrite", "model-to-be-rewritten", "rewritten-model"): 1}


async def test_c16_rule_beats_header(start: StartPicker) -> None:
    picker = await start(A())
    routed = await picker.route(*llm("model-to-be-rewritten", "test", "from-the-header"))
    assert routed.json["model"] == "rewritten-model"


async def test_c17_generic_rule_supplies_a_model(start: StartPicker) -> None:
    recorder = Recorder()
    picker = await start(A(), objects=[rewrite("generic", "g")], doubles=[double(recorder, *Recorder.ROLES)])
    routed = await picker.route(request_headers(), request_body(b'{"prompt":"x"}'))
    assert routed.json == {"model": "g", "prompt": "x"}
    [request] = recorder.requests
    assert (request.model, request.target_model) == ("", "g")


SHARES = [
    pytest.param([("a", None), ("b", 5)], {"b": (1.0, 1.0)}, id="an unset weight beside a set one is never drawn"),
    pytest.param([("a", 1), ("b", 3)], {"a": (0.20, 0.30), "b": (0.70, 0.80)}, id="by weight"),
    pytest.param([("a", None), ("b", None)], {"a": (0.44, 0.56), "b": (0.44, 0.56)}, id="alike without weights"),
]


@pytest.mark.parametrize(("targets", "shares"), SHARES)
async def test_c18_weights(
    start: StartPicker, targets: list[tuple[str, int | None]], shares: dict[str, tuple[float, float]]
) -> None:
    picker = await start(A(), objects=[rewrite("split", targets, "m")])
    count = 1000
    drawn = Counter(rule.target for _ in range(count - 1) if (rule := picker.objects.resolve("m")) is not None)
    routed = await picker.route(request_headers(), request_body(std_body("m", "p")))
    drawn[routed.json["model"]] += 1
    assert set(drawn) == set(shares)
    for target, (low, high) in shares.items():
        assert low <= drawn[target] / count <= high, drawn


PRECEDENCE = [
    pytest.param([rewrite("y", "younger", "m", created_s=2), rewrite("o", "older", "m", created_s=1)], "older", id="older"),
    pytest.param([rewrite("g", "generic", created_s=1), rewrite("e", "exact", "m", created_s=2)], "exact", id="exact"),
    pytest.param([rewrite("b", "b", "m", created_s=1), rewrite("a", "a", "m", created_s=1)], "a", id="ties by name"),
]


@pytest.mark.parametrize(("rules", "target"), PRECEDENCE)
async def test_c19_precedence_of_rules(start: StartPicker, rules: list[object], target: str) -> None:
    picker = await start(A(), objects=rules)
    routed = await picker.route(request_headers(), request_body(std_body("m", "p")))
    assert routed.json["model"] == target


async def test_c20_passthrough(start: StartPicker) -> None:
    picker = await start(A(6, 0.2), B(0, 0.1), config={"parsers": ["passthrough-parser"]})
    routed = await picker.route(request_headers({OBJECTIVE: "my-model"}), request_body(b"passthrough-parser"))
    assert (routed.target, routed.body) == (B_ADDRESS, b"passthrough-parser")
    assert picker.series("request_total") == {("", "", "default-flow", "2"): 1}


async def test_c21_new_header_names_win(start: StartPicker) -> None:
    picker = await start(A())
    headers = {
        OBJECTIVE: "prio4",
        "x-gateway-inference-objective": "my-model",
        REWRITE: "new",
        "x-gateway-model-name-rewrite": "old",
        "x-llm-d-inference-fairness-id": "new-flow",
        "x-gateway-inference-fairness-id": "old-flow",
    }
    routed = await picker.route(request_headers(headers), request_body(std_body("m", "p")))
    assert routed.json["model"] == "new"
    assert picker.series("request_total") == {("m", "new", "new-flow", "4"): 1}
    assert routed.headers.removed == set(headers)


async def test_c21_old_header_names_alone(start: StartPicker) -> None:
    picker = await start(A())
    headers = {
        "x-gateway-inference-objective": "prio4",
        "x-gateway-model-name-rewrite": "old",
        "x-gateway-inference-fairness-id": "old-flow",
    }
    routed = await picker.route(request_headers(headers), request_body(std_body("m", "p")))
    assert routed.json["model"] == "old"
    assert picker.series("request_total") == {("m", "old", "old-flow", "4"): 1}
    assert routed.headers.removed == set(headers)


async def test_c22_raw_value_wins(start: StartPicker) -> None:
    recorder = Recorder()
    picker = await start(A(), doubles=[double(recorder, *Recorder.ROLES)])
    headers = request_headers(request_id=None)
    headers.request_headers.headers.headers.add(key="x-request-id", value="wrong-id", raw_value=b"binary-id")
    await picker.route(headers, request_body(std_body("m", "p")))
    assert [request.request_id for request in recorder.requests] == ["binary-id"]


async def test_c23_names_are_lower_case_for_plugins(start: StartPicker) -> None:
    recorder = Recorder()
    picker = await start(A(), doubles=[double(recorder, *Recorder.ROLES)])
    await picker.route(request_headers({"X-Test": "yes"}), request_body(std_body("m", "p")))
    [request] = recorder.requests
    assert request.headers.get("x-test") == "yes"
    assert ("x-test", "yes") in list(request.headers.items())


@pytest.mark.parametrize("sent", [None, ""], ids=["missing", "empty"])
async def test_c24_request_id_is_made(start: StartPicker, sent: str | None) -> None:
    recorder = Recorder()
    picker = await start(A(), doubles=[double(recorder, *Recorder.ROLES)])
    routed = await picker.route(request_headers(request_id=sent), request_body(std_body("m", "p")))
    made = routed.headers.headers["x-request-id"]
    assert uuid.UUID(made).version == 4
    assert [request.request_id for request in recorder.requests] == [made]


async def test_c25_client_cannot_choose(start: StartPicker) -> None:
    picker = await start(A())
    headers = {
        DESTINATION: "6.6.6.6:1",
        "x-gateway-inference-objective": "my-model",
        OBJECTIVE: "my-model",
        "content-length": "99999",
    }
    routed = await picker.route(request_headers(headers), request_body(std_body("m", "p")))
    assert routed.headers.set == ((DESTINATION, A_ADDRESS),)
    assert routed.headers.removed == {"x-gateway-inference-objective", OBJECTIVE}


async def test_c26_doubled_headers_stay(start: StartPicker) -> None:
    picker = await start(A())
    headers = [("x-multi", "a"), ("x-multi", "b"), ("cookie", "a=1"), ("cookie", "b=2")]
    routed = await picker.route(request_headers(headers), request_body(std_body("m", "p")))
    assert routed.headers.set == ((DESTINATION, A_ADDRESS),)
    assert not routed.headers.removed


async def test_c27_plugins_set_headers(start: StartPicker) -> None:
    def sets(_request: object, _result: object, edits: object) -> None:
        edits.set("K", "v")  # type: ignore[attr-defined]
        edits.set(DESTINATION, "6.6.6.6:1")  # type: ignore[attr-defined]
        edits.remove(DESTINATION)  # type: ignore[attr-defined]

    picker = await start(A(), doubles=[double(CallsBack(sets), Role.PRE_REQUEST)])
    routed = await picker.route(request_headers(), request_body(std_body("m", "p")))
    assert routed.headers.set == ((DESTINATION, A_ADDRESS), ("k", "v"))


async def test_c29_several_targets(start: StartPicker) -> None:
    picker = await start(A(), B(), C(), doubles=[double(PicksByName("b", "c"), Role.PICKER)])
    routed = await picker.route(request_headers(), request_body(std_body("m", "p")))
    assert routed.target == f"{B_ADDRESS},{C_ADDRESS}"


async def test_c30_ipv6(start: StartPicker) -> None:
    picker = await start(server("six", "fd00::5"))
    routed = await picker.route(request_headers(), request_body(std_body("m", "p")))
    assert routed.target == "[fd00::5]:8000"
    stream = picker.stream()
    await stream.send(request_headers(end=True, method="GET", path="/v1/models"))
    answer = await stream.answer("request_headers")
    assert answer.headers == {DESTINATION: "[fd00::5]:8000"}
    await respond(stream, response_headers(end=True))
    await stream.closes()


@pytest.mark.parametrize("emit", [True, False])
async def test_c31_scores(start: StartPicker, emit: bool) -> None:
    picker = await start(A(0, 0.1), B(5, 0.5), emit_scores=emit)
    routed = await picker.route(request_headers(), request_body(std_body("m", "p")))
    scores = routed.headers.metadata["envoy.lb"].get("x-gateway-destination-endpoint-scores")
    if not emit:
        assert scores is None
        return
    assert set(scores) == {A_ADDRESS, B_ADDRESS}
    assert scores[A_ADDRESS] > scores[B_ADDRESS] >= 0


async def test_c32_metadata_of_plugins_is_merged(start: StartPicker) -> None:
    def annotates(_request: object, _result: object, edits: object) -> None:
        edits.annotate("envoy.lb", "x", 1)  # type: ignore[attr-defined]
        edits.annotate("envoy.lb", DESTINATION, "6.6.6.6:1")  # type: ignore[attr-defined]
        edits.annotate("other", "deep", {"list": [1, "two", None, True]})  # type: ignore[attr-defined]

    picker = await start(A(), doubles=[double(CallsBack(annotates), Role.PRE_REQUEST)])
    routed = await picker.route(request_headers(), request_body(std_body("m", "p")))
    assert routed.headers.metadata == {
        "envoy.lb": {DESTINATION: A_ADDRESS, "x": 1},
        "other": {"deep": {"list": [1, "two", None, True]}},
    }
