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


MISSING = {CHAT: "messages", COMPLETIONS: "prompt or prompt_embeds", EMBEDDINGS: "input or messages", RESPONSES: "input"}
MISSING |= {CONVERSATIONS: "items", IMAGES: "prompt"}


def problem(path: str, body: dict[str, object]) -> str:
    """What is said behind the words that name the API."""
    text = refused(parser, path, body)
    assert text.startswith(f"{FAILURES[path]}: "), "C48: messages; C49: prompts"
    return text.removeprefix(f"{FAILURES[path]}: ")


@pytest.mark.parametrize("path", FAILURES)
@pytest.mark.parametrize("value", [None, "", []], ids=repr)
def test_required_members_that_are_empty(path: str, value: object) -> None:
    name = next(iter(MINIMAL[path]))
    if path == RESPONSES and value is not None:
        assert parse(parser, path, {name: value}).api is Api.RESPONSES, "anything but null"
        return
    assert problem(path, {name: value}) == f"{MISSING[path]} is missing or empty"
    assert problem(path, {"model": "m"}) == f"{MISSING[path]} is missing or empty"


PROMPTS = "a string, a list of strings, a list of token ids or a list of such lists"
NO_ID = f"a token id, a whole number from 0 to {2**32 - 1}"


@pytest.mark.parametrize("path", [COMPLETIONS, EMBEDDINGS])
@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ({}, f" must be {PROMPTS}, not an object"),
        (5, f" must be {PROMPTS}, not a number"),
        (False, f" must be {PROMPTS}, not a boolean"),
        ([1, "a"], f"[1] must be {NO_ID}"),
        ([1.5], f"[0] must be {NO_ID}"),
        ([0, -1], f"[1] must be {NO_ID}"),
        ([2**32], f"[0] must be {NO_ID}"),
        ([1, True], f"[1] must be {NO_ID}"),
        (["a", 1], "[1] must be a string, not a number"),
        ([None], "[0] must be a string, a token id or a list of token ids, not null"),
        ([True], "[0] must be a string, a token id or a list of token ids, not a boolean"),
        ([[1], "a"], "[1] must be a list of token ids, not a string"),
        ([[1], [2, "a"]], f"[1][1] must be {NO_ID}"),
        ([[1], []], "[1] must not be empty"),
        ([[[1]]], f"[0][0] must be {NO_ID}"),
    ],
    ids=repr,
)
def test_prompts_that_no_engine_takes(path: str, value: object, wrong: str) -> None:
    name = next(iter(MINIMAL[path]))
    assert problem(path, {name: value}) == f"{name}{wrong}"


@pytest.mark.parametrize(
    ("path", "value", "wrong"),
    [
        (CHAT, "x", "messages must be a list of messages, not a string"),
        (CHAT, {}, "messages must be a list of messages, not an object"),
        (CONVERSATIONS, "x", "items must be a list of items, not a string"),
        (IMAGES, ["x"], "prompt must be a string, not an array"),
        (IMAGES, 5, "prompt must be a string, not a number"),
    ],
)
def test_required_members_of_a_wrong_type(path: str, value: object, wrong: str) -> None:
    assert problem(path, {next(iter(MINIMAL[path])): value}) == wrong


@pytest.mark.parametrize("path", [COMPLETIONS, EMBEDDINGS])
@pytest.mark.parametrize("value", ["text", ["a", "b"], [""], [1, 2, 3], [1.0, 2], [0, 2**32 - 1], [[1, 2], [3]]], ids=repr)
def test_text_or_tokens(path: str, value: object) -> None:
    name = next(iter(MINIMAL[path]))
    assert parse(parser, path, {name: value}).document[name] == value


