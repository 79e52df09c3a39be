"""Anthropic bodies: which are taken, what is read from them, and what their refusal says."""

from __future__ import annotations

import pytest

from epp.framework.testing import make_plugin
from epp.framework.types import Api, ErrorShape
from plugins.parsers import anthropic
from tests.unit.parsers.reading import Body, parse, refused

PATH = "/v1/messages"
HELLO: dict[str, object] = {"role": "user", "content": "hello"}
NO_MESSAGE = "invalid messages request: must have at least one message"
parser = make_plugin(anthropic.PLUGIN)


def test_a_minimal_body() -> None:
    read = parse(parser, PATH, {"messages": [HELLO]})
    assert (read.api, read.model, read.streams, read.output_cap) == (Api.MESSAGES, "", False, None)
    assert (read.rewritable, read.skip_response) == (True, False)
    assert (read.usage_reader, read.error_shape) == ("anthropic-usage", ErrorShape.ANTHROPIC)


def test_model_stream_and_cap() -> None:
    read = parse(parser, PATH, {"model": "claude", "messages": [HELLO], "stream": True, "max_tokens": 100})
    assert (read.model, read.streams, read.output_cap) == ("claude", True, 100)


@pytest.mark.parametrize("path", ["/v1/messages/count_tokens", "/v1/messages/count_tokens/", "messages/count_tokens"])
@pytest.mark.parametrize("body", [b'{"messages":[]}', b"", b"no JSON"], ids=["JSON", "empty", "text"])
def test_count_tokens_is_not_read(path: str, body: Body) -> None:
    read = parse(parser, path, body)
    assert (read.api, read.model, read.rewritable, read.skip_response) == (Api.RAW, "", False, True)
    assert (read.usage_reader, read.error_shape) == ("", ErrorShape.ANTHROPIC)


def test_a_trailing_slash_is_no_other_path() -> None:
    assert parse(parser, "/v1/messages/", {"messages": [HELLO]}).api is Api.MESSAGES


@pytest.mark.parametrize("body", [b"no healthy upstream", b"", b"null", b"[]"], ids=["text", "empty", "null", "array"])
def test_what_is_no_object(body: bytes) -> None:
    assert refused(parser, PATH, body).startswith("error unmarshaling request body: ")


