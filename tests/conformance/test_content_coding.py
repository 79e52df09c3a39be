"""Request bodies with a content coding: read for the decision, forwarded as they came unless something changes them."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable

import pytest

from epp.decision.decoding import INLINE_BYTES
from epp.framework.interfaces import Role
from epp.framework.rewriting import BodyEdits
from epp.framework.types import InferenceRequest
from tests.conformance.conftest import StartPicker
from tests.conformance.doubles import Recorder, double
from tests.conformance.picker import A_ADDRESS, B_ADDRESS, A, B
from tests.conformance.wire import (
    BUFFERED,
    FULL_DUPLEX,
    GRPC,
    NONE,
    Modes,
    check_route,
    request_body,
    request_headers,
    respond,
    response_headers,
    std_body,
)
from tests.unit.request.encoding import raw_deflate, zstd_compress

MIB = 1024 * 1024
REWRITE = "x-llm-d-model-name-rewrite"
CODERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "zstd": ("zstd", zstd_compress),
}
coders = pytest.mark.parametrize(("coding", "encode"), CODERS.values(), ids=CODERS)
BODY = std_body("sql-lora", "hello")


def encoding(coding: str) -> dict[str, str]:
    return {"content-encoding": coding}


@coders
async def test_it_is_read_and_forwarded_as_it_came(start: StartPicker, coding: str, encode: Callable[[bytes], bytes]) -> None:
    recorder = Recorder()
    picker = await start(A(0, 0.2), B(0, 0.2, ["sql-lora"]), doubles=[double(recorder, *Recorder.ROLES)])
    data = encode(BODY)
    routed = await picker.route(request_headers(encoding(coding)), request_body(data))
    assert (routed.target, routed.body) == (B_ADDRESS, data), "the adapter that the body names is there"
    assert "content-encoding" not in routed.headers.removed
    [seen] = recorder.requests
    assert (seen.model, seen.body.document["prompt"], seen.body.output_cap) == ("sql-lora", "hello", 100)
    assert seen.size_bytes == len(data), "as it is forwarded"


@coders
async def test_with_another_model_it_goes_on_decoded(start: StartPicker, coding: str, encode: Callable[[bytes], bytes]) -> None:
    recorder = Recorder()
    picker = await start(A(), doubles=[double(recorder, *Recorder.ROLES)])
    routed = await picker.route(request_headers({**encoding(coding), REWRITE: "other"}), request_body(encode(BODY)))
    assert routed.body == std_body("other", "hello")
    assert "content-encoding" in routed.headers.removed
    assert recorder.requests[0].size_bytes == len(routed.body)


class AddsMember:
    """A rewriter of every body."""

    def rewrites(self, request: InferenceRequest) -> bool:
        return True

    def rewrite(self, request: InferenceRequest, edits: BodyEdits) -> None:
        edits.set("added", 1)


@pytest.mark.parametrize("target", ["", "other"], ids=["the model stays", "the model changes, too"])
async def test_a_plugin_that_changes_the_body(start: StartPicker, target: str) -> None:
    picker = await start(A(), doubles=[double(AddsMember(), Role.BODY_REWRITER)])
    headers = {**encoding("gzip"), **({REWRITE: target} if target else {})}
    routed = await picker.route(request_headers(headers), request_body(gzip.compress(BODY)))
    assert routed.json == {**json.loads(BODY), "model": target or "sql-lora", "added": 1}
    assert "content-encoding" in routed.headers.removed


async def test_buffered(start: StartPicker) -> None:
    picker = await start(A())
    stream = picker.stream(Modes(BUFFERED, NONE))
    await stream.send(request_headers({**encoding("zstd"), REWRITE: "other"}))
    await stream.answer("request_headers")
    await stream.send(request_body(zstd_compress(BODY)))
    answer = await stream.answer("request_body")
    check_route(answer)
    expected = std_body("other", "hello")
    assert (answer.body, answer.headers["content-length"]) == (expected, str(len(expected)))
    assert "content-encoding" in answer.removed
    await respond(stream, response_headers())
    await stream.closes()


async def test_a_large_body_is_decoded_in_a_thread(start: StartPicker) -> None:
    picker = await start(A())
    prompt = " ".join(map(str, range(400_000)))
    data = gzip.compress(std_body("m", prompt), 1)
    assert len(data) > INLINE_BYTES
    routed = await picker.route(request_headers(encoding("gzip")), request_body(data))
    assert (routed.target, routed.body) == (A_ADDRESS, data)


@pytest.mark.parametrize("coding", ["br", "gzip, br", "compress", "aws-chunked"])
async def test_a_coding_that_is_not_read(start: StartPicker, coding: str) -> None:
    picker = await start(A())
    refusal = await picker.refuse(request_headers(encoding(coding)), request_body(b"\x0b\x0e\x80"))
    name = coding.rpartition(", ")[2]
    assert refusal.status == 415
    assert refusal.message == (
        f"inference error: UnsupportedMediaType - content-encoding {name!r} is not supported; "
        "accepted are gzip, deflate, zstd, and no coding at all"
    )
    assert refusal.headers["accept-encoding"] == "gzip, deflate, zstd"


async def test_what_does_not_decode(start: StartPicker) -> None:
    picker = await start(A())
    refusal = await picker.refuse(request_headers(encoding("gzip")), request_body(BODY))
    assert refusal.status == 400
    assert refusal.message.startswith("inference error: BadRequest - the request body is not gzip, as content-encoding says: ")


async def test_what_decodes_to_something_else(start: StartPicker) -> None:
    picker = await start(A())
    refusal = await picker.refuse(request_headers(encoding("gzip")), request_body(gzip.compress(b"no JSON")))
    assert refusal.status == 400
    assert "error unmarshaling request bodyMap" in refusal.message


@pytest.mark.parametrize("size", [64 * 1024, 3 * MIB], ids=["at once", "in a thread"])
async def test_more_than_a_body_may_have(start: StartPicker, size: int) -> None:
    limit = size - 1
    picker = await start(A(), settings={"max_body_bytes": limit})
    refusal = await picker.refuse(request_headers(encoding("gzip")), request_body(gzip.compress(bytes(size))))
    assert refusal.status == 413
    assert "the request body decodes to more than" in refusal.message


@pytest.mark.parametrize("value", ["identity", "", "Identity"])
async def test_no_coding_at_all(start: StartPicker, value: str) -> None:
    picker = await start(A())
    routed = await picker.route(request_headers({**encoding(value), REWRITE: "other"}), request_body(BODY))
    assert routed.body == std_body("other", "hello")
    assert "content-encoding" not in routed.headers.removed


async def test_what_nobody_reads_is_not_decoded(start: StartPicker) -> None:
    picker = await start(A())
    body = b"anything, in any coding"
    routed = await picker.route(request_headers(encoding("br"), path="/unknown"), request_body(body))
    assert routed.body == body


async def test_a_body_that_is_not_seen(start: StartPicker) -> None:
    picker = await start(A())
    stream = picker.stream(Modes(NONE, NONE))
    await stream.send(request_headers(encoding("br")))
    check_route(await stream.answer("request_headers"))
    await respond(stream, response_headers())
    await stream.closes()


async def test_grpc_does_not_use_this_header(start: StartPicker) -> None:
    picker = await start(A(), config={"parsers": ["vllmgrpc-parser"]})
    stream = picker.stream(Modes(GRPC, FULL_DUPLEX))
    headers = request_headers(encoding("br"), path="/vllm.grpc.engine.VllmEngine/Generate", content_type="application/grpc")
    await stream.send(headers, request_body(b"\1\0\0\0\0"))
    refusal = await stream.refused()
    assert (refusal.status, refusal.grpc_status) == (415, 12)
    assert b"grpc-encoding" in refusal.body
