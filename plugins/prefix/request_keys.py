"""The keys of a request's prompts: from what the transport read, from tokens, or from the decoded body."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from epp.framework.canonical_prompt import Prompt, prompts_of, template_of, token_bytes
from epp.framework.data import DataKey
from epp.framework.keys import TokenizedPrompt, reading
from epp.framework.prompt import BYTES_PER_TOKEN
from epp.framework.prompt_blocks import HashedPrompt, PromptBlocks, hash_template, unpack
from epp.framework.types import Api, InferenceRequest
from plugins.prefix import twins
from plugins.prefix.keys import KEY_BYTES, seed
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

    def steps(self, request: InferenceRequest, block_tokens: int) -> Steps:
        """The keys of a request, in steps.

        Args:
            block_tokens: tokens per block.
        """
        block_bytes, cap = block_tokens * BYTES_PER_TOKEN, self._settings.cap(block_tokens)
        if request.body.api not in _WITH_PROMPTS:
            return RequestKeys((), 0, block_tokens)
        tokenized = request.data.made(self._tokens)
        if tokenized is not None and tokenized.is_exact:
            blocks = PromptBlocks(0, (yield from _hashed(_of_tokens(tokenized), block_bytes, cap)))
        else:
            blocks = self._read(request, block_tokens) or (yield from _decoded(request, block_bytes, cap))
        return (yield from _chained(request, blocks, block_tokens))

    def _read(self, request: InferenceRequest, block_tokens: int) -> PromptBlocks | None:
        """What the transport has hashed; None if it has not, or not in blocks of this size."""
        packed = request.data.get(self._reading) if block_tokens == self._settings.block_tokens else None
        return unpack(packed) if isinstance(packed, bytes) and packed else None


def _decoded(request: InferenceRequest, block_bytes: int, cap: int) -> Generator[None, None, PromptBlocks]:
    document = request.body.document
    try:
        prompts, template = list(prompts_of(document)), hash_template(template_of(document))
    except (TypeError, UnicodeEncodeError):  # nested too deep to be written, or half a character
        return PromptBlocks(0, ())
    return PromptBlocks(template, (yield from _hashed(prompts, block_bytes, cap)))


def _of_tokens(tokenized: TokenizedPrompt) -> list[Prompt]:
    return [Prompt(True, token_bytes(ids)) for ids in (tokenized.token_ids, *tokenized.further)]


def _hashed(prompts: list[Prompt], block_bytes: int, cap: int) -> Generator[None, None, tuple[HashedPrompt, ...]]:
    hashed, turn = [], Turn()
    for prompt in prompts:
        limit = cap * block_bytes if cap else len(prompt.data)
        contents: list[bytes] = []
        for part in slices(memoryview(prompt.data)[:limit], block_bytes):
            contents.append(twins.content_hashes(part, block_bytes, 0))
            if turn.is_over(len(part) // block_bytes):
                yield
        hashed.append(HashedPrompt(prompt.is_tokens, prompt.length, b"".join(contents)))
    return tuple(hashed)


def _chained(request: InferenceRequest, blocks: PromptBlocks, block_tokens: int) -> Steps:
    salt = request.body.document.get("cache_salt")
    prompts, turn = [], Turn()
    for prompt in blocks.prompts:
        if not len(prompt.contents):
            continue
        key = seed(
            request.target_model,
            salt if isinstance(salt, str) else "",
            is_tokens=prompt.is_tokens,
            template_hash=blocks.template_hash,
        )
        keys: list[bytes] = []
        for part in slices(prompt.contents, KEY_BYTES):
            keys.append(twins.chain(key, part))
            key = int.from_bytes(keys[-1][-KEY_BYTES:], "little")
            if turn.is_over(len(part) // KEY_BYTES):
                yield
        prompts.append(keys[0] if len(keys) == 1 else b"".join(keys))
    return RequestKeys(tuple(prompts), sum(map(len, prompts)) // KEY_BYTES, block_tokens)
