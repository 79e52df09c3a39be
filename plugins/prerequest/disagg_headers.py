"""disagg-headers-handler: tell the decode endpoint where prefill and encode run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from epp.framework.interfaces import Role
from epp.framework.params import Params, ProfileReference
from epp.framework.registry import Alias, PluginType

TYPE = "disagg-headers-handler"


class DisaggHeadersHandlerParams(Params):
    """Parameters of disagg-headers-handler."""

    prefill_profile: Annotated[str, ProfileReference(required=False)] = Field(
        default="prefill", min_length=1, description="Profile whose first target goes into the prefill headers."
    )
    encode_profile: Annotated[str, ProfileReference(required=False)] = Field(
        default="encode", min_length=1, description="Profile whose targets go into the encode headers."
    )


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.PRE_REQUEST}),
    summary="Tells the decode endpoint where prefill and encode run.",
    params=DisaggHeadersHandlerParams,
    aliases=(Alias("prefill-header-handler", deprecated=True),),
    header_strip=frozenset({"mif-prefill-endpoint", "mif-encode-endpoints", "x-prefiller-host-port", "x-encoder-hosts-ports"}),
    wait="disaggregated prefill",
)
