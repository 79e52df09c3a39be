"""anthropic-parser: messages and count_tokens."""

from __future__ import annotations

from collections.abc import Mapping

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
_BLOCK_MEMBERS: Mapping[str, tuple[type, ...]] = {
    "type": (str,),
    "text": (str,),
    "thinking": (str,),
    "id": (str,),
    "name": (str,),
    "tool_use_id": (str,),
    "source": (dict,),
    "content": (str, list),
}


def _check_content(content: object, where: str) -> None:
    """Text or a list of blocks.

    Raises:
        RequestError: BAD_REQUEST.
    """
    if content is None or type(content) is str:
        return
    if type(content) is not list:
        raise bad_request(f"{_UNPARSABLE}: {where} must be a string or a list of blocks")
    for index, block in enumerate(content):
        if type(block) is not dict:
            raise bad_request(f"{_UNPARSABLE}: {where}[{index}] must be an object")
        for key, kinds in _BLOCK_MEMBERS.items():
            value = block.get(key)
            if value is not None and type(value) not in kinds:
                raise bad_request(f"{_UNPARSABLE}: {where}[{index}].{key} has the wrong type")


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
        if path.rstrip("/ ").endswith(_COUNT_TOKENS):
            return ParsedBody(Api.RAW, skip_response=True, error_shape=ErrorShape.ANTHROPIC)
        document = decode_object(body, _UNDECODABLE)
        self._check(document)
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

    def _check(self, document: Mapping[str, object]) -> None:
        messages = document.get("messages")
        if messages is not None and type(messages) is not list:
            raise bad_request(f"{_UNPARSABLE}: messages must be a list")
        if not messages:
            raise bad_request("invalid messages request: must have at least one message")
        for index, message in enumerate(messages):
            if type(message) is not dict:
                raise bad_request(f"{_UNPARSABLE}: messages[{index}] must be an object")
            role = message.get("role")
            if role is not None and type(role) is not str:
                raise bad_request(f"{_UNPARSABLE}: messages[{index}].role must be a string")
            _check_content(message.get("content"), f"messages[{index}].content")
        _check_content(document.get("system"), "system")
        tools = document.get("tools")
        if tools is not None and not (type(tools) is list and all(type(tool) is dict for tool in tools)):
            raise bad_request(f"{_UNPARSABLE}: tools must be a list of objects")
        salt = document.get("cache_salt")
        if salt is not None and type(salt) is not str:
            raise bad_request(f"{_UNPARSABLE}: cache_salt must be a string")


def _create(context: PluginContext, params: NoParams) -> Parser:
    return AnthropicParser()


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.PARSER}),
    summary="Reads Anthropic messages; forwards count_tokens unread.",
    factory=_create,
)
