"""Messages of the tokenizer service ``tokenization.TokenizationService``, written and read without generated classes.

Each function is one message; field numbers are those of llm-d-kv-cache: api/tokenizerpb/tokenizer.proto.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import orjson

from epp.framework.grpc_wire import fields, packed_uint32
from epp.framework.types import Json
from plugins.tokenization.chat import Chat, Message

_LENGTH, _FIXED64 = 2, 1


@dataclass(slots=True)
class Answer:
    """What all answers have in common."""

    tokens: array[int] = field(default_factory=lambda: array("I"))
    text: str = ""
    success: bool = False
    error: str = ""
    hashes: dict[str, list[str]] = field(default_factory=dict)
    ranges: dict[str, list[tuple[int, int]]] = field(default_factory=dict)


# ── requests ──


def initialize(model: str) -> bytes:
    """InitializeTokenizerRequest."""
    return _text(1, model) + _number(3, 1)


def tokenize(model: str, text: str, *, special: bool) -> bytes:
    """TokenizeRequest."""
    return _text(1, text) + _text(2, model) + _number(3, special)


def render_completion(model: str, prompt: str) -> bytes:
    """RenderCompletionRequest."""
    return _text(1, model) + _text(2, prompt)


def render_chat(model: str, chat: Chat) -> bytes:
    """RenderChatCompletionRequest."""
    parts = [_text(1, model), *(_bytes(2, _message(message)) for message in chat.messages)]
    if chat.tools:
        parts.append(_bytes(3, orjson.dumps(chat.tools)))
    parts += [_text(4, chat.template), _field_number(5, chat.add_generation_prompt), _number(6, chat.continue_final_message)]
    if chat.template_options:
        parts.append(_bytes(7, orjson.dumps(chat.template_options)))
    return b"".join(parts)


def chat_template(model: str, chat: Chat) -> bytes:
    """ChatTemplateRequest, of services that know no RenderChatCompletion."""
    turn = b"".join(_bytes(1, _message(message)) for message in chat.messages)
    parts = [_bytes(1, turn)]
    parts += [_bytes(2, _map(1, tool)) for tool in chat.tools if isinstance(tool, dict)]
    parts += [_bytes(3, _map(1, document)) for document in chat.documents if isinstance(document, dict)]
    parts += [_text(4, chat.template), _number(6, chat.continue_final_message), _number(7, chat.add_generation_prompt)]
    return b"".join([*parts, _map(8, chat.template_options), _text(9, model)])


# ── answers ──


def read_initialized(data: bytes) -> Answer:
    """InitializeTokenizerResponse."""
    return _read(data, success=1, error=2)


def read_tokenized(data: bytes) -> Answer:
    """TokenizeResponse."""
    return _read(data, tokens=1, success=2, error=3)


def read_template(data: bytes) -> Answer:
    """ChatTemplateResponse."""
    return _read(data, text=1, success=2, error=3)


def read_completion(data: bytes) -> Answer:
    """RenderCompletionResponse."""
    return _read(data, tokens=2, success=3, error=4)


def read_chat(data: bytes) -> Answer:
    """RenderChatCompletionResponse."""
    return _read(data, tokens=2, features=3, success=4, error=5)


def _read(data: bytes, *, tokens: int = -1, text: int = -1, features: int = -1, success: int = -1, error: int = -1) -> Answer:
    answer = Answer()
    for number, value in fields(memoryview(data)):
        if number == tokens:
            answer.tokens.extend([value] if isinstance(value, int) else packed_uint32(value))
        elif number == success:
            answer.success = bool(value)
        elif not isinstance(value, memoryview):
            continue
        elif number == text:
            answer.text = str(value, "utf-8")
        elif number == error:
            answer.error = str(value, "utf-8", "replace")
        elif number == features:
            _read_features(value, answer)
    return answer


def _read_features(message: memoryview, answer: Answer) -> None:
    for number, entry in fields(message):
        if not isinstance(entry, memoryview):
            continue
        members = dict(fields(entry))
        modality, content = members.get(1, memoryview(b"")), members.get(2, memoryview(b""))
        if isinstance(modality, int) or isinstance(content, int):
            continue
        name = str(modality, "utf-8")
        items = [item for _, item in fields(content) if isinstance(item, memoryview)]
        if number == 1:
            answer.hashes[name] = [str(item, "utf-8") for item in items]
        elif number == 2:
            answer.ranges[name] = [_range(item) for item in items]


def _range(message: memoryview) -> tuple[int, int]:
    members = {number: value for number, value in fields(message) if isinstance(value, int)}
    return members.get(1, 0), members.get(2, 0)


# ── encoding ──


def _message(message: Message) -> bytes:
    """ChatMessage: the content as one text or as parts; members that it has no field for are not sent."""
    content, calls = message.get("content"), message.get("tool_calls")
    parts = [_text(1, str(message.get("role", "")))]
    if isinstance(content, list):
        parts += [_bytes(3, encoded) for part in content if isinstance(part, dict) for encoded in _part(part)]
    else:
        parts.append(_bytes(2, content.encode() if isinstance(content, str) else b""))
    if calls:
        parts.append(_bytes(4, orjson.dumps(calls)))
    return b"".join(parts)


def _part(part: Mapping[str, Json]) -> Iterator[bytes]:
    """ContentPart, of the two kinds that there are."""
    text, image = part.get("text"), part.get("image_url")
    if isinstance(text, str):
        yield _text(1, "text") + _bytes(2, text.encode())
    elif isinstance(image, dict) and isinstance(image.get("url"), str):
        yield _text(1, "image_url") + _bytes(3, _text(1, image["url"]))


def _map(number: int, members: Mapping[str, Json]) -> bytes:
    """A field ``map<string, Value>``."""
    return b"".join(_bytes(number, _text(1, name) + _bytes(2, _value(value))) for name, value in members.items())


def _value(value: Json) -> bytes:
    """Value; it knows no null."""
    match value:
        case str():
            return _bytes(1, value.encode())
        case bool():
            return _field_number(3, value)
        case int() | float():
            return _varint(2 << 3 | _FIXED64) + struct.pack("<d", value)
        case list() | tuple():
            return _bytes(4, b"".join(_bytes(1, _value(item)) for item in value))
        case dict():
            return _bytes(5, _map(1, value))
        case _:
            return b""


def _text(number: int, text: str) -> bytes:
    """A field of text; "" is the default, which is not written."""
    return _bytes(number, text.encode("utf-8", "replace")) if text else b""


def _number(number: int, value: int) -> bytes:
    """A field of a number or a boolean; 0 is the default, which is not written."""
    return _field_number(number, value) if value else b""


def _field_number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(int(value))


def _bytes(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
