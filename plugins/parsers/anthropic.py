"""anthropic-parser: messages and count_tokens."""

from __future__ import annotations

from collections.abc import Mapping

from epp.framework.handle import PluginContext
from epp.framework.interfaces import Parser, Role
from epp.framework.params import NoParams
from epp.framework.registry import PluginType
from epp.framework.types import Api, ErrorShape, HeaderView, ParsedBody
from plugins.parsers.json_body import bad_request, model_of, output_cap, read_object
from plugins.parsers.shapes import TEXT, Shape, either, list_of, members

TYPE = "anthropic-parser"

_COUNT_TOKENS = "messages/count_tokens"
_UNDECODABLE = "error unmarshaling request body"
_UNPARSABLE = "error parsing messages request"
_CONTENT = "a string or a list of blocks"


def _content(block: Shape) -> Shape:
    return either(_CONTENT, TEXT, list_of(block, _CONTENT))


_BLOCK_MEMBERS = {
    "type": TEXT,
    "text": TEXT,
    "thinking": TEXT,
    "id": TEXT,
    "name": TEXT,
    "tool_use_id": TEXT,
    "source": members({"type": TEXT, "media_type": TEXT, "data": TEXT, "url": TEXT}),
}
_PLAIN_BLOCK = members(_BLOCK_MEMBERS)
_TOOL_RESULT = members({**_BLOCK_MEMBERS, "content": _content(_PLAIN_BLOCK)})


def _block(block: Mapping[str, object]) -> str:
    """A block of a message; those of a tool's result hold no further results, so nothing here is recursive."""
    return (_TOOL_RESULT if block.get("type") == "tool_result" else _PLAIN_BLOCK).problem(block)


_DOCUMENT = members(
    {
        "messages": list_of(
            members({"role": TEXT, "content": _content(Shape("an object", {dict: _block}))}), "a list of messages"
        ),
        "system": _content(_PLAIN_BLOCK),
        "tools": list_of(members({"name": TEXT, "description": TEXT}), "a list of tools"),
        "cache_salt": TEXT,
    }
)


def _check(document: Mapping[str, object]) -> None:
    """A document that can be scheduled.

    Raises:
        RequestError: BAD_REQUEST.
    """
    if document.get("messages") in (None, []):
        raise bad_request("invalid messages request: must have at least one message")
    if problem := _DOCUMENT.problem(document):
        raise bad_request(f"{_UNPARSABLE}: {problem.removeprefix('.')}")


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
        document, decode, decode_again = read_object(body, _UNDECODABLE)
        _check(document)
        return ParsedBody(
            api=Api.MESSAGES,
            outline=document,
            model=model_of(document),
            streams=document.get("stream") is True,
            output_cap=output_cap(document, ("max_tokens",)),
            rewritable=True,
            usage_reader="anthropic-usage",
            error_shape=ErrorShape.ANTHROPIC,
            decode=decode,
            decode_again=decode_again,
        )


def _create(context: PluginContext, params: NoParams) -> Parser:
    return AnthropicParser()


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.PARSER}),
    summary="Reads Anthropic messages; forwards count_tokens unread.",
    factory=_create,
)
