"""prefix-based-pd-decider: prefill elsewhere when enough of the prompt is not cached on the decode endpoint."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from epp.framework import log
from epp.framework.data import Consumes, DataKey
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Decider, Role
from epp.framework.keys import PREFIX_CACHE_MATCH, TOKENIZED_PROMPT, PrefixMatch, TokenizedPrompt
from epp.framework.params import Int, Params, PluginReference
from epp.framework.prompt import token_estimate
from epp.framework.registry import PluginType
from epp.framework.types import Endpoint, EndpointId, InferenceRequest

TYPE = "prefix-based-pd-decider"

_logger = log.get(__name__)


class PrefixBasedPdDeciderParams(Params):
    """Parameters of prefix-based-pd-decider."""

    non_cached_tokens: Int = Field(
        default=0, ge=0, description="Prefill elsewhere when at least this many tokens are not cached; 0 = never."
    )
    prompt_tokens: Int = Field(default=0, ge=0, description="Shorter prompts, in tokens, are never prefilled elsewhere.")
    prefix_match_info_producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Producer of the prefix match; default: its usual producer."
    )


class PrefixBasedPdDecider:
    """Disaggregate when the decode endpoint would have to compute many tokens of the prompt.

    Parameters: nonCachedTokens, promptTokens, prefixMatchInfoProducerName.
    Reads: PrefixCacheMatchInfo of the decode endpoint; TokenizedPrompt, or else the length of the prompt's text.
    Rule: the prompt has at least ``promptTokens`` tokens, and at least ``nonCachedTokens`` of them are not cached.
    Missing data: no match at all, no readable prompt, or no endpoint yet → False. A missing match is logged once, because then
        nothing is ever disaggregated. An endpoint that is not in the match holds nothing.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/profilehandler/disagg/prefix_based_pd_decider.go
    """

    def __init__(
        self,
        non_cached_tokens: int,
        prompt_tokens: int,
        match_key: DataKey[dict[EndpointId, PrefixMatch]],
        prompt_key: DataKey[TokenizedPrompt],
    ) -> None:
        self._non_cached_tokens = non_cached_tokens
        self._prompt_tokens = prompt_tokens
        self._match_key = match_key
        self._prompt_key = prompt_key
        self._has_warned = False

    def disaggregate(self, request: InferenceRequest, endpoint: Endpoint | None) -> bool:
        """Enough tokens of the prompt are not cached on ``endpoint``."""
        if self._non_cached_tokens == 0 or endpoint is None:
            return False
        prompt_tokens = self._length_tokens(request)
        if prompt_tokens < max(self._prompt_tokens, self._non_cached_tokens):
            return False
        matches = request.data.get(self._match_key)
        if matches is None:
            self._warn_once(endpoint)
            return False
        match = matches.get(endpoint.id)
        if match is None:
            return True
        cached_tokens = min(match.match_blocks * match.block_size_tokens, prompt_tokens)
        return prompt_tokens - cached_tokens >= self._non_cached_tokens

    def _length_tokens(self, request: InferenceRequest) -> int:
        tokenized = request.data.get(self._prompt_key)
        return tokenized.count if tokenized is not None else token_estimate(request.body)

    def _warn_once(self, endpoint: Endpoint) -> None:
        if not self._has_warned:
            self._has_warned = True
            _logger.error("no prefix match: nothing is disaggregated", key=self._match_key, endpoint=endpoint.id)


def _create(context: PluginContext, params: PrefixBasedPdDeciderParams) -> Decider:
    return PrefixBasedPdDecider(
        params.non_cached_tokens,
        params.prompt_tokens,
        context.key(PREFIX_CACHE_MATCH, params.prefix_match_info_producer_name),
        context.key(TOKENIZED_PROMPT),
    )


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.DECIDER}),
    summary="Prefills elsewhere when enough of the prompt is not cached on the decode endpoint.",
    params=PrefixBasedPdDeciderParams,
    factory=_create,
    consumes=(Consumes(PREFIX_CACHE_MATCH, prefer=("prefix-cache-scorer",)), Consumes(TOKENIZED_PROMPT, required=False)),
    example="""
        plugins:
        - type: disagg-profile-handler
          parameters:
            deciders: {prefill: prefix-based-pd-decider}
        - type: prefix-based-pd-decider
          parameters: {nonCachedTokens: 512}
        - type: disagg-headers-handler
        - type: prefill-filter
        - type: decode-filter
        - type: queue-scorer
        - type: max-score-picker
        schedulingProfiles:
        - name: prefill
          plugins:
          - pluginRef: prefill-filter
          - pluginRef: queue-scorer
          - pluginRef: max-score-picker
        - name: decode
          plugins:
          - pluginRef: decode-filter
          - pluginRef: queue-scorer
          - pluginRef: max-score-picker
    """,
)
