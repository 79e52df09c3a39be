"""The prompts of a request as one canonical text, or as token ids.

Driven by the members of the JSON document alone, so that a body can be read before anybody knows which API it is for. What a
chat template prints first comes first: tools, system text, messages. No part begins with a length or a count, so that a
conversation that grows keeps the beginning that it had. A medium counts as the hash of its address or data.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from xxhash import xxh64_hexdigest

from epp.framework.types import Json

TOKEN_BYTES = 4
"""A token id is 32 bits, unsigned."""

_END = b"\x1e"
_FIELD = b"\x1f"
_BILLING = "x-anthropic-billing-header"
"""How a text block begins that differs from request to request and that no engine sees."""
_TEXT_TYPES = (None, "text", "input_text", "output_text")
_MEDIA_TYPES = frozenset(
    {"image_url", "audio_url", "video_url", "input_audio", "input_image", "input_file", "image", "document", "file"}
)
_OF_MEDIUM = ("url", "data", "file_data", "file_id")
_OF_ITEM = ("image_url", "file_data", "file_url", "file_id", "data", "url")
_OF_SOURCE = ("data", "url", "file_id")
_AFTER_CONTENT = ("tool_calls", "tool_call_id", "name", "reasoning", "reasoning_content")
_TEMPLATE = ("chat_template", "chat_template_kwargs", "documents", "add_generation_prompt")
"""They change what is rendered everywhere in a prompt."""


class Prompt(NamedTuple):
    """One prompt of a request."""

    is_tokens: bool
    data: bytes
    """UTF-8, or token ids as 32 bits each."""

    @property
    def length(self) -> int:
        """Bytes of text, or tokens."""
        return len(self.data) // TOKEN_BYTES if self.is_tokens else len(self.data)


def template_of(document: Mapping[str, Json]) -> bytes:
    """The members that change a prompt as a whole, as JSON; b"" if the document has none of them.

    Raises:
        TypeError: as for ``prompts_of``.
    """
    members = [[name, value] for name in _TEMPLATE if (value := document.get(name)) is not None]
    return _json(members) if members else b""


def prompts_of(document: Mapping[str, Json]) -> Iterator[Prompt]:
    """The prompts of a parsed request body, in its order; none if it has no member that a prompt can be in.

    Raises:
        TypeError, UnicodeEncodeError: a part of it cannot be written as JSON in UTF-8.
    """
    find = document.get
    if isinstance(messages := find("messages"), list):
        yield _text(_tools(document), _instructions(find("system")), map(_message, messages))
    elif isinstance(prompt := find("prompt"), (str, list)):
        yield from _plain(prompt)
    elif (given := find("input")) is not None:
        if _is_conversation(document, given):
            said: list[Json] = given if isinstance(given, list) else [{"role": "user", "content": given}]
            yield _text(_tools(document), _instructions(find("instructions")), map(_message, said))
        else:
            yield from _plain(given)
    elif isinstance(items := find("items"), list):
        yield _text((), (), map(_message, items))
    else:
        for name in ("text", "input_ids", "token_ids"):
            if (value := find(name)) is not None:
                yield from _plain(value)
                return


def _is_conversation(document: Mapping[str, Json], given: Json) -> bool:
    """``input`` is that of OpenAI's Responses API, not texts to embed."""
    if document.get("instructions") is not None or document.get("tools") is not None:
        return True
    return isinstance(given, list) and any(isinstance(item, dict) for item in given)


def _plain(value: Json) -> Iterator[Prompt]:
    """A text, token ids, or several of one of both; nothing for anything else."""
    if isinstance(value, str):
        yield Prompt(False, value.encode())
        return
    if not isinstance(value, list) or not value:
        return
    kind = type(value[0])
    if kind is int:
        yield from _tokens([value])
    elif set(map(type, value)) != {kind}:
        return
    elif kind is str:
        yield from [Prompt(False, text.encode()) for text in value]
    elif kind is list:
        yield from _tokens(value)


def _tokens(lists: Sequence[Sequence[Any]]) -> list[Prompt]:
    """A prompt of each list; none at all if an item of one is no token id."""
    prompts = []
    for ids in lists:
        if ids and set(map(type, ids)) != {int}:
            return []
        try:
            prompts.append(Prompt(True, token_bytes(array("I", ids))))
        except OverflowError:
            return []
    return prompts


def _text(*groups: Iterable[bytes]) -> Prompt:
    return Prompt(False, b"".join([piece for group in groups for part in group for piece in (part, _END)]))


def _tools(document: Mapping[str, Json]) -> Iterator[bytes]:
    for name in ("tools", "functions"):
        tools = document.get(name)
        if isinstance(tools, list) and tools:
            yield _json(tools)


def _instructions(value: Json) -> Iterator[bytes]:
    """A system text, or its blocks."""
    if isinstance(value, str):
        yield value.encode()
    elif isinstance(value, list):
        yield b"".join([_item(item) for item in value if not (_text_of(item) or "").startswith(_BILLING)])


def _message(message: Json) -> bytes:
    if isinstance(message, str):
        return message.encode()
    if not isinstance(message, dict) or "content" not in message:
        return _json(message)
    role = message.get("role")
    parts = [role.encode() if isinstance(role, str) else b"", _FIELD, _content(message["content"])]
    for name in _AFTER_CONTENT:
        if (value := message.get(name)) is not None:
            parts += (_FIELD, _json(value))
    return b"".join(parts)


def _content(content: Json) -> bytes:
    if isinstance(content, str):
        return content.encode()
    if content is None:
        return b""
    return b"".join(map(_item, content)) if isinstance(content, list) else _json(content)


def _item(item: Json) -> bytes:
    """A piece of content: its text, the hash of its medium, or else all of it."""
    text = _text_of(item)
    if text is not None:
        return text.encode()
    if isinstance(item, dict) and isinstance(kind := item.get("type"), str) and kind in _MEDIA_TYPES:
        medium = _medium(item, kind)
        if medium is not None:
            return f"{kind}:{xxh64_hexdigest(medium.encode())}".encode()
    return _json(item)


def _text_of(item: Json) -> str | None:
    if isinstance(item, str):
        return item
    if isinstance(item, dict) and isinstance(text := item.get("text"), str) and item.get("type") in _TEXT_TYPES:
        return text
    return None


def _medium(item: Mapping[str, Json], kind: str) -> str | None:
    """What tells a medium from others: where it is, or its data."""
    own, source = item.get(kind), item.get("source")
    values: list[Json] = [own]
    if isinstance(own, dict):
        values += map(own.get, _OF_MEDIUM)
    values += map(item.get, _OF_ITEM)
    if isinstance(source, dict):
        values += map(source.get, _OF_SOURCE)
    return next((value for value in values if isinstance(value, str)), None)


def _json(value: Json) -> bytes:
    """Compact, members in their own order."""
    return orjson.dumps(value)


def token_bytes(ids: Sequence[int]) -> bytes:
    """Token ids as 32 bits each, little endian.

    Raises:
        OverflowError: one does not fit.
        struct.error: the same.
    """
    if isinstance(ids, array) and ids.itemsize == TOKEN_BYTES and _IS_LITTLE:
        return ids.tobytes()
    return struct.pack(f"<{len(ids)}I", *ids)


_IS_LITTLE = array("I", [1]).tobytes()[0] == 1
