"""token-load-scorer: prefer endpoints with few tokens in flight."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from epp.framework.candidates import Candidates
from epp.framework.data import Consumes, DataKey
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Role, Scorer
from epp.framework.keys import IN_FLIGHT_LOAD, InFlightLoad
from epp.framework.params import Int, Params, PluginReference
from epp.framework.registry import PluginType
from epp.framework.types import EndpointId, InferenceRequest

TYPE = "token-load-scorer"
DEFAULT_THRESHOLD_TOKENS = 4_194_304
"""Upstream's 128 requests of 32 Ki tokens."""


class TokenLoadScorerParams(Params):
    """Parameters of token-load-scorer."""

    queue_threshold_tokens: Int = Field(
        default=DEFAULT_THRESHOLD_TOKENS, description="Tokens in flight from which an endpoint scores 0; <= 0 = the default."
    )
    in_flight_load_producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Producer of the load in flight; default: its usual producer."
    )


class TokenLoadScorer:
    """Score by the tokens that the endpoint has in flight and would have to compute for this request.

    Parameters: queueThresholdTokens, inFlightLoadProducerName.
    Reads: InFlightLoad.
    Formula: ``t`` = tokens in flight + uncached tokens of the request; ``1 - min(t, T) / T``.
    Missing data: an endpoint without an entry has no tokens and scores 1.0.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/scorer/tokenload
    """

    def __init__(self, key: DataKey[dict[EndpointId, InFlightLoad]], threshold_tokens: int = DEFAULT_THRESHOLD_TOKENS) -> None:
        self._key = key
        self._threshold_tokens = threshold_tokens

    def score(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        """Scores in [0, 1], shape ``(len(candidates),)``."""
        loads = request.data.get(self._key)
        if not loads:
            return [1.0] * len(candidates)
        threshold = self._threshold_tokens
        found = map(loads.get, candidates.ids)
        tokens = [load.tokens + load.uncached_tokens if load is not None else 0 for load in found]
        return [1 - min(max(count, 0), threshold) / threshold for count in tokens]


def _create(context: PluginContext, params: TokenLoadScorerParams) -> Scorer:
    threshold = params.queue_threshold_tokens
    if threshold <= 0:
        context.warn("queueThresholdTokens", f"{threshold} is not positive; {DEFAULT_THRESHOLD_TOKENS} is used")
        threshold = DEFAULT_THRESHOLD_TOKENS
    return TokenLoadScorer(context.key(IN_FLIGHT_LOAD, params.in_flight_load_producer_name), threshold)


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SCORER}),
    summary="Prefers endpoints with few tokens in flight.",
    params=TokenLoadScorerParams,
    factory=_create,
    consumes=(Consumes(IN_FLIGHT_LOAD),),
)
