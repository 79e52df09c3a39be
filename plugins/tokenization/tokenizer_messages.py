"""Messages of the tokenizer service: a conversation as its requests, and what all its answers have in common.

Only ``render_uds`` imports this module, when it is started: it loads protobuf.
Source: llm-d-kv-cache: api/tokenizerpb/tokenizer.proto; ours: protos/tokenizer.proto.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import orjson

from epp.framework.protos import tokenizer_pb2 as pb
from epp.framework.types import Json
from plugins.tokenization.chat import Chat, Message


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
    return pb.InitializeTokenizerRequest(model_name=model, add_generation_prompt=True).SerializeToString()


def tokenize(model: str, text: str, *, special: bool) -> bytes:
    """TokenizeRequest."""
    return pb.TokenizeRequest(input=_utf8(text), model_name=model, add_special_tokens=special).SerializeToString()


def render_completion(model: str, prompt: str) -> bytes:
    """RenderCompletionRequest."""
    return pb.RenderCompletionRequest(model_name=model, prompt=_utf8(prompt)).SerializeToString()


def render_chat(model: str, chat: Chat) -> bytes:
    """RenderChatCompletionRequest."""
    return pb.RenderChatCompletionRequest(
        model_name=model,
        messages=map(_message, chat.messages),
        tools_json=_json(chat.tools),
        chat_template=_utf8(chat.template),
        add_generation_prompt=chat.add_generation_prompt,
        continue_final_message=chat.continue_final_message,
        chat_template_kwargs=_json(chat.template_options),
    ).SerializeToString()


def chat_template(model: str, chat: Chat) -> bytes:
    """ChatTemplateRequest, of services that know no RenderChatCompletion."""
    return pb.ChatTemplateRequest(
        conversation_turns=[pb.ConversationTurn(messages=map(_message, chat.messages))],
        tools=[pb.ToolDescription(tool=_values(tool)) for tool in chat.tools if isinstance(tool, dict)],
        documents=[pb.Document(document=_values(document)) for document in chat.documents if isinstance(document, dict)],
        chat_template=_utf8(chat.template),
        continue_final_message=chat.continue_final_message,
        add_generation_prompt=chat.add_generation_prompt,
        chat_template_kwargs=_values(chat.template_options),
        model_name=model,
    ).SerializeToString()


# ── answers; all raise DecodeError for bytes that are no such message ──


def read_initialized(data: bytes) -> Answer:
    """InitializeTokenizerResponse."""
    read = pb.InitializeTokenizerResponse.FromString(data)
    return Answer(success=read.success, error=read.error_message)


def read_tokenized(data: bytes) -> Answer:
    """TokenizeResponse."""
    read = pb.TokenizeResponse.FromString(data)
    return Answer(array("I", read.input_ids), success=read.success, error=read.error_message)


def read_template(data: bytes) -> Answer:
    """ChatTemplateResponse."""
    read = pb.ChatTemplateResponse.FromString(data)
    return Answer(text=read.rendered_prompt, success=read.success, error=read.error_message)


def read_completion(data: bytes) -> Answer:
    """RenderCompletionResponse."""
    read = pb.RenderCompletionResponse.FromString(data)
    return Answer(array("I", read.token_ids), success=read.success, error=read.error_message)


def read_chat(data: bytes) -> Answer:
    """RenderChatCompletionResponse."""
    read = pb.RenderChatCompletionResponse.FromString(data)
    media = read.features
    return Answer(
        array("I", read.token_ids),
        success=read.success,
        error=read.error_message,
        hashes={modality: list(hashes.values) for modality, hashes in media.mm_hashes.items()},
        ranges={
            modality: [(place.offset, place.length) for place in places.ranges]
            for modality, places in media.mm_placeholders.items()
        },
    )


# ── parts of requests ──


def _message(message: Message) -> pb.ChatMessage:
    """The content as one text or as parts; members that the message has no field for are not sent."""
    content, calls = message.get("content"), message.get("tool_calls")
    made = pb.ChatMessage(role=_utf8(str(message.get("role", ""))), tool_calls_json=_json(calls))
    if isinstance(content, list):
        made.content_parts.extend(_parts(content))
    else:
        made.content = _utf8(content) if isinstance(content, str) else ""
    return made


def _parts(content: list[Json]) -> Iterable[pb.ContentPart]:
    """Those of the two kinds that there are."""
    for part in content:
        if not isinstance(part, dict):
            continue
        text, image = part.get("text"), part.get("image_url")
        if isinstance(text, str):
            yield pb.ContentPart(type="text", text=_utf8(text))
        elif isinstance(image, dict) and isinstance(image.get("url"), str):
            yield pb.ContentPart(type="image_url", image_url=pb.ImageUrl(url=_utf8(image["url"])))


def _values(members: Mapping[str, Json]) -> dict[str, pb.Value]:
    return {_utf8(name): _value(value) for name, value in members.items()}


def _value(value: Json) -> pb.Value:
    """It knows no null, which is a value of no kind."""
    match value:
        case str():
            return pb.Value(string_value=_utf8(value))
        case bool():
            return pb.Value(bool_value=value)
        case int() | float():
            return pb.Value(number_value=value)
        case list() | tuple():
            return pb.Value(list_value=pb.ListValue(values=map(_value, value)))
        case dict():
            return pb.Value(struct_value=pb.StructValue(fields=_values(value)))
        case _:
            return pb.Value()


def _json(value: Json) -> str | None:
    """None, which leaves the field out, for what is empty."""
    return orjson.dumps(value).decode() if value else None


def _utf8(text: str) -> str:
    """Text that protobuf takes: half a surrogate pair becomes a question mark."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
