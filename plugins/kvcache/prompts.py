"""Prompts as the index sees them: which tokens a request has, and the keys of their blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from epp.framework.candidates import Candidates
from epp.framework.data import DataKey
from epp.framework.keys import SERVED_MODELS, TOKENIZED_PROMPT, ServedModel, TokenizedPrompt
from epp.framework.types import InferenceRequest
from plugins.kvcache.event_index import EventIndex
from plugins.kvcache.features import of_prompt
from plugins.kvcache.request_keys import TOKEN_BYTES, token_bytes


class PromptTokens:
    """Finds the tokens of a request that some producer made of it, or its client.

    Args:
        key: of the producer that writes for this plugin.
        models: names of the base model's tokenizer; empty = whatever exact tokens there are.
    """

    def __init__(self, key: DataKey[TokenizedPrompt], models: frozenset[str]) -> None:
        self._keys = tuple(dict.fromkeys((key, TOKENIZED_PROMPT)))
        self._models = models

    def of(self, request: InferenceRequest) -> TokenizedPrompt | None:
        """The model's own tokens; estimates and those of other models are none."""
        for key in self._keys:
            found = request.data.made(key)
            if found is not None and found.is_exact and (not self._models or found.model in ("", *self._models)):
                return found
        return None


class PromptKeys(NamedTuple):
    """The keys of a request's prompts."""

    chains: tuple[Sequence[int], ...]
    """Of each prompt; one that is shorter than a block has none."""

    @property
    def total(self) -> int:
        """Blocks of all prompts."""
        return sum(map(len, self.chains))

    def each(self) -> list[int]:
        """Every key once."""
        if len(self.chains) == 1:
            return list(self.chains[0])
        return list(dict.fromkeys(key for chain in self.chains for key in chain))


def prompt_keys(
    index: EventIndex, request: InferenceRequest, prompt: TokenizedPrompt, block_size: int, *, is_adapter: bool
) -> PromptKeys | None:
    """The keys of a request's blocks; None where the engine will see other tokens than these.

    Args:
        block_size: tokens of a block of the index.
        is_adapter: the target model is known to be an adapter.
    """
    document = request.body.document
    if document.get("truncate_prompt_tokens") is not None:
        # The engine keeps the last tokens, so that all its blocks begin elsewhere.
        return None
    salt = document.get("cache_salt")
    salt = salt if isinstance(salt, str) else ""
    chains = []
    for number, ids in enumerate((prompt.token_ids, *prompt.further)):
        tokens = token_bytes(ids)
        media = prompt.media if not number else ()
        features = of_prompt(media, salt, index.engine_block_size, block_size, len(tokens) // (block_size * TOKEN_BYTES))
        chains.append(index.keys(request.target_model, tokens, features, is_adapter=is_adapter))
    return PromptKeys(tuple(chains))


class _Memo:
    """Key of what depends on the candidates alone."""


_ADAPTERS = _Memo()


def adapters(candidates: Candidates) -> frozenset[str]:
    """Names of adapters that the candidates' metrics and model lists tell."""
    found = candidates.memo.get(_ADAPTERS)
    if not isinstance(found, frozenset):
        names: set[str] = set()
        for metrics in candidates.metrics:
            names |= metrics.active_models
            names |= metrics.waiting_models
            served = metrics.attributes.get(SERVED_MODELS.name)
            if isinstance(served, tuple):
                names.update(model.id for model in served if isinstance(model, ServedModel) and model.parent)
        found = candidates.memo[_ADAPTERS] = frozenset(names)
    return found
