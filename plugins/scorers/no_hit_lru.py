"""no-hit-lru-scorer: spread requests that no endpoint has cached over the endpoints least recently used for such."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated

from pydantic import Field

from epp.framework.candidates import Candidates
from epp.framework.data import Consumes, DataKey
from epp.framework.handle import PluginContext
from epp.framework.interfaces import HeaderEdits, Role
from epp.framework.keys import PREFIX_CACHE_MATCH, PrefixMatch
from epp.framework.params import Int, Params, PluginReference
from epp.framework.registry import PluginType
from epp.framework.results import SchedulingResult
from epp.framework.types import EndpointChange, EndpointId, InferenceRequest

TYPE = "no-hit-lru-scorer"
DEFAULT_SIZE = 1024
WARM = 0.5
"""Score of all endpoints when one of them holds a part of the prompt: other scorers decide."""
_NEVER = -1


class NoHitLruScorerParams(Params):
    """Parameters of no-hit-lru-scorer."""

    prefix_plugin_type: str = Field(default="prefix-cache-scorer", description="Type of the plugin that knows cached prefixes.")
    prefix_plugin_name: Annotated[str, PluginReference(required=False)] = Field(
        default="", description="Instance that knows cached prefixes; default: the value of `prefixPluginType`."
    )
    lru_size: Int = Field(default=1024, description="Endpoints that are remembered; <= 0 = 1024.")
    prefix_match_info_producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Newer name of `prefixPluginName`."
    )


class NoHitLruScorer:
    """Score cold requests by how long ago each endpoint was given one.

    Parameters: prefixPluginName, prefixPluginType, prefixMatchInfoProducerName, lruSize.
    Reads: PrefixCacheMatchInfo. Remembers in PreRequest the endpoints of cold requests: the target, and the prefill target.
    Formula: a request is cold when no candidate holds a block of it. Warm: 0.5 for all. Cold: ``1 - rank / (n - 1)``, ranks
        over the candidates: first those never used, in their order, then the used ones, the longest ago first; 1.0 for one.
    Missing data: without a match the request is cold.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/scorer/nohitlru/no_hit_lru.go
    """

    def __init__(self, key: DataKey[dict[EndpointId, PrefixMatch]], size: int = DEFAULT_SIZE) -> None:
        self._key = key
        self._size = size
        self._last_used: dict[EndpointId, int] = {}
        """Turn of the last cold request, least recent first."""
        self._turn = 0

    def score(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        """Scores in [0, 1], shape ``(len(candidates),)``."""
        count = len(candidates)
        if not self._is_cold(request, candidates):
            return [WARM] * count
        if count < 2:
            return [1.0] * count
        falling = _falling(count)
        if not self._last_used:
            return list(falling)
        used = self._last_used.get
        turns = [used(endpoint_id, _NEVER) for endpoint_id in candidates.ids]
        scores = [0.0] * count
        for position, score in zip(sorted(range(count), key=turns.__getitem__), falling, strict=True):
            scores[position] = score
        return scores

    def pre_request(self, request: InferenceRequest, result: SchedulingResult, edits: HeaderEdits) -> None:
        """Remember where a request went that was cold for the candidates of the primary profile."""
        primary = result.profiles.get(result.primary)
        if primary is None or not self._is_cold(request, primary.candidates):
            return
        self._touch(result.target.id)
        prefill = result.targets_of(result.prefill)
        if prefill and prefill[0].id != result.target.id:
            self._touch(prefill[0].id)

    def endpoints_changed(self, change: EndpointChange) -> None:
        """Forget those that are gone; one that comes back under the same id was never used."""
        for endpoint in change.removed:
            self._last_used.pop(endpoint.id, None)

    def debug_state(self) -> object:
        """Endpoints of cold requests, least recent first."""
        return {"endpoints": list(self._last_used)}

    def _is_cold(self, request: InferenceRequest, candidates: Candidates) -> bool:
        matches = request.data.get(self._key)
        if not matches:
            return True
        return not any(match.match_blocks > 0 for match in map(matches.get, candidates.ids) if match is not None)

    def _touch(self, endpoint_id: EndpointId) -> None:
        self._last_used.pop(endpoint_id, None)
        self._turn += 1
        self._last_used[endpoint_id] = self._turn
        if len(self._last_used) > self._size:
            del self._last_used[next(iter(self._last_used))]


@lru_cache(maxsize=64)
def _falling(count: int) -> tuple[float, ...]:
    """The scores of the ranks 0, 1, 2, ...: from 1 down to 0 in equal steps. Pools keep their size for long."""
    return (*(1 - rank / (count - 1) for rank in range(count - 1)), 0.0)


def _create(context: PluginContext, params: NoHitLruScorerParams) -> NoHitLruScorer:
    size = params.lru_size
    if size <= 0:
        context.warn("lruSize", f"{size} is not positive; {DEFAULT_SIZE} is used")
        size = DEFAULT_SIZE
    return NoHitLruScorer(_key(context, params), size)


def _key(context: PluginContext, params: NoHitLruScorerParams) -> DataKey[dict[EndpointId, PrefixMatch]]:
    """The match of the named plugin, else of one of the given type, else of the one that writes it in this configuration."""
    named = params.prefix_match_info_producer_name or params.prefix_plugin_name
    if named and (named in context.declared or not context.declared):
        return context.key(PREFIX_CACHE_MATCH, named)
    wanted = params.prefix_plugin_type
    of_type = [name for name, kind in context.declared.items() if kind == wanted]
    return context.key(PREFIX_CACHE_MATCH, wanted if wanted in of_type else next(iter(of_type), ""))


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SCORER, Role.PRE_REQUEST}),
    summary="Spreads requests that no endpoint has cached over the endpoints least recently used for such.",
    params=NoHitLruScorerParams,
    factory=_create,
    consumes=(Consumes(PREFIX_CACHE_MATCH, required=False),),
    example="""
        plugins:
        - type: prefix-cache-scorer
        - type: no-hit-lru-scorer
          parameters: {lruSize: 2048}
        - type: queue-scorer
        - type: max-score-picker
        schedulingProfiles:
        - name: default
          plugins:
          - pluginRef: prefix-cache-scorer
            weight: 3
          - pluginRef: no-hit-lru-scorer
          - pluginRef: queue-scorer
          - pluginRef: max-score-picker
    """,
)
