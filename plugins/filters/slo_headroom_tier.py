"""slo-headroom-tier-filter: keep endpoints that are predicted to meet the request's latency objectives."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from epp.framework.data import Consumes
from epp.framework.interfaces import Role
from epp.framework.keys import LATENCY_PREDICTION
from epp.framework.params import Params, PluginReference
from epp.framework.registry import PluginType

TYPE = "slo-headroom-tier-filter"


class SloHeadroomTierFilterParams(Params):
    """Parameters of slo-headroom-tier-filter."""

    epsilon_explore_neg: float = Field(
        default=0.01, ge=0, le=1, description="Share of requests that go to the endpoints predicted to miss."
    )
    latency_prediction_info_producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Producer of predictions; default: its usual producer."
    )


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.FILTER}),
    summary="Keeps endpoints that are predicted to meet the request's latency objectives.",
    params=SloHeadroomTierFilterParams,
    consumes=(Consumes(LATENCY_PREDICTION),),
    wait="latency prediction",
)
