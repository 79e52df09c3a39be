"""dcgm-data-source and dcgm-extractor: GPU utilisation from NVIDIA's exporter."""

from __future__ import annotations

from pydantic import Field

from epp.framework.interfaces import Role
from epp.framework.keys import GPU_UTILIZATION
from epp.framework.params import Int, Params
from epp.framework.registry import PluginType
from plugins.datalayer.http_source import Interval, Scheme


class DcgmDataSourceParams(Params):
    """Parameters of dcgm-data-source."""

    scheme: Scheme = Field(default="http", description="`http` or `https`.")
    path: str = Field(default="/metrics", min_length=1, description="Path of the metrics page.")
    port: Int = Field(default=9400, ge=1, le=65535, description="Port of the exporter.")
    insecure_skip_verify: bool = Field(default=True, description="Do not verify the exporter's certificate.")
    use_node_address: bool = Field(default=False, description="Ask the node instead of the pod.")
    interval: Interval = Field(default="", description="Time between two reads, a duration; default: every refresh.")


SOURCE = PluginType(
    type="dcgm-data-source",
    roles=frozenset({Role.DATA_SOURCE}),
    summary="Reads the metrics of NVIDIA's DCGM exporter.",
    params=DcgmDataSourceParams,
    experimental=True,
    wait="GPU metrics",
)

EXTRACTOR = PluginType(
    type="dcgm-extractor",
    roles=frozenset({Role.EXTRACTOR}),
    summary="Keeps the GPU utilisation of each endpoint.",
    produces=(GPU_UTILIZATION,),
    experimental=True,
    wait="GPU metrics",
)

PLUGINS = (SOURCE, EXTRACTOR)
