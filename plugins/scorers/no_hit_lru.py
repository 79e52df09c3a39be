"""no-hit-lru-scorer: spread requests that no endpoint has cached over the endpoints least recently used for such."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from epp.framework.data import Consumes
from epp.framework.interfaces import Role
from epp.framework.keys import PREFIX_CACHE_MATCH
from epp.framework.params import Int, Params, PluginReference
from epp.framework.registry import PluginType

TYPE = "no-hit-lru-scorer"


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


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SCORER, Role.PRE_REQUEST}),
    summary="Spreads requests that no endpoint has cached over the endpoints least recently used for such.",
    params=NoHitLruScorerParams,
    consumes=(Consumes(PREFIX_CACHE_MATCH, required=False),),
    wait="prefix-cache awareness",
)
