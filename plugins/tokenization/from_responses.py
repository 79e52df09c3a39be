"""Requests of the OpenAI Responses API as a conversation of chat completions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from epp.framework.types import Json

Message = dict[str, Json]
_TEXTS = frozenset({"input_text", "output_text", "text"})


def messages(document: Mapping[str, Json]) -> list[Message]:
    """The conversation, the instructions first as a message of the system."""
    found: list[Message] = []
    instructions = document.get("instructions")
    if isinstance(instructions, str) and instructions:
        found.append({"role": "system", "content": instructions})
    items = document.get("input")
    if isinstance(items, str):
        found.append({"role": "user", "content": items})
        return found
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict):
            found += _converted(item)
    return found


def tools(document: Mapping[str, Json]) -> list[Json]:
    """The functions; tools that the server runs itself are not part of a prompt."""
    found = document.get("tools")
    functions = (tool for tool in found if isinstance(tool, dict)) if isinstance(found, list) else ()
    return [
        {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}
        for tool in functions
        if tool.get("type") == "function"
    ]


def _converted(item: Message) -> Iterator[Message]:
    match item.get("type", "message"):
        case "message":
            yield {"role": item.get("role", "user"), "content": _content(item.get("content"))}
        case "function_call":
            function = {"name": item.get("name", ""), "arguments": item.get("arguments", "{}")}
            call: Message = {"id": item.get("call_id", ""), "type": "function", "function": function}
            yield {"role": "assistant", "content": None, "tool_calls": [call]}
        case "function_call_output":
            yield {"role": "tool", "tool_call_id": item.get("call_id", ""), "content": _content(item.get("output"))}


def _content(content: Json) -> Json:
    """A text as one; with anything else in it the list of its parts."""
    if not isinstance(content, list):
        return content
    parts = [_part(part) for part in content if isinstance(part, dict)]
    if len(parts) == 1 and parts[0].get("type") == "text":
        return parts[0]["text"]
    return parts


def _part(part: Message) -> Message:
    kind = part.get("type")
    if kind in _TEXTS:
        return {"type": "text", "text": part.get("text", "")}
    if kind == "input_image":
        return {"type": "image_url", "image_url": {"url": part.get("image_url", "")}}
    return part
