"""dcgm-data-source and dcgm-extractor: GPU utilisation from NVIDIA's exporter."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field
from yarl import URL

from epp.framework.handle import PluginContext
from epp.framework.interfaces import DataSource, Extraction, Role
from epp.framework.keys import GPU_UTILIZATION
from epp.framework.params import Int, Params, parse_duration
from epp.framework.prometheus_text import FamilyReader
from epp.framework.registry import PluginType
from epp.framework.types import Endpoint, EndpointMetrics
from plugins.datalayer.client_tls import ClientTls, TlsFiles
from plugins.datalayer.http_fetch import endpoint_url
from plugins.datalayer.http_source import Interval, Scheme
from plugins.datalayer.metrics_source import MetricsSource

FAMILY = "DCGM_FI_DEV_GPU_UTIL"
_POD = "pod"
"""Label by which the exporter tells whose the GPU is, where it runs once a node."""


class DcgmDataSourceParams(Params):
    """Parameters of dcgm-data-source."""

    scheme: Scheme = Field(default="http", description="`http` or `https`.")
    path: str = Field(default="/metrics", min_length=1, description="Path of the metrics page.")
    port: Int = Field(default=9400, ge=1, le=65535, description="Port of the exporter.")
    insecure_skip_verify: bool = Field(default=True, description="Do not verify the exporter's certificate.")
    use_node_address: bool = Field(
        default=False, description="Ask the node instead of the pod; the pod where the node's address is not known."
    )
    interval: Interval = Field(default="", description="Time between two reads, a duration; default: every refresh.")


class DcgmSource(MetricsSource):
    """The exporter's page: beside the model server in its pod, or once on its node.

    Source: llm-d-router: pkg/epp/framework/plugins/datalayer/source/dcgm/datasource.go
    """

    def __init__(
        self, *, scheme: str, path: str, port: int, by_node: bool, tls: ClientTls | None, interval_s: float | None
    ) -> None:
        super().__init__(scheme=scheme, path=path, port=port, tls=tls, interval_s=interval_s)
        self._where = (scheme, path, port)
        self._by_node = by_node

    def url(self, endpoint: Endpoint) -> URL:
        """Where the page of an endpoint is."""
        scheme, path, port = self._where
        address = (endpoint.node_address if self._by_node else "") or endpoint.address
        return endpoint_url(scheme, f"[{address}]:{port}" if ":" in address else f"{address}:{port}", path)


class DcgmExtractor:
    """Keeps the utilisation of the busiest GPU of each endpoint.

    Reads: the family DCGM_FI_DEV_GPU_UTIL, percent; of its samples those with the endpoint's pod as label ``pod``, and those
    without that label; all of them for an endpoint of no pod. Writes: the attribute GPUUtilization, a fraction.
    Missing data: without a sample the attribute keeps its last value, and that is told.
    Source: llm-d-router: pkg/epp/framework/plugins/datalayer/extractor/dcgm/extractor.go
    """

    input = "prometheus-text"

    def __init__(self) -> None:
        self._reader = FamilyReader(FAMILY)

    def families(self, endpoint: Endpoint) -> frozenset[str]:
        """The one that is read."""
        return frozenset({FAMILY})

    def extract(self, payload: bytes, endpoint: Endpoint, previous: EndpointMetrics) -> Extraction:
        """The metrics with the attribute; ``previous`` itself if it is there already."""
        try:
            samples = self._reader.read(payload)
        except ValueError as error:
            return Extraction(previous, (str(error),))
        pod = endpoint.pod_name
        used = [sample.value for sample in samples if not pod or sample.labels.get(_POD, pod) == pod]
        if not used:
            missing = f"{FAMILY} has no sample of pod {pod}" if samples else f"{FAMILY} is missing"
            return Extraction(previous, (missing,))
        utilization = max(used) / 100
        if not 0 <= utilization <= 1:
            return Extraction(previous, (f"{FAMILY} is {max(used):g}, which is no percentage",))
        if previous.attributes.get(GPU_UTILIZATION.name) == utilization:
            return Extraction(previous)
        return Extraction(replace(previous, attributes={**previous.attributes, GPU_UTILIZATION.name: utilization}))


def _create_source(context: PluginContext, params: DcgmDataSourceParams) -> DataSource:
    verify = not params.insecure_skip_verify
    return DcgmSource(
        scheme=params.scheme,
        path=params.path,
        port=params.port,
        by_node=params.use_node_address,
        tls=ClientTls(TlsFiles(), verify=verify, clock=context.clock) if params.scheme == "https" else None,
        interval_s=parse_duration(params.interval) if params.interval else None,
    )


def _create_extractor(context: PluginContext, params: Params) -> DcgmExtractor:
    return DcgmExtractor()


SOURCE = PluginType(
    type="dcgm-data-source",
    roles=frozenset({Role.DATA_SOURCE}),
    summary="Reads the metrics of NVIDIA's DCGM exporter.",
    params=DcgmDataSourceParams,
    factory=_create_source,
    experimental=True,
    example="""
        useNodeAddress: true
        interval: 1s
    """,
)

EXTRACTOR = PluginType(
    type="dcgm-extractor",
    roles=frozenset({Role.EXTRACTOR}),
    summary="Keeps the GPU utilisation of each endpoint.",
    factory=_create_extractor,
    produces=(GPU_UTILIZATION,),
    experimental=True,
)

PLUGINS = (SOURCE, EXTRACTOR)
