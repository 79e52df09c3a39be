"""precise-prefix-cache-producer: know cached prefixes from the engines' KV events."""

from __future__ import annotations

from epp.framework.data import Consumes
from epp.framework.interfaces import Role
from epp.framework.keys import PREFIX_CACHE_MATCH, TOKENIZED_PROMPT
from epp.framework.registry import PluginType
from plugins.kvcache.parameters import PreciseProducerParams

TYPE = "precise-prefix-cache-producer"

PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.DATA_PRODUCER, Role.PRE_REQUEST}),
    summary="Knows cached prefixes from the engines' KV events.",
    params=PreciseProducerParams,
    produces=(PREFIX_CACHE_MATCH.by(TYPE),),
    consumes=(Consumes(TOKENIZED_PROMPT),),
    wait="precise prefix caching",
)
