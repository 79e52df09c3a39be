"""Anthropic messages as a conversation of chat completions, as vLLM converts them before it applies its template.

Source: llm-d-router: pkg/epp/framework/plugins/requestcontrol/dataproducer/tokenizer/tokenizer.go
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from epp.framework.types import Json

Message = dict[str, Json]
_BILLING = "x-anthropic-billing-header"
"""Begins a text of Claude Code that differs with each request; engines leave it out."""
_UNKNOWN_CALL = "call_0000000000"
"""Of the length that generated ids have."""


def messages(document: Mapping[str, Json]) -> list[Message]:
    """The conversation, the system prompt first."""
    found: list[Message] = []
    if system := system_text(document.get("system")):
        found.append({"role": "system", "content": system})
    for message in _dicts(document.get("messages")):
        found += _converted(message)
    return found


def tools(document: Mapping[str, Json]) -> list[Json]:
    """The tools as functions."""
    return [{"type": "function", "function": _function(tool)} for tool in _dicts(document.get("tools"))]


def system_text(content: Json) -> str:
    """The text of a system prompt: its blocks joined with nothing between them."""
    if isinstance(content, str):
        return content
    texts = (_text(block, "text") for block in _dicts(content) if block.get("type") == "text")
    return "".join(text for text in texts if not text.startswith(_BILLING))


def image_url(source: Json) -> str:
    """The URL of an image's source, a ``data:`` URL for what is in the request; "" if there is none."""
    if not isinstance(source, dict):
        return ""
    if url := _text(source, "url"):
        return url
    data = _text(source, "data")
    return f"data:{_text(source, 'media_type') or 'image/jpeg'};base64,{data}" if data else ""


def tool_result(block: Mapping[str, Json]) -> tuple[str, list[Message]]:
    """The text of a tool's result, and its images as content parts."""
    content = block.get("content")
    if isinstance(content, str):
        return content, []
    texts = [_text(item, "text") for item in _dicts(content) if item.get("type") == "text"]
    return "\n".join(texts), [part for item in _dicts(content) for part in _image(item)]


def _converted(message: Message) -> Iterator[Message]:
    role, content = _text(message, "role"), message.get("content")
    if role == "system":
        if text := system_text(content):
            yield {"role": role, "content": text}
        return
    if isinstance(content, str):
        yield {"role": role, "content": content}
        return
    parts: list[Message] = []
    calls: list[Json] = []
    reasoning = ""
    for block in _dicts(content):
        match block.get("type"):
            case "text" if text := _text(block, "text"):
                parts.append({"type": "text", "text": text})
            case "image":
                parts += _image(block)
            case "thinking":
                reasoning += _text(block, "thinking")
            case "tool_use":
                calls.append(_call(block))
            case "tool_result" if role == "user":
                yield from _result_messages(block)
            case "tool_result":
                parts.append({"type": "text", "text": f"Tool result: {tool_result(block)[0]}"})
    yield from _message(role, parts, calls, reasoning)


def _message(role: str, parts: list[Message], calls: list[Json], reasoning: str) -> Iterator[Message]:
    message: Message = {"role": role}
    if len(parts) == 1 and parts[0]["type"] == "text":
        message["content"] = parts[0]["text"]
    elif parts:
        message["content"] = parts
    elif role == "user":
        return  # results of tools alone, which have messages of their own
    if calls:
        message["tool_calls"] = calls
    if reasoning:
        message["reasoning"] = reasoning
    yield message


def _result_messages(block: Message) -> Iterator[Message]:
    text, images = tool_result(block)
    yield {"role": "tool", "tool_call_id": _text(block, "tool_use_id"), "content": text}
    if images:
        yield {"role": "user", "content": images}


def _image(block: Mapping[str, Json]) -> list[Message]:
    url = image_url(block.get("source")) if block.get("type") == "image" else ""
    return [{"type": "image_url", "image_url": {"url": url}}] if url else []


def _call(block: Message) -> Message:
    # Exactly what json.dumps prints is what engines render.
    arguments = json.dumps(block.get("input") or {})
    call_id = _text(block, "id") or _UNKNOWN_CALL
    return {"id": call_id, "type": "function", "function": {"name": _text(block, "name"), "arguments": arguments}}


def _function(tool: Message) -> Message:
    function: Message = {"name": _text(tool, "name"), "parameters": tool.get("input_schema") or {"type": "object"}}
    if description := _text(tool, "description"):
        function["description"] = description
    for name in ("strict", "defer_loading"):
        if tool.get(name) is not None:
            function[name] = tool[name]
    return function


def _dicts(items: Json) -> Iterator[Message]:
    return (item for item in items if isinstance(item, dict)) if isinstance(items, list) else iter(())


def _text(item: Mapping[str, Json], name: str) -> str:
    value = item.get(name)
    return value if isinstance(value, str) else ""