@pytest.mark.parametrize("body", [{}, {"messages": []}, {"messages": None}, {"system": "x"}], ids=repr)
def test_without_a_message(body: dict[str, object]) -> None:
    assert refused(parser, PATH, body) == NO_MESSAGE


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(HELLO, id="text"),
        pytest.param({"role": "system", "content": "x"}, id="system role"),
        pytest.param({}, id="nothing"),
        pytest.param({"content": None}, id="null"),
        pytest.param({"content": []}, id="no blocks"),
        pytest.param({"content": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]}, id="text block"),
        pytest.param({"content": [{"type": "image", "source": {"media_type": "image/png", "data": "AA"}}]}, id="image"),
        pytest.param({"content": [{"type": "image", "source": {"type": "url", "url": "https://x"}}]}, id="image by URL"),
        pytest.param({"content": [{"type": "document", "source": {"type": "content", "content": [{}]}}]}, id="document"),
        pytest.param({"content": [{"type": "tool_use", "id": "1", "name": "n", "input": {"a": [1]}}]}, id="tool use"),
        pytest.param({"content": [{"type": "tool_result", "tool_use_id": "1", "content": "x"}]}, id="tool result, text"),
        pytest.param({"content": [{"type": "tool_result", "content": [{"type": "text", "text": "x"}]}]}, id="tool blocks"),
        pytest.param({"content": [{"type": "tool_result"}]}, id="tool result, empty"),
        pytest.param({"content": [{"type": "web_search_tool_result", "content": {"type": "error"}}]}, id="another result"),
        pytest.param({"content": [{"type": "thinking", "thinking": "hm", "signature": "s"}]}, id="thinking"),
        pytest.param({"content": [{"type": "redacted_thinking", "data": "AA"}]}, id="redacted thinking"),
    ],
)
def test_messages(message: dict[str, object]) -> None:
    assert parse(parser, PATH, {"messages": [message]}).document["messages"] == [message]


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        pytest.param("x", " must be an object, not a string", id="text"),
        pytest.param(None, " must be an object, not null", id="null"),
        pytest.param({"role": 5}, ".role must be a string, not a number", id="role"),
        pytest.param({"content": 5}, ".content must be a string or a list of blocks, not a number", id="content is a number"),
        pytest.param(
            {"content": {}}, ".content must be a string or a list of blocks, not an object", id="content is an object"
        ),
        pytest.param({"content": ["x"]}, ".content[0] must be an object, not a string", id="block is text"),
        pytest.param({"content": [{}, {"type": 5}]}, ".content[1].type must be a string, not a number", id="type"),
        pytest.param({"content": [{"text": 5}]}, ".content[0].text must be a string, not a number", id="text of a block"),
        pytest.param({"content": [{"thinking": []}]}, ".content[0].thinking must be a string, not an array", id="thinking"),
        pytest.param({"content": [{"id": 5}]}, ".content[0].id must be a string, not a number", id="id"),
        pytest.param({"content": [{"name": 5}]}, ".content[0].name must be a string, not a number", id="name"),
        pytest.param(
            {"content": [{"tool_use_id": 5}]}, ".content[0].tool_use_id must be a string, not a number", id="tool_use_id"
        ),
        pytest.param({"content": [{"source": "x"}]}, ".content[0].source must be an object, not a string", id="source"),
        pytest.param(
            {"content": [{"source": {"data": 5}}]}, ".content[0].source.data must be a string, not a number", id="data"
        ),
        pytest.param(
            {"content": [{"source": {"url": {}}}]}, ".content[0].source.url must be a string, not an object", id="url"
        ),
        pytest.param(
            {"content": [{"type": "tool_result", "content": 5}]},
            ".content[0].content must be a string or a list of blocks, not a number",
            id="tool result is a number",
        ),
        pytest.param(
            {"content": [{"type": "tool_result", "content": [{"text": 5}]}]},
            ".content[0].content[0].text must be a string, not a number",
            id="text in a tool result",
        ),
    ],
)
def test_wrong_messages(message: object, problem: str) -> None:
    text = refused(parser, PATH, {"messages": [HELLO, message]})
    assert text == f"error parsing messages request: messages[1]{problem}"


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("messages", "x", "messages must be a list of messages, not a string"),
        ("messages", {}, "messages must be a list of messages, not an object"),
        ("system", 5, "system must be a string or a list of blocks, not a number"),
        ("system", ["x"], "system[0] must be an object, not a string"),
        ("system", [{"text": 5}], "system[0].text must be a string, not a number"),
        ("tools", {}, "tools must be a list of tools, not an object"),
        ("tools", ["x"], "tools[0] must be an object, not a string"),
        ("tools", [{}, {"name": 5}], "tools[1].name must be a string, not a number"),
        ("tools", [{"description": []}], "tools[0].description must be a string, not an array"),
        ("cache_salt", 5, "cache_salt must be a string, not a number"),
    ],
)
def test_members_of_a_wrong_type(name: str, value: object, problem: str) -> None:
    assert refused(parser, PATH, {"messages": [HELLO], name: value}) == f"error parsing messages request: {problem}"


@pytest.mark.parametrize("system", ["x", [{"type": "text", "text": "x"}], [], None], ids=repr)
def test_system(system: object) -> None:
    body: dict[str, object] = {"messages": [HELLO], "system": system, "tools": [{"name": "n", "input_schema": {}}]}
    assert parse(parser, PATH, body).document["system"] == system


def test_tool_results_nested_as_deep_as_json_may_be() -> None:
    depth = 500
    block = '{"type":"tool_result","content":[' * depth + "]}" * depth
    text = f'{{"messages":[{{"content":[{block}]}}]}}'
    assert parse(parser, PATH, text).api is Api.MESSAGES
