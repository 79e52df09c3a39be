"""header-label-affinity-scorer: prefer endpoints whose label equals a request header."""

from __future__ import annotations

from pydantic import Field

from epp.framework.interfaces import Role
from epp.framework.params import Params
from epp.framework.registry import PluginType

TYPE = "header-label-affinity-scorer"


class HeaderLabelAffinityScorerParams(Params):
    """Parameters of header-label-affinity-scorer."""

    header_name: str = Field(min_length=1, description="Request header with the wanted value.")
    label_key: str = Field(min_length=1, description="Label that should have this value.")


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SCORER}),
    summary="Prefers endpoints whose label equals a request header.",
    params=HeaderLabelAffinityScorerParams,
    experimental=True,
    wait="affinity by header",
)
