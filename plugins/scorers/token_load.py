"""token-load-scorer: prefer endpoints with few tokens in flight."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from epp.framework.data import Consumes
from epp.framework.interfaces import Role
from epp.framework.keys import IN_FLIGHT_LOAD
from epp.framework.params import Int, Params, PluginReference
from epp.framework.registry import PluginType

TYPE = "token-load-scorer"


class TokenLoadScorerParams(Params):
    """Parameters of token-load-scorer."""

    queue_threshold_tokens: Int = Field(
        default=4_194_304, description="Tokens in flight from which an endpoint scores 0; <= 0 = the default."
    )
    in_flight_load_producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Producer of the load in flight; default: its usual producer."
    )


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SCORER}),
    summary="Prefers endpoints with few tokens in flight.",
    params=TokenLoadScorerParams,
    consumes=(Consumes(IN_FLIGHT_LOAD),),
    wait="load in flight",
)
