"""context-length-aware: prefer, or keep only, endpoints that are meant for prompts of this length."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from pydantic import Field

from epp.framework.candidates import Candidates
from epp.framework.data import Consumes
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Role
from epp.framework.keys import TOKENIZED_PROMPT
from epp.framework.params import Params
from epp.framework.prompt import prompt_tokens
from epp.framework.registry import PluginType
from epp.framework.types import InferenceRequest

TYPE = "context-length-aware"
HEIMDALL_LABEL = "mif.moreh.io/context-length-range"
LLM_D_LABEL = "llm-d.ai/context-length-range"

NO_LABEL = 0.5
"""Score of an endpoint that is meant for any length; above that of a wide range."""
_CACHED_LABELS = 4096
Ranges = tuple[tuple[int, int], ...]


class ContextLengthAwareParams(Params):
    """Parameters of context-length-aware."""

    label: str = Field(
        default=HEIMDALL_LABEL,
        min_length=1,
        description="Label with one or more ranges of prompt lengths in tokens, such as `0-2048` or `0-2048_8192-16384`; "
        f"unless it is given, endpoints without it may also carry `{LLM_D_LABEL}`.",
    )
    enable_filtering: bool = Field(default=False, description="Also drop endpoints whose ranges do not contain the length.")


class ContextLengthAware:
    """Score, and with enableFiltering also filter, by the prompt lengths that an endpoint is labelled with.

    Parameters: label, enableFiltering.
    Reads: labels; TokenizedPrompt, without it a quarter of the bytes of the prompt's text.
    Formula: for a prompt of ``c`` tokens and a range of width ``w``: inside ``0.3 + 0.7 * (0.7 / (1 + w / 10000) +
        0.3 * (max - c) / w)``, 1.0 if ``w`` is 0; outside, ``d`` tokens away, ``0.3 / (1 + d / 1000)``. The best of several
        ranges counts. The filter keeps endpoints with a range that contains ``c``, both ends included.
    Missing data: without the label 0.5, and kept; a label that cannot be read 0.0, and dropped.
    Source: llm-d-router v0.7.1: pkg/plugins/multi/context_length_aware.go; several ranges: Heimdall's plugin reference
    """

    def __init__(self, labels: Sequence[str] = (HEIMDALL_LABEL, LLM_D_LABEL), *, filters: bool = False) -> None:
        self._label, *others = labels
        self._other = others[0] if others else None
        self._filters = filters

    def score(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        """Scores in [0, 1], shape ``(len(candidates),)``."""
        texts = self._texts(candidates)
        tokens = prompt_tokens(request)
        scores = {text: _score(text, tokens) for text in set(texts)}
        return [scores[text] for text in texts]

    def filter(self, request: InferenceRequest, candidates: Candidates) -> Candidates:
        """The candidates that are meant for the length; all, unless filtering is on."""
        if not self._filters:
            return candidates
        texts = self._texts(candidates)
        tokens = prompt_tokens(request)
        kept = {text: _contains(text, tokens) for text in set(texts)}
        return candidates.where([kept[text] for text in texts])

    def _texts(self, candidates: Candidates) -> list[str | None]:
        label, other = self._label, self._other
        if other is None:
            return [endpoint.labels.get(label) for endpoint in candidates.endpoints]
        return [endpoint.labels.get(label, endpoint.labels.get(other)) for endpoint in candidates.endpoints]


def _score(text: str | None, tokens: int) -> float:
    if text is None:
        return NO_LABEL
    return max([_range_score(low, high, tokens) for low, high in _ranges(text)], default=0.0)


def _range_score(low: int, high: int, tokens: int) -> float:
    if tokens < low or tokens > high:
        return 0.3 / (1 + max(low - tokens, tokens - high) / 1000)
    width = high - low
    if width == 0:
        return 1.0
    return 0.3 + 0.7 * (0.7 / (1 + width / 10_000) + 0.3 * (high - tokens) / width)


def _contains(text: str | None, tokens: int) -> bool:
    return text is None or any(low <= tokens <= high for low, high in _ranges(text))


@lru_cache(maxsize=_CACHED_LABELS)
def _ranges(text: str) -> Ranges:
    """The ranges of a label value; none if one of them cannot be read.

    A comma is what Heimdall documents, but Kubernetes allows none in a label value: an underscore means the same.
    """
    ranges = []
    for part in text.replace("_", ",").split(","):
        ends = part.split("-")
        try:
            low, high = (int(end.strip()) for end in ends)
        except ValueError:
            return ()
        if not 0 <= low <= high:
            return ()
        ranges.append((low, high))
    return tuple(ranges)


def _create(context: PluginContext, params: ContextLengthAwareParams) -> ContextLengthAware:
    labels = (params.label,) if "label" in params.model_fields_set else (HEIMDALL_LABEL, LLM_D_LABEL)
    return ContextLengthAware(labels, filters=params.enable_filtering)


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SCORER, Role.FILTER}),
    summary="Prefers, or keeps only, endpoints that are meant for prompts of this length.",
    params=ContextLengthAwareParams,
    factory=_create,
    consumes=(Consumes(TOKENIZED_PROMPT, required=False),),
    example="enableFiltering: true",
)
