"""Calls of vLLM's engine service."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.errors import RequestError
from epp.framework.prompt import token_estimate
from epp.framework.testing import FakeHeaders, make_plugin
from epp.framework.types import Api, ParsedBody
from plugins.parsers import vllmgrpc
from tests.unit.parsers.reading import parse, refused
from tests.unit.protobuf import field, frame, packed, tokenized

SERVICE = "/vllm.grpc.engine.VllmEngine"
UNREADABLE = "invalid or unsupported gRPC payload: "
parser = make_plugin(vllmgrpc.PLUGIN)

ID = field(1, "request-1")
TEXT = field(3, "hello")


def generate(message: bytes) -> ParsedBody:
    return parse(parser, f"{SERVICE}/Generate", frame(message))


def placeholder(offset: int, length: int) -> bytes:
    return field(5, field(1, offset) + field(2, length))


@pytest.mark.parametrize(
    ("message", "prompt"),
    [
        pytest.param(ID + TEXT, "hello", id="text"),
        pytest.param(ID + field(3, "häuser"), "häuser", id="text in UTF-8"),
        pytest.param(field(3, ""), "", id="empty text"),
        pytest.param(ID + field(2, tokenized(1, 300, 2**32 - 1)), [1, 300, 2**32 - 1], id="token ids"),
        pytest.param(field(2, field(1, "hi") + tokenized(1)), [1], id="token ids with their text"),
        pytest.param(field(2, field(2, 1) + field(2, 300)), [1, 300], id="token ids one by one"),
        pytest.param(field(2, b""), [], id="no token ids"),
        pytest.param(field(2, tokenized(1)) + field(2, tokenized(2)), [1, 2], id="a message in two parts"),
        pytest.param(field(2, tokenized(1)) + TEXT, "hello", id="the last input counts: text"),
        pytest.param(TEXT + field(2, tokenized(1)), [1], id="the last input counts: token ids"),
        pytest.param(field(2, tokenized(9)) + TEXT + field(2, tokenized(1)), [1], id="what text replaced does not come back"),
        pytest.param(TEXT + field(99, "new") + field(98, 5), "hello", id="unknown fields"),
    ],
)
def test_prompts(message: bytes, prompt: object) -> None:
    read = generate(message)
    assert (read.api, read.document) == (Api.COMPLETIONS, {"prompt": prompt})
    assert (read.model, read.rewritable, read.usage_reader, read.skip_response) == ("", False, "vllm-grpc-usage", False)


def test_token_ids_are_counted_as_they_are() -> None:
    assert token_estimate(generate(field(2, tokenized(*range(100))))) == 100


@pytest.mark.parametrize(
    ("message", "streams", "cap"),
    [
        pytest.param(TEXT, False, None, id="neither"),
        pytest.param(TEXT + field(5, 1), True, None, id="stream"),
        pytest.param(TEXT + field(5, 0), False, None, id="no stream"),
        pytest.param(TEXT + field(4, field(8, 64)), False, 64, id="limit"),
        pytest.param(TEXT + field(4, field(8, 0)), False, 0, id="a limit of 0"),
        pytest.param(TEXT + field(4, field(1, b"\0" * 4)), False, None, id="other sampling parameters"),
        pytest.param(TEXT + field(4, field(8, 64)) + field(4, field(8, 9)), False, 9, id="the last limit"),
    ],
)
def test_stream_and_limit(message: bytes, streams: bool, cap: int | None) -> None:
    read = generate(message)
    assert (read.streams, read.output_cap) == (streams, cap)


@pytest.mark.parametrize(
    ("media", "placeholders", "hashes"),
    [
        pytest.param(placeholder(3, 5) + field(6, "h"), [(3, 5)], ["h"], id="one"),
        pytest.param(placeholder(3, 5) + placeholder(0, 0), [(3, 5), (0, 0)], ["", ""], id="no hashes"),
        pytest.param(placeholder(1, 2) + field(6, "h") + field(6, "i"), [(1, 2)], ["h"], id="more hashes than items"),
        pytest.param(field(5, b""), [(0, 0)], [""], id="an empty placeholder"),
    ],
)
def test_media(media: bytes, placeholders: list[tuple[int, int]], hashes: list[str]) -> None:
    read = generate(field(2, tokenized(1)) + field(7, media))
    assert read.document["features"] == {
        "mm_placeholders": {"image": [{"offset": offset, "length": length} for offset, length in placeholders]},
        "mm_hashes": {"image": hashes},
    }


def test_hashes_without_placeholders_are_no_media() -> None:
    assert "features" not in generate(TEXT + field(7, field(6, "h"))).document


def test_embed() -> None:
    read = parse(parser, f"{SERVICE}/Embed", frame(ID + field(2, tokenized(1, 2))))
    assert (read.api, read.document, read.usage_reader) == (Api.EMBEDDINGS, {"input": [1, 2]}, "vllm-grpc-embed-usage")
    assert (read.model, read.rewritable) == ("", False)


@pytest.mark.parametrize("method", ["HealthCheck", "GetModelInfo", "Abort", "generate"])
def test_other_methods_are_forwarded_unread(method: str) -> None:
    assert parse(parser, f"{SERVICE}/{method}", b"anything") == ParsedBody(Api.RAW, skip_response=True)


@pytest.mark.parametrize(
    ("method", "body", "message"),
    [
        pytest.param("Generate", frame(ID), "not supported request inputType", id="Generate without input"),
        pytest.param("Embed", frame(ID), "missing tokenized input in EmbedRequest", id="Embed without input"),
        pytest.param("Generate", b"", f"{UNREADABLE}the frame is cut off", id="empty"),
        pytest.param("Embed", frame(TEXT)[:-1], f"{UNREADABLE}the frame announces 7 bytes and has 6", id="cut off"),
        pytest.param("Generate", frame(TEXT[:-1]), f"{UNREADABLE}the message is no GenerateRequest", id="no message"),
        pytest.param(
            "Generate",
            frame(field(2, b"\x12\x05\x01")),
            f"{UNREADABLE}the message is no GenerateRequest",
            id="no inner message",
        ),
        pytest.param("Embed", frame(field(2, field(2, b"\xff"))), f"{UNREADABLE}the message is no EmbedRequest", id="cut list"),
    ],
)
def test_refused(method: str, body: bytes, message: str) -> None:
    assert refused(parser, f"{SERVICE}/{method}", body) == message


@pytest.mark.parametrize("coding", ["gzip", None])
@pytest.mark.parametrize("method", ["Generate", "Embed"])
def test_a_compressed_message_is_unimplemented(method: str, coding: str | None) -> None:
    headers = FakeHeaders({} if coding is None else {"grpc-encoding": coding})
    with pytest.raises(RequestError) as caught:
        parser.parse(f"{SERVICE}/{method}", headers, memoryview(frame(TEXT, flag=1)))
    assert caught.value.code.grpc_status == 12
    assert caught.value.message == (
        f"{UNREADABLE}the message is compressed (grpc-encoding: {coding or 'not given'}); "
        "send it as it is, with grpc-encoding identity"
    )
    assert caught.value.headers == (("grpc-accept-encoding", "identity"),)


def test_text_that_is_not_utf8() -> None:
    assert refused(parser, f"{SERVICE}/Generate", frame(field(3, b"\xff"))).startswith(UNREADABLE)


@given(body=st.binary(max_size=60), is_framed=st.booleans(), method=st.sampled_from(["Generate", "Embed"]))
def test_any_body_is_read_or_refused(body: bytes, is_framed: bool, method: str) -> None:
    try:
        read = parser.parse(f"{SERVICE}/{method}", FakeHeaders(), memoryview(frame(body) if is_framed else body))
    except RequestError:
        return
    assert isinstance(read, ParsedBody)


def test_packed_means_packed() -> None:
    assert generate(field(2, field(2, packed(5, 6)))).document == {"prompt": [5, 6]}
