"""The text of a prompt, and a guess of its length in tokens, for plugins that need no exact tokens.

Every API's own text counts, also that of content blocks; media, tools and other structure do not.
Source: llm-d-router: pkg/epp/framework/interface/requesthandling, PlainText.
"""

from __future__ import annotations

from collections.abc import Iterator

from epp.framework.data import RequestData
from epp.framework.keys import TOKENIZED_PROMPT
from epp.framework.types import Api, InferenceRequest, Json, ParsedBody

BYTES_PER_TOKEN = 4
"""Usual for English text in today's vocabularies; the figure that all length hints upstream use."""


def plain_text(body: ParsedBody) -> str:
    """The text of the prompt: strings as they are, each content block followed by a blank; "" for token ids."""
    return "".join(_texts(body))


def text_bytes(body: ParsedBody) -> int:
    """Length of ``plain_text`` in UTF-8, without building it."""
    return sum([len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass")) for text in _texts(body)])


def token_estimate(body: ParsedBody) -> int:
    """Tokens of the prompt: the number of token ids where the client sent those, else a quarter of the text's bytes."""
    ids = _token_ids(body)
    return len(ids) if ids is not None else text_bytes(body) // BYTES_PER_TOKEN


def prompt_tokens(request: InferenceRequest) -> int:
    """Tokens of the prompt: counted if a producer tokenized it, else estimated."""
    tokenized = _tokenized(request.data)
    return tokenized or token_estimate(request.body)


def _tokenized(data: RequestData) -> int:
    prompt = data.get(TOKENIZED_PROMPT)
    return prompt.count if prompt is not None else 0


def _token_ids(body: ParsedBody) -> list[Json] | None:
    """The client's own token ids: a list of numbers, or a list of such lists as one."""
    match body.api:
        case Api.COMPLETIONS:
            prompt = body.document.get("prompt")
        case Api.EMBEDDINGS:
            prompt = body.document.get("input")
        case Api.GENERATE:
            prompt = body.document.get("token_ids", body.document.get("input_ids"))
        case _:
            return None
    if not isinstance(prompt, list) or not prompt:
        return None
    return prompt if isinstance(prompt[0], (int, float)) else None


def _texts(body: ParsedBody) -> Iterator[str]:
    document = body.document
    match body.api:
        case Api.COMPLETIONS | Api.IMAGES:
            yield from _prompt(document.get("prompt"))
        case Api.EMBEDDINGS:
            yield from _prompt(document.get("input"))
        case Api.CHAT:
            yield from _messages(document.get("messages"))
        case Api.MESSAGES:
            yield from _content(document.get("system"))
            yield from _messages(document.get("messages"))
        case Api.RESPONSES:
            yield from _content(document.get("instructions"))
            items = document.get("input")
            yield from _content(items) if isinstance(items, str) else _messages(items)
        case Api.CONVERSATIONS:
            yield from _messages(document.get("items"))
        case Api.GENERATE | Api.RAW:
            return


def _prompt(prompt: Json) -> Iterator[str]:
    """A string, or several joined by a blank."""
    if isinstance(prompt, str):
        yield prompt
    elif isinstance(prompt, list) and all(isinstance(text, str) for text in prompt):
        yield " ".join(prompt)


def _messages(messages: Json) -> Iterator[str]:
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict):
            yield from _content(message.get("content"))


def _content(content: Json) -> Iterator[str]:
    """A string, or the text blocks of a list."""
    if isinstance(content, str):
        yield content
        return
    for block in content if isinstance(content, list) else ():
        text = block.get("text") if isinstance(block, dict) else None
        if isinstance(text, str):
            yield text
            yield " "