@pytest.mark.parametrize(
    ("path", "name", "value", "wrong"),
    [
        (CHAT, "tools", {}, "a list, not an object"),
        (CHAT, "tools", "x", "a list, not a string"),
        (CHAT, "documents", "x", "a list, not a string"),
        (CHAT, "chat_template", 1, "a string, not a number"),
        (CHAT, "return_assistant_tokens_mask", "maybe", "true or false, not another string"),
        (CHAT, "continue_final_message", 2, "true or false, not another number"),
        (CHAT, "add_generation_prompt", [], "true or false, not an array"),
        (CHAT, "chat_template_kwargs", [], "an object, not an array"),
        (CHAT, "cache_salt", 5, "a string or a list of strings, not a number"),
        (COMPLETIONS, "cache_salt", 5, "a string or a list of strings, not a number"),
        (EMBEDDINGS, "cache_salt", {}, "a string or a list of strings, not an object"),
        (RESPONSES, "cache_salt", False, "a string or a list of strings, not a boolean"),
        (CONVERSATIONS, "cache_salt", 0, "a string or a list of strings, not a number"),
        (CONVERSATIONS, "metadata", [], "an object, not an array"),
        (IMAGES, "n", "two", "a whole number, not another string"),
        (IMAGES, "size", 1024, "a string, not a number"),
        (IMAGES, "num_inference_steps", 1.5, "a whole number"),
    ],
)
def test_read_members_of_a_wrong_type(path: str, name: str, value: object, wrong: str) -> None:
    assert problem(path, {**MINIMAL[path], name: value}) == f"{name} must be {wrong}"
    assert parse(parser, path, {**MINIMAL[path], name: None}).document[name] is None, "null is the same as missing"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param(CHAT, {"messages": HELLO, "continue_final_message": 1}, id="a flag as a number"),
        pytest.param(CHAT, {"messages": HELLO, "add_generation_prompt": "False"}, id="a flag as a word"),
        pytest.param(CHAT, {"messages": HELLO, "cache_salt": "x"}, id="a salt"),
        pytest.param(COMPLETIONS, {"prompt": ["a", "b"], "cache_salt": ["x", "y"]}, id="a salt for each prompt"),
        pytest.param(COMPLETIONS, {"prompt_embeds": "UEs="}, id="prompt embeddings alone"),
        pytest.param(COMPLETIONS, {"prompt": None, "prompt_embeds": ["UEs=", "UEs="]}, id="several prompt embeddings"),
        pytest.param(COMPLETIONS, {"prompt": "", "prompt_embeds": "UEs="}, id="prompt embeddings and no text"),
        pytest.param(EMBEDDINGS, {"messages": HELLO}, id="embeddings of a chat"),
        pytest.param(EMBEDDINGS, {"input": [{"text": "a", "image": "data:"}, {"image": "x"}]}, id="embeddings of images"),
        pytest.param(IMAGES, {"prompt": "x", "n": "2", "num_inference_steps": 4.0}, id="numbers as texts and floats"),
        pytest.param(RESPONSES, {"input": "x", "previous_response_id": "resp_1"}, id="a response that goes on"),
        pytest.param(RESPONSES, {"input": [{"type": "function_call_output", "call_id": "1", "output": "x"}]}, id="tool output"),
        pytest.param(RESPONSES, {"input": [{"type": "item_reference", "id": "1"}, {"type": "reasoning"}]}, id="other items"),
    ],
)
def test_what_some_engine_takes(path: str, body: dict[str, object]) -> None:
    assert parse(parser, path, body).document == body


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({"messages": [{"content": 5}]}, "messages[0].content must be a string or a list of content parts, not a number"),
        ({"input": [{"text": 5}]}, "input[0].text must be a string, not a number"),
        ({"input": [{}, "x"]}, "input[1] must be an object, not a string"),
    ],
    ids=repr,
)
def test_embeddings_of_chats_and_images_are_checked_too(body: dict[str, object], wrong: str) -> None:
    assert problem(EMBEDDINGS, body) == wrong


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


