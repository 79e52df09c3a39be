"""p2p-source-producer: name the endpoint from which the prompt's KV cache can be fetched."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from epp.framework.data import Consumes
from epp.framework.interfaces import Role
from epp.framework.keys import PREFIX_CACHE_MATCH
from epp.framework.params import Int, Params, PluginReference, ProfileReference
from epp.framework.registry import PluginType

TYPE = "p2p-source-producer"


class P2pSourceProducerParams(Params):
    """Parameters of p2p-source-producer."""

    prefix_match_info_producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Producer of the prefix match; default: its usual producer."
    )
    min_cached_token_delta: Int = Field(
        default=1, ge=1, description="Cached tokens by which the source must be ahead of the endpoint that computes."
    )
    prefill_profile_name: Annotated[str, ProfileReference(required=False)] = Field(
        default="prefill", description="Profile whose target computes the prompt, if it ran."
    )


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.DATA_PRODUCER, Role.PRE_REQUEST}),
    summary="Names the endpoint from which the prompt's KV cache can be fetched.",
    params=P2pSourceProducerParams,
    consumes=(Consumes(PREFIX_CACHE_MATCH),),
    experimental=True,
    header_strip=frozenset({"x-kv-cache-source-host-port"}),
    wait="KV cache transfer between endpoints",
)
