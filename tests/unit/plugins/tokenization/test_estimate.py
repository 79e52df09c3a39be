"""Estimated tokens: which bytes count, and how many tokens media take."""

from __future__ import annotations

import json
import struct
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.framework.keys import TokenizedPrompt
from epp.framework.testing import FakeHeaders
from epp.framework.types import Api, ParsedBody
from plugins.tokenization.estimate import MOST_MEDIA_TOKENS, Estimate
from plugins.tokenization.media_size import MediaSizes, VideoFacts, image_size
from plugins.tokenization.parameters import Estimate as EstimateParams
from tests.unit.plugins.tokenization.bodies import anthropic, chat, completion, image, responses

SIZE = {"width": 320, "height": 320}


def estimate(body: ParsedBody, parameters: dict[str, Any] | None = None, **headers: str) -> TokenizedPrompt | None:
    sizes = MediaSizes(EstimateParams.model_validate(parameters or {}))
    facts = VideoFacts.of(FakeHeaders({f"x-llm-d-video-{name.replace('_', '-')}": value for name, value in headers.items()}))
    return Estimate(sizes).tokenize(body, facts)


def counted(body: ParsedBody, parameters: dict[str, Any] | None = None, **headers: str) -> int:
    found = estimate(body, parameters, **headers)
    assert found is not None
    return found.count


def text_of(prompt: TokenizedPrompt | None) -> str:
    """The bytes of the pseudo-tokens."""
    assert prompt is not None
    return bytes(memoryview(prompt.token_ids).cast("B")).decode().rstrip("\0")  # type: ignore[arg-type]  # an array


def media_tokens(block: dict[str, Any], parameters: dict[str, Any] | None = None, **headers: str) -> int:
    """What one medium takes."""
    found = estimate(chat([block]), parameters, **headers)
    assert found is not None
    (feature,) = found.media
    return feature.length_tokens


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(completion("hello"), "hello", id="completion"),
        pytest.param(chat("hello", {"role": "assistant", "content": "world"}), "userhelloassistantworld", id="chat"),
        pytest.param(chat([{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]), "userhello", id="text blocks"),
        pytest.param(chat("hello", tools=[{"b": 1, "a": 2}]), '[{"b":1,"a":2}]userhello', id="tools first, in their order"),
        pytest.param(chat({"role": "assistant", "content": None}), "assistant", id="no content"),
        pytest.param(responses("hello"), '[{"input":"hello"}]', id="responses"),
        pytest.param(
            responses("hello", tools=[], instructions="be"), '[{"instructions":"be"},{"tools":[]},{"input":"hello"}]',
            id="responses: instructions, tools, input",
        ),
        pytest.param(ParsedBody(Api.EMBEDDINGS, {"input": ["a", "b"]}), '["a","b"]', id="embeddings"),
        pytest.param(
            ParsedBody(Api.EMBEDDINGS, {"messages": [{"role": "user", "content": "hi"}]}), "userhi", id="embeddings of a chat",
        ),
        pytest.param(ParsedBody(Api.GENERATE, {"text": "hello"}), "hello", id="SGLang's generate"),
        pytest.param(chat(["hel", {"type": "text", "text": "lo"}]), "userhello", id="bare texts among the parts"),
        pytest.param(ParsedBody(Api.CONVERSATIONS, {"items": [{"a": 1}]}), '[{"a":1}]', id="conversations"),
        pytest.param(
            anthropic({"role": "user", "content": "hi"}, system=[
                {"type": "text", "text": "x-anthropic-billing-header: 1"}, {"type": "text", "text": "be"}
            ], tools=[{"name": "t"}]),
            '[{"name":"t"}]beuserhi', id="anthropic: tools, system without billing, roles",
        ),
        pytest.param(
            anthropic({"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm"}, {"type": "tool_use", "id": "i", "name": "n", "input": {"b": 1, "a": 2}},
            ]}),
            'assistanthmin{"b":1,"a":2}', id="anthropic: thinking and tools",
        ),
        pytest.param(
            anthropic({"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text", "text": "r"}]}]}),
            "userr", id="anthropic: results",
        ),
    ],
)  # fmt: skip
def test_which_bytes_count(body: ParsedBody, expected: str) -> None:
    found = estimate(body)
    assert text_of(found) == expected
    assert found is not None
    assert not found.is_exact
    assert found.count == -(-len(expected) // 4)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(completion(""), id="an empty prompt"),
        pytest.param(completion(7), id="a number"),
        pytest.param(completion([]), id="no prompts"),
        pytest.param(ParsedBody(Api.EMBEDDINGS, {}), id="no input"),
        pytest.param(ParsedBody(Api.CONVERSATIONS, {}), id="no items"),
        pytest.param(ParsedBody(Api.RAW), id="not read"),
        pytest.param(ParsedBody(Api.IMAGES, {"prompt": "a cat"}), id="images"),
        pytest.param(ParsedBody(Api.CHAT, {"messages": "hello"}), id="messages that are no list"),
    ],
)
def test_bodies_without_a_prompt(body: ParsedBody) -> None:
    assert estimate(body) is None


