"""OpenAI bodies: which are taken, what is read from them, and what their refusal says."""

from __future__ import annotations

import pytest

from epp.framework.testing import make_plugin
from epp.framework.types import Api, ErrorShape
from plugins.parsers import openai
from tests.unit.parsers.reading import Body, parse, refused

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
RESPONSES, CONVERSATIONS, IMAGES = "/v1/responses", "/v1/conversations", "/v1/images/generations"
HELLO: list[object] = [{"role": "user", "content": "hello"}]
FAILURES = {
    CHAT: "invalid chat completions request: must have valid messages field",
    COMPLETIONS: "invalid completions request: must have prompt field",
    EMBEDDINGS: "invalid embeddings request: must have input field",
    RESPONSES: "invalid responses request: must have input field",
    CONVERSATIONS: "invalid conversations request: must have items field",
    IMAGES: "invalid images generations request: must have prompt field",
}
MINIMAL: dict[str, dict[str, object]] = {
    CHAT: {"messages": HELLO},
    COMPLETIONS: {"prompt": "hello"},
    EMBEDDINGS: {"input": "hello"},
    RESPONSES: {"input": "hello"},
    CONVERSATIONS: {"items": [{}]},
    IMAGES: {"prompt": "hello"},
}
parser = make_plugin(openai.PLUGIN)


@pytest.mark.parametrize(
    ("path", "body", "api"),
    [
        ("/v1/chat/completions", MINIMAL[CHAT], Api.CHAT),
        ("/v1/chat/completions/render", MINIMAL[CHAT], Api.CHAT),
        ("/v1/completions", MINIMAL[COMPLETIONS], Api.COMPLETIONS),
        ("/v1/completions/render", MINIMAL[COMPLETIONS], Api.COMPLETIONS),
        ("/v1/embeddings", MINIMAL[EMBEDDINGS], Api.EMBEDDINGS),
        ("/v1/responses", MINIMAL[RESPONSES], Api.RESPONSES),
        ("/v1/conversations", MINIMAL[CONVERSATIONS], Api.CONVERSATIONS),
        ("/v1/images/generations", MINIMAL[IMAGES], Api.IMAGES),
        ("chat/completions", MINIMAL[CHAT], Api.CHAT),
        ("/v1/chat/completions/", MINIMAL[CHAT], Api.CHAT),
        ("/openai/deployments/x/chat/completions", MINIMAL[CHAT], Api.CHAT),
        ("/mycompletions", MINIMAL[COMPLETIONS], Api.COMPLETIONS),
        ("", MINIMAL[COMPLETIONS], Api.COMPLETIONS),
    ],
)
def test_the_path_says_which_api(path: str, body: Body, api: Api) -> None:
    assert parse(parser, path, body).api is api


@pytest.mark.parametrize("path", FAILURES)
def test_a_minimal_body(path: str) -> None:
    read = parse(parser, path, MINIMAL[path])
    assert (read.model, read.streams, read.output_cap) == ("", False, None)
    assert (read.rewritable, read.skip_response, read.error_shape) == (True, False, ErrorShape.OPENAI)
    assert read.usage_reader == ("" if path == CONVERSATIONS else "openai-usage")
    assert read.document == MINIMAL[path]


@pytest.mark.parametrize(
    ("path", "more", "streams", "cap"),
    [
        pytest.param(CHAT, {"stream": True, "max_completion_tokens": 5, "max_tokens": 9}, True, 5, id="chat, new cap first"),
        pytest.param(CHAT, {"max_completion_tokens": -1, "max_tokens": 9}, False, 9, id="chat, unusable cap skipped"),
        pytest.param(COMPLETIONS, {"stream": 1, "max_tokens": 16.0}, False, 16, id="stream is not true"),
        pytest.param(COMPLETIONS, {"stream": "true", "max_output_tokens": 3}, False, None, id="cap of another API"),
        pytest.param(RESPONSES, {"stream": True, "max_output_tokens": 3, "max_tokens": 9}, True, 3, id="responses"),
        pytest.param(EMBEDDINGS, {"max_tokens": 9}, False, None, id="embeddings have none"),
    ],
)
def test_model_stream_and_cap(path: str, more: dict[str, object], streams: bool, cap: int | None) -> None:
    read = parse(parser, path, {**MINIMAL[path], **more, "model": "m"})
    assert (read.model, read.streams, read.output_cap) == ("m", streams, cap)


@pytest.mark.parametrize("path", FAILURES)
@pytest.mark.parametrize("body", [b"no healthy upstream", b"", b"null", b"[]"], ids=["text", "empty", "null", "array"])
def test_what_is_no_object(path: str, body: bytes) -> None:
    assert refused(parser, path, body).startswith("error unmarshaling request bodyMap: "), "C45: no JSON; C47: an empty body"


@pytest.mark.parametrize("path", FAILURES)
@pytest.mark.parametrize(
    "value",
    [None, "", [], {}, 5, False, [1, "a"], [1.5], [-1], [[1]], [None], [2**32]],
    ids=repr,
)
def test_required_members(path: str, value: object) -> None:
    name = next(iter(MINIMAL[path]))
    if path == RESPONSES and value is not None:
        assert parse(parser, path, {name: value}).api is Api.RESPONSES, "anything but null"
        return
    assert refused(parser, path, {name: value}) == FAILURES[path], "C48: messages; C49: prompts"


@pytest.mark.parametrize("path", FAILURES)
def test_a_missing_member(path: str) -> None:
    assert refused(parser, path, {"model": "m"}) == FAILURES[path]


