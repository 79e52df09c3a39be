"""From request bodies to what a model would see: bytes whose common prefixes are those of the conversations.

Text is kept as it is; pictures, sound and tools become short markers, so that equal ones are equal and none is long.
"""

from __future__ import annotations

from array import array
from hashlib import blake2b
from typing import Any

import orjson

from epp.simulate.exchange import Json, bad_request

_ASSISTANT = b"<|assistant|>"
_MAX_TOKEN_ID = 2**32 - 1


def chat_prompt(body: Json) -> bytes:
    """Prompt of a chat completion.

    Raises:
        ApiError: ``messages`` is missing or of the wrong shape.
    """
    return _tools(body) + _turns(_messages(body)) + _ASSISTANT


def messages_prompt(body: Json) -> bytes:
    """Prompt of an Anthropic message.

    Raises:
        ApiError: ``messages`` is missing or of the wrong shape.
    """
    system = body.get("system")
    head = b"<|system|>" + _content(system, "system") if system else b""
    return _tools(body) + head + _turns(_messages(body)) + _ASSISTANT


def responses_prompt(body: Json) -> bytes:
    """Prompt of a Responses API request.

    Raises:
        ApiError: ``input`` is missing or of the wrong shape.
    """
    given = body.get("input")
    instructions = body.get("instructions")
    head = b"<|system|>" + _text(instructions, "instructions") if instructions else b""
    if isinstance(given, str):
        return _tools(body) + head + b"<|user|>" + _encode(given) + _ASSISTANT
    if not isinstance(given, list):
        raise bad_request("input must be a string or a list", "input")
    return _tools(body) + head + b"".join(_item(item) for item in given) + _ASSISTANT


def text_prompts(value: Any, param: str) -> list[bytes]:
    """The prompts of a completion or an embedding: a text, a list of texts, token ids, or a list of lists of token ids.

    Raises:
        ApiError: the value is none of these, or empty.
    """
    if isinstance(value, str) and value:
        return [_encode(value)]
    if isinstance(value, list) and value:
        if all(isinstance(item, str) for item in value):
            return [_encode(item) for item in value]
        if all(isinstance(item, int) for item in value):
            return [_token_ids(value, param)]
        if all(isinstance(item, list) and item for item in value):
            return [_token_ids(item, param) for item in value]
    raise bad_request(f"{param} must be a non-empty string, a list of strings or a list of token ids", param)


def _messages(body: Json) -> list[Json]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise bad_request("messages must be a non-empty list", "messages")
    if not all(isinstance(message, dict) for message in messages):
        raise bad_request("each of messages must be an object", "messages")
    return messages


def _turns(messages: list[Json]) -> bytes:
    parts = []
    for message in messages:
        role = message.get("role")
        if not isinstance(role, str) or not role:
            raise bad_request("each of messages must have a role", "messages")
        parts.append(b"<|%b|>" % _encode(role))
        parts.append(_content(message.get("content"), "messages"))
        if message.get("tool_calls"):
            parts.append(orjson.dumps(message["tool_calls"]))
    return b"".join(parts)


def _item(item: Any) -> bytes:
    """One element of the Responses API's ``input``: a message, or anything else."""
    if not isinstance(item, dict):
        raise bad_request("each of input must be an object", "input")
    if "role" not in item:
        return orjson.dumps(item)
    return b"<|%b|>" % _text(item["role"], "input") + _content(item.get("content"), "input")


def _content(content: Any, param: str) -> bytes:
    if content is None:
        return b""
    if isinstance(content, str):
        return _encode(content)
    if isinstance(content, list):
        return b"".join(_part(part, param) for part in content)
    raise bad_request(f"the content of {param} must be a string or a list of parts", param)


def _part(part: Any, param: str) -> bytes:
    if not isinstance(part, dict):
        raise bad_request(f"each part of the content of {param} must be an object", param)
    text = part.get("text")
    if text is not None:
        return _text(text, param)
    return b"<|%b|>" % blake2b(orjson.dumps(part), digest_size=32).hexdigest().encode()


def _tools(body: Json) -> bytes:
    tools = body.get("tools")
    if tools is None:
        return b""
    if not isinstance(tools, list):
        raise bad_request("tools must be a list", "tools")
    return b"<|tools|>" + orjson.dumps(tools) if tools else b""


def _token_ids(ids: list[Any], param: str) -> bytes:
    if not all(isinstance(item, int) and not isinstance(item, bool) and 0 <= item <= _MAX_TOKEN_ID for item in ids):
        raise bad_request(f"the token ids of {param} must be whole numbers from 0 to {_MAX_TOKEN_ID}", param)
    return array("I", ids).tobytes()


def _text(value: Any, param: str) -> bytes:
    if not isinstance(value, str):
        raise bad_request(f"{param} has a text that is not a string", param)
    return _encode(value)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
