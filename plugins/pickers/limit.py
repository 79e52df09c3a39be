"""The parameter that all pickers share."""

from __future__ import annotations

from pydantic import Field

from epp.framework.handle import PluginContext
from epp.framework.params import Int, Params


class PickerParams(Params):
    """Parameters of every picker."""

    max_num_of_endpoints: Int = Field(
        default=1, description="Most endpoints to pick, best first; the data plane may use the rest as fallbacks. <= 0 = 1."
    )


def limit(context: PluginContext, params: PickerParams) -> int:
    """The effective number of endpoints, at least 1."""
    if params.max_num_of_endpoints > 0:
        return params.max_num_of_endpoints
    context.warn("maxNumOfEndpoints", f"{params.max_num_of_endpoints} is not positive; 1 is used")
    return 1