def test_prompts_of_a_list_are_apart() -> None:
    found = estimate(completion(["hello", "hi"]))
    assert found is not None
    assert [len(found.token_ids), *map(len, found.further), found.count] == [2, 1, 3]


@given(st.text(max_size=50))
def test_a_token_has_four_bytes(text: str) -> None:
    found = estimate(completion(text))
    encoded = text.encode("utf-8", "replace")
    assert (found.count if found else 0) == -(-len(encoded) // 4)


# ── media ──


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + b"\x08\x02"


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\0\0\0"


def jpeg(width: int, height: int, before: int = 300) -> bytes:
    """With a segment of a camera in front of the frame, and a filled marker."""
    exif = b"\xff\xe1" + struct.pack(">H", before + 2) + b"\xff" * before
    frame = b"\xff\xff\xc2" + struct.pack(">HBHH", 11, 8, height, width) + b"\x03"
    return b"\xff\xd8" + exif + frame + b"\0" * 10


def data_url(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"


@pytest.mark.parametrize("make", [png, gif, jpeg])
def test_sizes_of_images(make: Any) -> None:
    assert image_size(data_url(make(1280, 720))) == (1280, 720)


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://x/y.png", id="elsewhere"),
        pytest.param(data_url(b"RIFFxxxxWEBP"), id="another format"),
        pytest.param(data_url(png(1, 1)[:20]), id="a PNG that is cut off"),
        pytest.param(data_url(gif(1, 1)[:8]), id="a GIF that is cut off"),
        pytest.param(data_url(jpeg(1, 1)[:100]), id="a JPEG that is cut off"),
        pytest.param(data_url(b"\xff\xd8\xff\xda\0\x02" + b"\0" * 20), id="a JPEG without a frame"),
        pytest.param(data_url(png(0, 5)), id="without width"),
        pytest.param("data:image/png;base64,\u00e9\u00e9\u00e9\u00e9", id="not Base64"),
        pytest.param("data:image/svg+xml,<svg/>", id="not encoded"),
        pytest.param("", id="nothing"),
    ],
)
def test_sizes_that_cannot_be_read(url: str) -> None:
    assert image_size(url) is None


@given(st.binary(max_size=60))
def test_no_image_is_too_broken(content: bytes) -> None:
    for start in (b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"GIF87a"):
        image_size(data_url(start + content))


@pytest.mark.parametrize(
    ("url", "parameters", "expected"),
    [
        pytest.param("http://x/y.png", {}, 225, id="unknown: 640 x 360 / 1024"),
        pytest.param(data_url(png(1024, 1024)), {}, 1024, id="from the pixels"),
        pytest.param(data_url(png(3, 3)), {}, 1, id="at least one"),
        pytest.param(data_url(png(1024, 1024)), {"dynamic": {"factor": 512}}, 2048, id="another factor"),
        pytest.param("http://x/y.png", {"defaultResolution": SIZE}, 100, id="another size"),
        pytest.param(data_url(png(1024, 1024)), {"mode": "static", "static": {"staticToken": 77}}, 77, id="fixed"),
        pytest.param("http://x/y.png", {"mode": "static"}, 1, id="fixed, but not given"),
    ],
)
def test_images(url: str, parameters: dict[str, Any], expected: int) -> None:
    assert media_tokens(image(url), {"image": parameters}) == expected


VIDEO = {"type": "video_url", "video_url": {"url": "http://x/v.mp4"}}


@pytest.mark.parametrize(
    ("parameters", "headers", "expected"),
    [
        pytest.param({}, {}, 10 * 225, id="10 s, one frame a second, 640 x 360"),
        pytest.param({}, {"duration_seconds": "2.5"}, 2 * 225, id="its duration"),
        pytest.param({}, {"resolution": "320x320"}, 10 * 100, id="its size"),
        pytest.param({}, {"resolution": "320X"}, 10 * 225, id="a size that cannot be read"),
        pytest.param({}, {"duration_seconds": "soon", "fps": "nan"}, 10 * 225, id="numbers that cannot be read"),
        pytest.param({}, {"fps": "60"}, 10 * 225, id="sampled: the rate of the source does not count"),
        pytest.param({"maxVideoTokens": 1000}, {}, 1000, id="a limit"),
        pytest.param({"frames": {"sampled": {"sampleFPS": 2, "temporalPatchSize": 2}}}, {}, 10 * 225, id="frames are merged"),
        pytest.param({"frames": {"maxFrames": 4}}, {}, 4 * 225, id="most frames"),
        pytest.param({"frames": {"minFrames": 16, "sampled": {"temporalPatchSize": 2}}}, {}, 8 * 225, id="fewest, then merged"),
        pytest.param({"frames": {"mode": "strided"}}, {}, 240 * 225, id="strided: 24 frames a second"),
        pytest.param({"frames": {"mode": "strided", "strided": {"frameStride": 24}}}, {"fps": "48"}, 20 * 225,
                     id="strided: every 24th of 48 a second"),
        pytest.param({"tokensPerFrame": {"mode": "static", "static": {"numTokensPerFrame": 7}}}, {}, 70, id="fixed per frame"),
        pytest.param({"tokensPerFrame": {"mode": "static"}}, {}, 10, id="fixed, but not given"),
        pytest.param({"defaultDuration": 3, "defaultResolution": SIZE}, {}, 300, id="other defaults"),
        pytest.param({}, {"duration_seconds": "0.1"}, 1, id="at least one"),
    ],
)  # fmt: skip
def test_videos(parameters: dict[str, Any], headers: dict[str, str], expected: int) -> None:
    assert media_tokens(VIDEO, {"video": parameters}, **headers) == expected


