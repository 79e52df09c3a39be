"""latency-slo-admitter: refuse sheddable requests that no endpoint can serve in time."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from epp.framework.data import Consumes
from epp.framework.interfaces import Role
from epp.framework.keys import LATENCY_PREDICTION
from epp.framework.params import Params, PluginReference
from epp.framework.registry import PluginType, Reads
from plugins.slo_headers import SLO_HEADERS

TYPE = "latency-slo-admitter"


class LatencySloAdmitterParams(Params):
    """Parameters of latency-slo-admitter."""

    latency_prediction_info_producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Producer of predictions; default: its usual producer."
    )


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.ADMITTER}),
    summary="Refuses sheddable requests that no endpoint can serve in time.",
    params=LatencySloAdmitterParams,
    consumes=(Consumes(LATENCY_PREDICTION),),
    reads=Reads(request_headers=SLO_HEADERS),
    wait="latency prediction",
)
