"""What there is to tokenize in a body: texts, a conversation, or tokens that the client sent itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from epp.framework.types import Api, Json, ParsedBody
from plugins.tokenization import from_anthropic, from_responses

Message = Mapping[str, Json]
TEXT_TYPES = frozenset({"", "text", "input_text", "output_text", "refusal", "thinking"})
"""Types of content parts that are texts, "" where none is given; of others only the engine's processor knows the tokens."""


_BARE_MEDIA = ("image_url", "audio_url", "video_url", "input_audio")
"""Members by which vLLM knows a part without a type."""
_YES = frozenset({"true", "1", "yes", "on", "t", "y"})
"""Source: pydantic, conversion table of its lax mode."""


class Texts(NamedTuple):
    """Prompts of a completion; each is a sequence of tokens of its own."""

    prompts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation in the form of OpenAI's chat completions."""

    messages: Sequence[Message]
    tools: Sequence[Json] = ()
    documents: Sequence[Json] = ()
    template: str = ""
    """The client's own; "" = the model's."""
    template_options: Mapping[str, Json] = field(default_factory=dict)
    add_generation_prompt: bool = True
    """Engines add it unless told otherwise."""
    continue_final_message: bool = False

    @property
    def has_media(self) -> bool:
        """Some message has a part that is no text."""
        return any(_kind(part) not in TEXT_TYPES for message in self.messages for part in _parts(message))


def part_kind(part: Mapping[str, Json]) -> str:
    """The type of a content part; where none is given the media that it holds, "" for none."""
    kind = part.get("type")
    if isinstance(kind, str):
        return kind
    return next((name for name in _BARE_MEDIA if name in part), "")


def prompt_of(body: ParsedBody) -> Texts | Chat | None:
    """What has to be tokenized; None if there is nothing to."""
    document = body.document
    match body.api:
        case Api.COMPLETIONS:
            return _texts(document.get("prompt"))
        case Api.EMBEDDINGS:
            return _texts(document.get("input")) or _chat(document, generates=False)
        case Api.GENERATE:
            return _texts(document.get("text"))
        case Api.CHAT:
            return _chat(document)
        case Api.MESSAGES:
            return Chat(from_anthropic.messages(document), from_anthropic.tools(document))
        case Api.RESPONSES:
            return Chat(from_responses.messages(document), from_responses.tools(document))
        case _:
            return None


def client_tokens(body: ParsedBody) -> Sequence[Sequence[int]]:
    """Token ids that the client sent instead of text, one sequence for each prompt; () if it sent text.

    A long body is decoded only if it has some.
    """
    found = _token_lists(_instead_of_text(body.api, body.outline))
    return found if body.decode is None or not found else _token_lists(_instead_of_text(body.api, body.document))


def _instead_of_text(api: Api, document: Mapping[str, Json]) -> Json:
    """The member that may hold token ids."""
    match api:
        case Api.COMPLETIONS:
            return document.get("prompt")
        case Api.EMBEDDINGS:
            return document.get("input")
        case Api.GENERATE:
            return document.get("token_ids", document.get("input_ids"))
        case _:
            return None


def _token_lists(ids: Json) -> Sequence[Sequence[int]]:
    if not isinstance(ids, list) or not ids:
        return ()
    prompts = ids if isinstance(ids[0], list) else [ids]
    return prompts if all(map(_is_tokens, prompts)) else ()


def _is_tokens(ids: Json) -> bool:
    return isinstance(ids, list) and bool(ids) and all(type(token) is int and 0 <= token < 2**32 for token in ids)


def _texts(prompt: Json) -> Texts | None:
    if isinstance(prompt, str):
        return Texts((prompt,))
    if isinstance(prompt, list) and prompt and all(isinstance(text, str) for text in prompt):
        return Texts(tuple(prompt))
    return None


def _chat(document: Mapping[str, Json], *, generates: bool = True) -> Chat | None:
    messages = document.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return None
    tools, documents, template = document.get("tools"), document.get("documents"), document.get("chat_template")
    options = document.get("chat_template_kwargs")
    return Chat(
        [_with_parts(message) for message in messages],
        tools=tools if isinstance(tools, list) else (),
        documents=documents if isinstance(documents, list) else (),
        template=template if isinstance(template, str) else "",
        template_options=options if isinstance(options, dict) else {},
        add_generation_prompt=_is_set(document.get("add_generation_prompt"), default=generates),
        continue_final_message=_is_set(document.get("continue_final_message"), default=False),
    )


def _with_parts(message: Message) -> Message:
    """Bare texts among the parts as parts of their own, as vLLM shows them to its templates."""
    content = message.get("content")
    if not isinstance(content, list) or not any(isinstance(part, str) for part in content):
        return message
    parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in content]
    return {**message, "content": parts}


def _is_set(value: Json, *, default: bool) -> bool:
    """A flag, also as engines read it from numbers and words."""
    if isinstance(value, str):
        return value.lower() in _YES
    return bool(value) if isinstance(value, (bool, int, float)) else default


def _parts(message: Message) -> Sequence[Json]:
    content = message.get("content")
    return content if isinstance(content, list) else ()


def _kind(part: Json) -> str:
    return part_kind(part) if isinstance(part, dict) else ""
