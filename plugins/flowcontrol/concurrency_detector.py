"""concurrency-detector: the pool is as full as the requests or tokens in flight say."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from epp.framework.data import Consumes
from epp.framework.interfaces import Role
from epp.framework.keys import IN_FLIGHT_LOAD
from epp.framework.params import Int, Params, PluginReference
from epp.framework.registry import PluginType

TYPE = "concurrency-detector"


class ConcurrencyDetectorParams(Params):
    """Parameters of concurrency-detector."""

    concurrency_mode: Literal["requests", "tokens", "hybrid"] = Field(default="requests", description="What is counted.")
    max_concurrency: Int = Field(default=100, gt=0, description="Requests in flight at which an endpoint is full.")
    max_token_concurrency: Int = Field(default=1_000_000, gt=0, description="Tokens in flight at which an endpoint is full.")
    headroom: float = Field(default=0.0, ge=0, description="Fraction by which the filter exceeds the limits.")
    in_flight_load_producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Producer of the load in flight; default: its usual producer."
    )


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SATURATION_DETECTOR, Role.FILTER}),
    summary="The pool is as full as the requests or tokens in flight say; as a filter, drops full endpoints.",
    params=ConcurrencyDetectorParams,
    consumes=(Consumes(IN_FLIGHT_LOAD),),
    wait="saturation detection",
)