@pytest.mark.parametrize(
    ("item", "wrong"),
    [
        ("text", " must be an object, not a string"),
        (5, " must be an object, not a number"),
        (None, " must be an object, not null"),
        ([], " must be an object, not an array"),
        ({"type": 5}, ".type must be a string, not a number"),
        ({"role": []}, ".role must be a string, not an array"),
    ],
    ids=repr,
)
def test_wrong_conversation_items(item: object, wrong: str) -> None:
    assert problem(CONVERSATIONS, {"items": [{}, item]}) == f"items[1]{wrong}"


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
        pytest.param({"content": [{"type": "image_url", "image_url": "https://x"}]}, id="image by a bare URL"),
        pytest.param({"content": [{"image_url": "https://x"}, {"video_url": "https://x"}]}, id="bare URLs without a type"),
        pytest.param({"content": [{"type": "audio_url", "audio_url": {"url": "https://x"}}]}, id="audio by URL"),
        pytest.param({"content": [{"type": "image_embeds", "image_embeds": {"a": "UEs="}}]}, id="image embeddings"),
        pytest.param({"content": [{"type": "file", "file": {"file_id": "1"}}]}, id="file"),
        pytest.param({"content": ["text", {"type": "text", "text": "x"}]}, id="a bare text among blocks"),
        pytest.param({"role": "developer", "content": "x"}, id="developer"),
        pytest.param({"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "x"}]}, id="tool"),
        pytest.param({"role": "assistant", "content": None, "tool_calls": None, "reasoning": "x"}, id="null tool calls"),
    ],
)
def test_chat_messages(message: dict[str, object]) -> None:
    assert parse(parser, CHAT, {"messages": [message]}).document["messages"] == [message]


MEDIA = "a URL or an object with a url"


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        pytest.param("x", " must be an object, not a string", id="text"),
        pytest.param(None, " must be an object, not null", id="null"),
        pytest.param({"role": 5, "content": "x"}, ".role must be a string, not a number", id="role"),
        pytest.param({"content": 5}, ".content must be a string or a list of content parts, not a number", id="number"),
        pytest.param({"content": True}, ".content must be a string or a list of content parts, not a boolean", id="boolean"),
        pytest.param({"content": {}}, ".content must be a string or a list of content parts, not an object", id="object"),
        pytest.param({"content": [[]]}, ".content[0] must be a string or an object, not an array", id="part is a list"),
        pytest.param({"content": ["", None]}, ".content[1] must be a string or an object, not null", id="part is null"),
        pytest.param({"content": [{"type": 5}]}, ".content[0].type must be a string, not a number", id="type of a part"),
        pytest.param({"content": [{"text": 5}]}, ".content[0].text must be a string, not a number", id="text of a part"),
        pytest.param({"content": [{"image_url": 5}]}, f".content[0].image_url must be {MEDIA}, not a number", id="image"),
        pytest.param(
            {"content": ["", {"type": "image_url", "image_url": {"url": 5}}]},
            ".content[1].image_url.url must be a string, not a number",
            id="url of an image",
        ),
        pytest.param(
            {"content": [{"video_url": {"url": []}}]},
            ".content[0].video_url.url must be a string, not an array",
            id="url of a video",
        ),
        pytest.param({"content": [{"audio_url": []}]}, f".content[0].audio_url must be {MEDIA}, not an array", id="audio"),
        pytest.param(
            {"content": [{"input_audio": "UEs="}]}, ".content[0].input_audio must be an object, not a string", id="sound"
        ),
        pytest.param(
            {"content": [{"input_audio": {"data": 5}}]},
            ".content[0].input_audio.data must be a string, not a number",
            id="data of a sound",
        ),
        pytest.param(
            {"content": [{"input_audio": {"format": {}}}]},
            ".content[0].input_audio.format must be a string, not an object",
            id="format of a sound",
        ),
        pytest.param({"content": "x", "tool_calls": {}}, ".tool_calls must be a list, not an object", id="tool calls"),
    ],
)
def test_wrong_chat_messages(message: object, wrong: str) -> None:
    assert problem(CHAT, {"messages": [*HELLO, message]}) == f"messages[1]{wrong}"


def test_bytes_that_are_no_character_are_replaced() -> None:
    read = parse(parser, COMPLETIONS, b'{"model":"m\xff","prompt":"\\ud800 x"}')
    assert (read.model, read.document["prompt"]) == ("m\ufffd", "\ufffd x")


def test_paths_that_clients_choose_are_not_kept_for_ever() -> None:
    own = make_plugin(openai.PLUGIN)
    for number in range(2_000):
        assert parse(own, f"/{number}/chat/completions", MINIMAL[CHAT]).api is Api.CHAT
    assert len(own._forms) <= 256