@pytest.mark.parametrize("path", [COMPLETIONS, EMBEDDINGS])
@pytest.mark.parametrize("value", ["text", ["a", "b"], [""], [1, 2, 3], [1.0, 2], [0, 2**32 - 1]], ids=repr)
def test_text_or_tokens(path: str, value: object) -> None:
    name = next(iter(MINIMAL[path]))
    assert parse(parser, path, {name: value}).document[name] == value


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        (CHAT, "tools", {}),
        (CHAT, "documents", "x"),
        (CHAT, "chat_template", 1),
        (CHAT, "return_assistant_tokens_mask", "true"),
        (CHAT, "continue_final_message", 1),
        (CHAT, "add_generation_prompt", []),
        (CHAT, "chat_template_kwargs", []),
        (CHAT, "cache_salt", 5),
        (COMPLETIONS, "cache_salt", 5),
        (EMBEDDINGS, "cache_salt", ["x"]),
        (RESPONSES, "cache_salt", False),
        (CONVERSATIONS, "cache_salt", 0),
        (CONVERSATIONS, "metadata", []),
        (IMAGES, "n", "2"),
        (IMAGES, "size", 1024),
        (IMAGES, "num_inference_steps", 1.5),
    ],
)
def test_read_members_of_a_wrong_type(path: str, name: str, value: object) -> None:
    assert refused(parser, path, {**MINIMAL[path], name: value}) == FAILURES[path]
    assert parse(parser, path, {**MINIMAL[path], name: None}).document[name] is None, "null is the same as missing"


@pytest.mark.parametrize(
    ("path", "more"),
    [
        (CHAT, {"temperature": "hot", "n": "many", "unknown": {"a": []}}),
        (CHAT, {"tools": [1, {}], "documents": [], "add_generation_prompt": False, "chat_template_kwargs": {"a": 1}}),
        (RESPONSES, {"instructions": ["x"], "tools": {"any": "thing"}}),
        (CONVERSATIONS, {"items": [{"type": "message", "role": "user", "content": [{"type": "input_text"}]}], "metadata": {}}),
        (IMAGES, {"n": 2, "size": "1024x1024", "num_inference_steps": 4}),
    ],
)
def test_members_that_nobody_reads_may_be_anything(path: str, more: dict[str, object]) -> None:
    assert parse(parser, path, {**MINIMAL[path], **more}).document


@pytest.mark.parametrize("item", ["text", 5, None, [], {"type": 5}, {"role": []}], ids=repr)
def test_wrong_conversation_items(item: object) -> None:
    assert refused(parser, CONVERSATIONS, {"items": [{}, item]}) == FAILURES[CONVERSATIONS]


@pytest.mark.parametrize(
    "message",
    [
        pytest.param({"role": "user", "content": "text"}, id="text"),
        pytest.param({"role": "user", "content": ""}, id="empty text"),
        pytest.param({"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}, id="null with tool calls"),
        pytest.param({"role": "assistant"}, id="no content"),
        pytest.param({"content": "x"}, id="no role"),
        pytest.param({"content": []}, id="no blocks"),
        pytest.param({"content": [{"type": "text", "text": "x"}]}, id="text block"),
        pytest.param({"content": [{"type": "image_url", "image_url": {"url": "https://x"}}]}, id="image"),
        pytest.param({"content": [{"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}]}, id="audio"),
        pytest.param({"content": [{"type": "video_url", "video_url": {"url": "https://x"}}]}, id="video"),
        pytest.param({"content": [{"type": "refusal", "refusal": 5}]}, id="other block"),
        pytest.param({"content": [{"type": "image_url", "image_url": None}]}, id="null image"),
    ],
)
def test_chat_messages(message: dict[str, object]) -> None:
    assert parse(parser, CHAT, {"messages": [message]}).document["messages"] == [message]


@pytest.mark.parametrize(
    "message",
    [
        pytest.param("x", id="text"),
        pytest.param(None, id="null"),
        pytest.param({"role": 5, "content": "x"}, id="role"),
        pytest.param({"content": 5}, id="content is a number"),
        pytest.param({"content": True}, id="content is a boolean"),
        pytest.param({"content": {"type": "text"}}, id="content is an object"),
        pytest.param({"content": ["x"]}, id="block is text"),
        pytest.param({"content": [None]}, id="block is null"),
        pytest.param({"content": [{"type": 5}]}, id="type of a block"),
        pytest.param({"content": [{"type": "text", "text": 5}]}, id="text of a block"),
        pytest.param({"content": [{"type": "image_url", "image_url": "https://x"}]}, id="image is text"),
        pytest.param({"content": [{"type": "image_url", "image_url": {"url": 5}}]}, id="url of an image"),
        pytest.param({"content": [{"type": "video_url", "video_url": {"url": []}}]}, id="url of a video"),
        pytest.param({"content": [{"type": "input_audio", "input_audio": {"data": 5}}]}, id="data of audio"),
        pytest.param({"content": [{"type": "input_audio", "input_audio": {"format": {}}}]}, id="format of audio"),
        pytest.param({"content": "x", "tool_calls": {}}, id="tool calls"),
    ],
)
def test_wrong_chat_messages(message: object) -> None:
    assert refused(parser, CHAT, {"messages": [*HELLO, message]}) == FAILURES[CHAT]


def test_bytes_that_are_no_character_are_replaced() -> None:
    read = parse(parser, COMPLETIONS, b'{"model":"m\xff","prompt":"\\ud800 x"}')
    assert (read.model, read.document["prompt"]) == ("m\ufffd", "\ufffd x")


def test_paths_that_clients_choose_are_not_kept_for_ever() -> None:
    own = make_plugin(openai.PLUGIN)
    for number in range(2_000):
        assert parse(own, f"/{number}/chat/completions", MINIMAL[CHAT]).api is Api.CHAT
    assert len(own._formats) <= 256
