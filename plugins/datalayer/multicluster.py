"""multicluster-metrics-data-source, -metrics-extractor and -file-discovery: other clusters as endpoints."""

from __future__ import annotations

from pydantic import Field

from epp.framework.interfaces import Role
from epp.framework.keys import CLUSTER_KV_CACHE_USAGE, CLUSTER_QUEUE
from epp.framework.params import Int, Params
from epp.framework.registry import PluginType
from plugins.datalayer.http_source import Interval, Scheme, TlsPaths

_WAIT = "multi-cluster routing"


class MulticlusterMetricsDataSourceParams(TlsPaths):
    """Parameters of multicluster-metrics-data-source."""

    scheme: Scheme = Field(default="https", description="`http` or `https`.")
    path: str = Field(default="/metrics", min_length=1, description="Path of the metrics page.")
    port: Int | None = Field(default=None, ge=1, le=65535, description="Port; default: the cluster's own.")
    insecure_skip_verify: bool = Field(default=False, description="Do not verify the cluster's certificate.")
    interval: Interval = Field(default="", description="Time between two reads, a duration; default: every refresh.")


class MulticlusterMetricsExtractorParams(Params):
    """Parameters of multicluster-metrics-extractor."""

    kv_cache_utilization_metric: str = Field(
        default="llm_d_epp_average_kv_cache_utilization", min_length=1, description="Metric with the average KV cache usage."
    )
    queue_size_metric: str = Field(
        default="llm_d_epp_average_queue_size", min_length=1, description="Metric with the average waiting queue."
    )


class MulticlusterFileDiscoveryParams(Params):
    """Parameters of multicluster-file-discovery."""

    path: str = Field(min_length=1, description="YAML or JSON file with the clusters.")
    watch_file: bool = Field(default=False, description="Read the file again when it changes.")


SOURCE = PluginType(
    type="multicluster-metrics-data-source",
    roles=frozenset({Role.DATA_SOURCE}),
    summary="Reads the averages that other clusters' pickers publish.",
    params=MulticlusterMetricsDataSourceParams,
    experimental=True,
    wait=_WAIT,
)

EXTRACTOR = PluginType(
    type="multicluster-metrics-extractor",
    roles=frozenset({Role.EXTRACTOR}),
    summary="Keeps average queue and KV cache usage of each cluster.",
    params=MulticlusterMetricsExtractorParams,
    produces=(CLUSTER_QUEUE, CLUSTER_KV_CACHE_USAGE),
    experimental=True,
    wait=_WAIT,
)

DISCOVERY = PluginType(
    type="multicluster-file-discovery",
    roles=frozenset({Role.PEER_DISCOVERY, Role.DISCOVERY}),
    summary="Reads other clusters from a file.",
    params=MulticlusterFileDiscoveryParams,
    experimental=True,
    wait=_WAIT,
    example="path: clusters.yaml",
)

PLUGINS = (SOURCE, EXTRACTOR, DISCOVERY)
