"""metrics-data-source: fetch the Prometheus page of each endpoint."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import AfterValidator, Field
from yarl import URL

from epp.framework.handle import PluginContext
from epp.framework.interfaces import ChoosesPath, DataSource, PageAddress, Role
from epp.framework.params import Int, parse_duration
from epp.framework.prometheus_text import check_page
from epp.framework.registry import PluginType
from epp.framework.types import Endpoint
from plugins.datalayer.client_tls import ClientTls
from plugins.datalayer.http_fetch import TIMEOUT_S, HttpFetcher, endpoint_url
from plugins.datalayer.http_source import Interval, TlsPaths, source_tls

TYPE = "metrics-data-source"
_SCHEMES = ("http", "https")


def _checked_scheme(scheme: str | None) -> str | None:
    if scheme is not None and scheme not in _SCHEMES:
        raise ValueError(f"unsupported scheme: {scheme}; use http or https")
    return scheme


def _checked_path(path: str | None) -> str | None:
    if path is not None and not path.startswith("/"):
        raise ValueError(f"{path!r} must begin with /")
    return path


class MetricsSourceParams(TlsPaths):
    """Parameters of metrics-data-source; what is not given comes from the ``--model-server-metrics-*`` flags."""

    scheme: Annotated[str | None, AfterValidator(_checked_scheme)] = Field(None, description="http or https; default http.")
    path: Annotated[str | None, AfterValidator(_checked_path)] = Field(None, description="Default /metrics.")
    port: Int | None = Field(None, ge=1, le=65535, description="Default: the endpoint's own. Not for pools with several ports.")
    insecure_skip_verify: bool | None = Field(None, description="https without checking the certificate; default true.")
    interval: Interval = Field("", description="Time between two fetches, a duration; default --refresh-metrics-interval.")


class MetricsSource:
    """Fetches pages over connections that are kept alive. An answer that is not 200 and a whole page is a failure.

    Plain pages at IP addresses are read by native code where that is installed; this class then only says where they are.
    Source: llm-d-router: pkg/epp/framework/plugins/datalayer/source/metrics/datasource.go
    """

    output = "prometheus-text"

    def __init__(
        self,
        *,
        scheme: str = "http",
        path: str | None = None,
        default_path: str = "/metrics",
        port: int = 0,
        tls: ClientTls | None = None,
        interval_s: float | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._scheme = scheme
        self._path = path
        self._default_path = path or default_path
        self._port = port
        self._interval_s = interval_s
        self._choosers: list[ChoosesPath] = []
        self._fetcher = HttpFetcher(accept="text/plain; version=0.0.4", tls=tls, timeout_s=timeout_s)

    @property
    def interval_s(self) -> float | None:
        """The time between two fetches; None = ``--refresh-metrics-interval``."""
        return self._interval_s

    def take_paths(self, chooser: ChoosesPath) -> None:
        """Let an extractor choose the path of an endpoint."""
        self._choosers.append(chooser)

    def url(self, endpoint: Endpoint) -> URL:
        """Where the page of an endpoint is."""
        path: str | None = None
        for chooser in self._choosers:
            path = path or chooser.path_for(endpoint, self._path)
        host = _with_port(endpoint, self._port) if self._port else endpoint.metrics_host
        return endpoint_url(self._scheme, host, path or self._default_path)

    def page(self, endpoint: Endpoint) -> PageAddress | None:
        """The same for native code; None if the page needs TLS or the lookup of a name."""
        url = self.url(endpoint)
        if url.scheme != "http" or url.host is None or not _is_ip_address(url.host):
            return None
        return PageAddress(str(url), url.host, url.port or 80, url.raw_authority, url.raw_path_qs)

    async def fetch(self, endpoint: Endpoint) -> bytes:
        """The page.

        Raises:
            OSError: it could not be read whole within a second.
        """
        page = await self._fetcher.get(self.url(endpoint))
        check_page(page)
        return page

    async def close(self) -> None:
        """Close all connections."""
        await self._fetcher.close()


def _is_ip_address(host: str) -> bool:
    """Without a zone, which is a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return "%" not in host


def _with_port(endpoint: Endpoint, port: int) -> str:
    host = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
    return f"{host}:{port}"


def _create(context: PluginContext, params: MetricsSourceParams) -> DataSource:
    flags = context.metrics_flags
    scheme = params.scheme or flags.scheme
    skip_verify = flags.insecure_skip_verify if params.insecure_skip_verify is None else params.insecure_skip_verify
    is_default_path = flags.path == "/metrics"
    return MetricsSource(
        scheme=scheme,
        path=params.path or (None if is_default_path else flags.path),
        port=params.port or flags.port,
        tls=source_tls(context, params, scheme=scheme, verify=not skip_verify),
        interval_s=parse_duration(params.interval) if params.interval else None,
    )


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.DATA_SOURCE}),
    summary="Fetches the metrics page of each endpoint.",
    params=MetricsSourceParams,
    factory=_create,
    example="""
        scheme: https
        path: /metrics
        port: 9400
        insecureSkipVerify: true
    """,
)
