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
    """Tokens of the prompts: the number of token ids where the client sent those, else a quarter of the text's bytes."""
    count = sum([_token_count(value) for value in _prompt_values(body)])
    return count or text_bytes(body) // BYTES_PER_TOKEN


def prompt_tokens(request: InferenceRequest) -> int:
    """Tokens of the prompt: counted if a producer tokenized it, else estimated."""
    tokenized = _tokenized(request.data)
    return tokenized or token_estimate(request.body)


def _tokenized(data: RequestData) -> int:
    prompt = data.get(TOKENIZED_PROMPT)
    return prompt.count if prompt is not None else 0


def _prompt_values(body: ParsedBody) -> list[Json]:
    """Members that may hold token ids instead of text."""
    document = body.document
    match body.api:
        case Api.COMPLETIONS:
            return [document.get("prompt")]
        case Api.EMBEDDINGS:
            return [document.get("input")]
        case Api.GENERATE:
            return [document.get("token_ids", document.get("input_ids"))]
        case Api.POOLING | Api.TOKENIZE:
            return [document.get(name) for name in _POOLED]
        case _:
            return []


def _token_count(value: Json) -> int:
    """Of a list of token ids, or of a list of such lists; 0 for anything else."""
    if not isinstance(value, list) or not value:
        return 0
    lists = value if isinstance(value[0], list) else [value]
    return sum([len(ids) for ids in lists if isinstance(ids, list) and ids and isinstance(ids[0], (int, float))])


_POOLED = ("query", "queries", "documents", "items", "text_1", "text_2", "data_1", "data_2", "input", "prompt", "tokens")
"""Where requests of pooling and tokenizing have their texts. Source: vllm: vllm/entrypoints/pooling/scoring/protocol.py."""


def _texts(body: ParsedBody) -> Iterator[str]:
    document = body.document
    match body.api:
        case Api.COMPLETIONS | Api.IMAGES:
            yield from _prompt(document.get("prompt"))
        case Api.EMBEDDINGS:
            yield from _prompt(document.get("input"))
            yield from _messages(document.get("messages"))
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
        case Api.GENERATE:
            yield from _prompt(document.get("text"))
        case Api.POOLING | Api.TOKENIZE:
            for name in _POOLED:
                yield from _pooled(document.get(name))
            yield from _messages(document.get("messages"))
        case Api.AUDIO:
            yield from _prompt(document.get("input"))
            yield from _prompt(document.get("prompt"))
        case Api.RAW:
            return


def _prompt(prompt: Json) -> Iterator[str]:
    """A string, several joined by a blank, or objects with a text; nothing for token ids."""
    if isinstance(prompt, str):
        yield prompt
    elif isinstance(prompt, list) and all(isinstance(text, str) for text in prompt):
        yield " ".join(prompt)
    elif isinstance(prompt, list) and isinstance(prompt[0], dict):
        yield from _content(prompt)


def _pooled(value: Json) -> Iterator[str]:
    """A string, an object with a text or content, a list of parts, or several of them; nothing for token ids."""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, (int, float)):
            return
        if isinstance(item, list):
            yield from _content(item if item and isinstance(item[0], dict) else None)
            continue
        yield from _content([item])
        if isinstance(item, dict):
            yield from _content(item.get("content"))


def _messages(messages: Json) -> Iterator[str]:
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict):
            yield from _content(message.get("content"))


def _content(content: Json) -> Iterator[str]:
    """A string, or the texts of a list: strings and text blocks."""
    if isinstance(content, str):
        yield content
        return
    for block in content if isinstance(content, list) else ():
        text = block.get("text") if isinstance(block, dict) else block
        if isinstance(text, str):
            yield text
            yield " "
