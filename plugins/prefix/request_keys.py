"""The keys of a request's prompts: from what the transport read, from tokens, or from the decoded body."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from epp.framework.canonical_prompt import Prompt, prompts_of, template_of, token_bytes
from epp.framework.data import DataKey
from epp.framework.keys import TokenizedPrompt, reading
from epp.framework.prompt import BYTES_PER_TOKEN
from epp.framework.prompt_blocks import HashedPrompt, PromptBlocks, hash_template
from epp.framework.types import Api, InferenceRequest
from plugins.prefix import twins
from plugins.prefix.keys import KEY_BYTES, seed, utf8
from plugins.prefix.settings import IndexSettings
from plugins.prefix.turns import Turn, slices

_WITH_PROMPTS = frozenset(
    {Api.CHAT, Api.COMPLETIONS, Api.EMBEDDINGS, Api.RESPONSES, Api.CONVERSATIONS, Api.MESSAGES, Api.GENERATE}
)
"""Requests of other APIs leave nothing in a cache of prefixes, or nobody knows what."""

Steps = Generator[None, None, "RequestKeys"]
"""Yields where other work may be done in between."""


@dataclass(frozen=True, slots=True)
class RequestKeys:
    """The keys of one request."""

    prompts: tuple[bytes, ...]
    """Of each prompt that has a whole block, 64 bits each."""
    total_blocks: int
    """Of all prompts."""
    block_tokens: int


class RequestKeyReader:
    """Makes the keys of requests.

    The prompts are those of the tokens that a tokenizer of the model wrote. Else they are the canonical text of the body, or
    the token ids in it, hashed by the transport where that was asked to and still fits. Pseudo-tokens are that text in another
    form, and not used.

    Args:
        settings: of the index.
        tokens: where the tokenizer writes.
    """

    def __init__(self, settings: IndexSettings, tokens: DataKey[TokenizedPrompt]) -> None:
        self._settings = settings
        self._tokens = tokens
        self._reading = reading(settings.reader)
        self._read_unit = settings.unit_tokens(settings.block_tokens)

    def read(self, request: InferenceRequest, block_tokens: int) -> RequestKeys | None:
        """The keys of a request of which all is known already; None if ``steps`` has to find them.

        Args:
            block_tokens: tokens per block.
        """
        if request.body.api not in _WITH_PROMPTS:
            return RequestKeys((), 0, block_tokens)
        packed = request.data.get(self._reading)
        unit = self._settings.unit_tokens(block_tokens)
        if not packed or type(packed) is not bytes or unit != self._read_unit:
            return None
        tokenized = request.data.made(self._tokens)
        if tokenized is not None and tokenized.is_exact:
            return None
        model, salt = utf8(request.target_model), utf8(_salt(request))
        cap, unit_bytes = self._settings.cap(block_tokens), unit * BYTES_PER_TOKEN
        prompts = twins.packed_keys(packed, model, salt, unit_bytes, block_tokens // unit, cap)
        return RequestKeys(prompts, sum(map(len, prompts)) // KEY_BYTES, block_tokens) if prompts is not None else None

    def steps(self, request: InferenceRequest, block_tokens: int) -> Steps:
        """The keys of a request, hashed in steps.

        Args:
            block_tokens: tokens per block.
        """
        tokenized = request.data.made(self._tokens)
        unit = self._settings.unit_tokens(block_tokens)
        unit_bytes, stride = unit * BYTES_PER_TOKEN, block_tokens // unit
        cap = self._settings.cap(block_tokens) * stride
        if tokenized is not None and tokenized.is_exact:
            blocks = PromptBlocks(0, (yield from _hashed(_of_tokens(tokenized), unit_bytes, cap)))
        else:
            blocks = yield from _decoded(request, unit_bytes, cap)
        return (yield from _chained(request, blocks, block_tokens, stride))


def _salt(request: InferenceRequest) -> str:
    salt = request.body.outline.get("cache_salt")
    return salt if isinstance(salt, str) else ""


def _decoded(request: InferenceRequest, unit_bytes: int, cap: int) -> Generator[None, None, PromptBlocks]:
    document = request.body.document
    try:
        prompts, template = list(prompts_of(document)), hash_template(template_of(document))
    except (TypeError, UnicodeEncodeError):  # nested too deep to be written, or half a character
        return PromptBlocks(0, ())
    return PromptBlocks(template, (yield from _hashed(prompts, unit_bytes, cap)))


def _of_tokens(tokenized: TokenizedPrompt) -> list[Prompt]:
    return [Prompt(True, token_bytes(ids)) for ids in (tokenized.token_ids, *tokenized.further)]


def _hashed(prompts: list[Prompt], unit_bytes: int, cap: int) -> Generator[None, None, tuple[HashedPrompt, ...]]:
    hashed, turn = [], Turn()
    for prompt in prompts:
        limit = cap * unit_bytes if cap else len(prompt.data)
        contents: list[bytes] = []
        for part in slices(memoryview(prompt.data)[:limit], unit_bytes):
            contents.append(twins.content_hashes(part, unit_bytes, 0))
            if turn.is_over(len(part) // unit_bytes):
                yield
        hashed.append(HashedPrompt(prompt.is_tokens, prompt.length, b"".join(contents)))
    return tuple(hashed)


def _chained(request: InferenceRequest, blocks: PromptBlocks, block_tokens: int, stride: int) -> Steps:
    prompts, turn = [], Turn()
    for prompt in blocks.prompts:
        if len(prompt.contents) < stride * KEY_BYTES:
            continue
        key = seed(request.target_model, _salt(request), is_tokens=prompt.is_tokens, template_hash=blocks.template_hash)
        keys: list[bytes] = []
        for part in slices(prompt.contents, stride * KEY_BYTES):
            if found := twins.chain(key, part, stride):
                keys.append(found)
                key = int.from_bytes(found[-KEY_BYTES:], "little")
            if turn.is_over(len(part) // KEY_BYTES):
                yield
        prompts.append(keys[0] if len(keys) == 1 else b"".join(keys))
    return RequestKeys(tuple(prompts), sum(map(len, prompts)) // KEY_BYTES, block_tokens)
