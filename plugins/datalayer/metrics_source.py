"""metrics-data-source: fetch the Prometheus page of each endpoint."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated

import aiohttp
from pydantic import AfterValidator, Field
from yarl import URL

from epp.framework.handle import PluginContext
from epp.framework.interfaces import ChoosesPath, DataSource, Role
from epp.framework.params import Int, parse_duration
from epp.framework.prometheus_text import check_page
from epp.framework.registry import PluginType
from epp.framework.types import Endpoint
from plugins.datalayer.client_tls import ClientTls, TlsFiles
from plugins.datalayer.http_source import Interval, TlsPaths

TYPE = "metrics-data-source"
MAX_PAGE_BYTES = 8 * 1024 * 1024
"""A page of eight engines has 0.34 MB; more than this is no metrics page."""
TIMEOUT_S = 1.0
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

    Asks for identity encoding: compressing every page would cost the model server more than sending it.
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
        self._tls = tls
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._choosers: list[ChoosesPath] = []
        self._session: aiohttp.ClientSession | None = None

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
        return _url(self._scheme, host, path or self._default_path)

    async def fetch(self, endpoint: Endpoint) -> bytes:
        """The page.

        Raises:
            OSError: it could not be read whole within a second.
        """
        session = self._session or self._open()
        tls = self._tls.context() if self._tls is not None else True
        try:
            async with session.get(self.url(endpoint), ssl=tls) as response:
                if response.status != 200:
                    raise OSError(f"status {response.status} from {response.url}")
                page = await _body(response)
        except TimeoutError:
            raise TimeoutError(f"no whole answer within {self._timeout_s:g} s from {self.url(endpoint)}") from None
        except aiohttp.ClientError as error:
            raise OSError(f"{type(error).__name__}: {error}") from error
        check_page(page)
        return page

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        """The session belongs to the running loop, so it cannot exist before the first fetch."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=10.0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept": "text/plain; version=0.0.4", "Accept-Encoding": "identity", "User-Agent": "endpoint-picker"},
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            read_bufsize=256 * 1024,
        )
        return self._session


async def _body(response: aiohttp.ClientResponse) -> bytes:
    pieces = []
    size = 0
    async for piece in response.content.iter_any():
        size += len(piece)
        if size > MAX_PAGE_BYTES:
            raise OSError(f"the page of {response.url} is larger than {MAX_PAGE_BYTES} bytes")
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


@lru_cache(maxsize=4096)
def _url(scheme: str, host: str, path: str) -> URL:
    return URL(f"{scheme}://{host}{path}")


def _with_port(endpoint: Endpoint, port: int) -> str:
    host = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
    return f"{host}:{port}"


def _create(context: PluginContext, params: MetricsSourceParams) -> DataSource:
    flags = context.metrics_flags
    scheme = params.scheme or flags.scheme
    skip_verify = flags.insecure_skip_verify if params.insecure_skip_verify is None else params.insecure_skip_verify
    files = TlsFiles(params.ca_cert_path, params.client_cert_path, params.client_key_path)
    if params.ca_cert_path and (skip_verify or scheme != "https"):
        needed = "insecureSkipVerify: false" if scheme == "https" else "scheme: https"
        context.warn("caCertPath", f"not used without {needed}")
    # Files are those of the machine that serves: a mere check does not look for them.
    has_files = context.runtime is not None or files == TlsFiles()
    tls = ClientTls(files, verify=not skip_verify, clock=context.clock) if scheme == "https" and has_files else None
    is_default_path = flags.path == "/metrics"
    return MetricsSource(
        scheme=scheme,
        path=params.path or (None if is_default_path else flags.path),
        port=params.port or flags.port,
        tls=tls,
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
