"""data-parallel-profile-handler: send to a pod's primary port, and name the chosen rank in a header."""

from __future__ import annotations

from pydantic import Field

from epp.framework.interfaces import Role
from epp.framework.params import Int, Params
from epp.framework.registry import PluginType

TYPE = "data-parallel-profile-handler"


class DataParallelProfileHandlerParams(Params):
    """Parameters of data-parallel-profile-handler."""

    primary_port: Int = Field(
        default=8000, ge=0, le=65535, description="Port that all targets are rewritten to; 0 = not rewritten."
    )


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.PROFILE_HANDLER, Role.PRE_REQUEST}),
    summary="Sends to a pod's primary port and names the chosen data-parallel rank in a header.",
    params=DataParallelProfileHandlerParams,
    header_strip=frozenset({"x-data-parallel-host-port"}),
    wait="data-parallel ranks",
)
