"""anthropic-parser: messages and count_tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from epp.framework.handle import PluginContext
from epp.framework.interfaces import Parser, Role
from epp.framework.params import NoParams
from epp.framework.registry import PluginType
from epp.framework.types import Api, ErrorShape, HeaderView, ParsedBody
from plugins.parsers.json_body import bad_request, decode_object, model_of, output_cap

TYPE = "anthropic-parser"

_COUNT_TOKENS = "messages/count_tokens"
_UNDECODABLE = "error unmarshaling request body"
_UNPARSABLE = "error parsing messages request"
_Members = Sequence[tuple[str, type]]
_BLOCK: _Members = (
    ("type", str),
    ("text", str),
    ("thinking", str),
    ("id", str),
    ("name", str),
    ("tool_use_id", str),
    ("source", dict),
)
_SOURCE: _Members = (("type", str), ("media_type", str), ("data", str), ("url", str))
_MESSAGE: _Members = (("role", str),)
_TOOL: _Members = (("name", str), ("description", str))
_DOCUMENT: _Members = (("messages", list), ("tools", list), ("cache_salt", str))

# The checks below return what is wrong, behind its place in the value (``[2].role must be a string``), or "".


def _members(value: object, members: _Members) -> str:
    """An object whose members of these names are missing, null, or of their type."""
    if type(value) is not dict:
        return " must be an object"
    for name, kind in members:
        member = value.get(name)
        if member is not None and type(member) is not kind:
            return f".{name} must be {'a string' if kind is str else 'a list' if kind is list else 'an object'}"
    return ""


def _first(values: object, check: Callable[[object], str]) -> str:
    """The first of a list's values that is wrong; nothing if it is no list."""
    if type(values) is list:
        for index, value in enumerate(values):
            if problem := check(value):
                return f"[{index}]{problem}"
    return ""


def _content(content: object, check: Callable[[object], str]) -> str:
    """Text or a list of blocks."""
    if content is None or type(content) in (str, list):
        return _first(content, check)
    return " must be a string or a list of blocks"


def _block(block: object) -> str:
    """A block of a message; those of a tool's result hold no further results, so nothing here is recursive."""
    problem = _plain_block(block)
    if problem or type(block) is not dict or block.get("type") != "tool_result":
        return problem
    problem = _content(block.get("content"), _plain_block)
    return f".content{problem}" if problem else ""


def _plain_block(block: object) -> str:
    problem = _members(block, _BLOCK)
    if problem or type(block) is not dict or block.get("source") is None:
        return problem
    problem = _members(block["source"], _SOURCE)
    return f".source{problem}" if problem else ""


def _message(message: object) -> str:
    problem = _members(message, _MESSAGE)
    if problem or type(message) is not dict:
        return problem
    problem = _content(message.get("content"), _block)
    return f".content{problem}" if problem else ""


def _tool(tool: object) -> str:
    return _members(tool, _TOOL)


def _check(document: Mapping[str, object]) -> None:
    """A document that can be scheduled.

    Raises:
        RequestError: BAD_REQUEST.
    """
    problem = _members(document, _DOCUMENT).removeprefix(".")
    if problem:
        raise bad_request(f"{_UNPARSABLE}: {problem}")
    if not document.get("messages"):
        raise bad_request("invalid messages request: must have at least one message")
    for name, problem in (
        ("messages", _first(document["messages"], _message)),
        ("system", _content(document.get("system"), _plain_block)),
        ("tools", _first(document.get("tools"), _tool)),
    ):
        if problem:
            raise bad_request(f"{_UNPARSABLE}: {name}{problem}")


class AnthropicParser:
    """Read Anthropic request bodies.

    Parameters: none.
    Claims: ``messages``, ``messages/count_tokens``. The body of count_tokens is forwarded unread, and nobody waits for its
    response.
    Errors: 400 without messages, or where a read member has the wrong type.
    Source: llm-d-router: pkg/epp/framework/plugins/requesthandling/parsers/anthropic
    """

    paths = ("messages", _COUNT_TOKENS)
    app_protocols = ("http", "kubernetes.io/h2c")

    def parse(self, path: str, headers: HeaderView, body: memoryview) -> ParsedBody:
        """Read one body.

        Raises:
            RequestError: BAD_REQUEST.
        """
        if path.strip("/ ").endswith(_COUNT_TOKENS):
            return ParsedBody(Api.RAW, skip_response=True, error_shape=ErrorShape.ANTHROPIC)
        document = decode_object(body, _UNDECODABLE)
        _check(document)
        return ParsedBody(
            api=Api.MESSAGES,
            document=document,
            model=model_of(document),
            streams=document.get("stream") is True,
            output_cap=output_cap(document, ("max_tokens",)),
            rewritable=True,
            usage_reader="anthropic-usage",
            error_shape=ErrorShape.ANTHROPIC,
        )


def _create(context: PluginContext, params: NoParams) -> Parser:
    return AnthropicParser()


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.PARSER}),
    summary="Reads Anthropic messages; forwards count_tokens unread.",
    factory=_create,
)