def sound(data: str) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


@pytest.mark.parametrize(
    ("block", "parameters", "expected"),
    [
        pytest.param(sound("x" * 97), {}, 25, id="a quarter of data and format"),
        pytest.param({"type": "input_audio"}, {}, 1, id="at least one"),
        pytest.param({"type": "audio_url", "audio_url": {"url": "http://abc"}}, {}, 3, id="a quarter of the URL"),
        pytest.param(sound("x" * 63_997), {"audio": {}}, 14 + 38, id="3 s of 16,000 bytes, 12.5 tokens a second, 14 around"),
        pytest.param({"type": "audio_url", "audio_url": {"url": "http://abc"}}, {"audio": {}}, 139, id="10 s if unknown"),
        pytest.param(sound("x" * 63_997), {"audio": {"maxAudioTokens": 20}}, 20, id="a limit"),
        pytest.param(sound("x"), {"audio": {"mode": "static", "static": {"numTokens": 9}}}, 9, id="fixed"),
    ],
)
def test_sounds(block: dict[str, Any], parameters: dict[str, Any], expected: int) -> None:
    assert media_tokens(block, parameters) == expected


def test_places_of_media_are_whole_tokens() -> None:
    found = estimate(chat([{"type": "text", "text": "x"}, image("a"), image("b"), {"type": "text", "text": "y"}, image("a")]))
    assert found is not None
    first, second, third = found.media
    assert [(m.modality, m.offset_tokens, m.length_tokens) for m in found.media] == [
        ("image", 2, 225), ("image", 227, 225), ("image", 453, 225),
    ]  # fmt: skip
    assert (first.hash == third.hash, first.hash == second.hash) == (True, False)
    assert set(found.token_ids[2:227]) == set(found.token_ids[453:]) != set(found.token_ids[227:452])


def test_anthropic_images_count_wherever_they_are() -> None:
    picture = {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": b64encode(png(1024, 1024)).decode()},
    }
    elsewhere = {"type": "image", "source": {"type": "url", "url": "http://x/y.png"}}
    result = {"type": "tool_result", "content": [picture]}
    found = estimate(anthropic({"role": "user", "content": [picture, elsewhere, result, {"type": "image", "source": {}}]}))
    assert found is not None
    assert [media.length_tokens for media in found.media] == [1024, 225, 1024]


def test_sizes_that_clients_make_up_cost_little() -> None:
    huge = image(data_url(png(2**31, 2**31)))
    found = estimate(chat([huge] * 50 + [VIDEO]), None, duration_seconds="1e300", fps="1e300")
    assert found is not None
    assert len(found.media) == 51
    assert MOST_MEDIA_TOKENS <= found.count < MOST_MEDIA_TOKENS + 100


@pytest.mark.parametrize(
    "bare",
    [
        {"image_url": "http://x/y.png"},
        {"type": "image_url", "image_url": "http://x/y.png"},
        {"image_url": {"url": "http://x/y.png"}},
    ],
    ids=repr,
)
def test_media_are_the_same_however_they_are_written(bare: dict[str, Any]) -> None:
    assert estimate(chat([bare])) == estimate(chat([image()]))


NESTED: list[Any] = json.loads("[" * 900 + "]" * 900)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(ParsedBody(Api.CHAT, {"messages": [{"role": "user", "content": "hi"}], "tools": NESTED}), id="tools"),
        pytest.param(
            anthropic({"role": "user", "content": ["hi", {"type": "tool_use", "input": NESTED}]}), id="a tool's input"
        ),
    ],
)
def test_what_is_nested_deeper_than_json_is_written_does_not_count(body: ParsedBody) -> None:
    assert text_of(estimate(body)) == "userhi"


@pytest.mark.parametrize(("api", "member"), [(Api.EMBEDDINGS, "input"), (Api.CONVERSATIONS, "items"), (Api.RESPONSES, "input")])
def test_prompts_nested_deeper_than_json_is_written_are_none(api: Api, member: str) -> None:
    assert estimate(ParsedBody(api, {member: NESTED})) is None
