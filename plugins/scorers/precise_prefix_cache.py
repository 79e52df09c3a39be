"""precise-prefix-cache-scorer: prefer endpoints that hold the prompt's blocks, as their KV events say."""

from __future__ import annotations

from epp.framework.data import Consumes
from epp.framework.interfaces import Role
from epp.framework.keys import PREFIX_CACHE_MATCH, TOKENIZED_PROMPT
from epp.framework.registry import PluginType
from plugins.kvcache.parameters import PreciseScorerParams

TYPE = "precise-prefix-cache-scorer"

PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SCORER, Role.DATA_PRODUCER, Role.PRE_REQUEST}),
    summary="Prefers endpoints that hold the prompt's blocks, as their KV events say.",
    params=PreciseScorerParams,
    produces=(PREFIX_CACHE_MATCH,),
    consumes=(Consumes(TOKENIZED_PROMPT, required=False),),
    wait="precise prefix caching",
)
