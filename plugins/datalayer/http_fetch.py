"""HttpFetcher: GET from endpoints over connections that are kept alive, for polling data sources."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache

import aiohttp
from yarl import URL

from epp.framework.prometheus_text import MAX_PAGE_BYTES
from plugins.datalayer.client_headers import ClientHeaders
from plugins.datalayer.client_tls import ClientTls

MAX_BODY_BYTES = MAX_PAGE_BYTES
"""What is larger is not what was asked for, and reading it would hold up the event loop."""
TIMEOUT_S = 1.0
"""Of a whole fetch, as in llm-d-router: pkg/epp/datalayer/collector.go."""


class HttpFetcher:
    """Reads URLs. An answer that is not 200 and whole is a failure.

    Asks for identity encoding: compressing answers would cost the model server more than sending them. Redirects are followed,
    but not with credentials: these are meant for the endpoint alone.

    Args:
        accept: value of the header ``Accept``.
        tls: of https; None = the system's CAs.
        headers: credentials to send; None = none.
    """

    def __init__(
        self,
        *,
        accept: str,
        tls: ClientTls | None = None,
        headers: ClientHeaders | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._accept = accept
        self._tls = tls
        self._headers = headers
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def get(self, url: URL) -> bytes:
        """The body.

        Raises:
            OSError: it could not be read whole in time.
        """
        session = self._session or self._open()
        tls = self._tls.context() if self._tls is not None else True
        headers: Mapping[str, str] = self._headers.current() if self._headers is not None else {}
        try:
            async with session.get(url, ssl=tls, headers=headers, allow_redirects=not headers) as response:
                if response.status != 200:
                    raise OSError(f"status {response.status} from {url}")
                return await _body(response, url)
        except TimeoutError:
            raise TimeoutError(f"no whole answer within {self._timeout_s:g} s from {url}") from None
        except aiohttp.ClientError as error:
            raise OSError(_explained(error, url)) from error

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
            headers={"Accept": self._accept, "Accept-Encoding": "identity", "User-Agent": "endpoint-picker"},
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            read_bufsize=256 * 1024,
        )
        return self._session


@lru_cache(maxsize=4096)
def endpoint_url(scheme: str, host: str, path: str) -> URL:
    """The URL of a path at an endpoint.

    Args:
        host: ``host:port``, IPv6 in brackets.
        path: with its leading slash.
    """
    return URL(f"{scheme}://{host}{path}")


async def _body(response: aiohttp.ClientResponse, url: URL) -> bytes:
    pieces = []
    size = 0
    async for piece in response.content.iter_any():
        size += len(piece)
        if size > MAX_BODY_BYTES:
            raise OSError(f"the answer of {url} is larger than {MAX_BODY_BYTES} bytes")
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _explained(error: aiohttp.ClientError, url: URL) -> str:
    """What went wrong, in the words of ``native/src/pages/fetch.rs``."""
    if isinstance(error, aiohttp.ClientSSLError):
        return f"cannot connect to {url}: {error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        reason = error.os_error
        return f"cannot connect to {url}: {os.strerror(reason.errno) if reason.errno else reason}"
    if isinstance(error, aiohttp.ClientPayloadError) and "content-encoding" in str(error):
        return f"the answer of {url} cannot be unpacked"
    if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError | aiohttp.ClientOSError):
        return f"the connection to {url} was lost before its whole answer came"
    if isinstance(error, aiohttp.TooManyRedirects):
        return f"too many redirects from {url}"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"the answer of {url} is no HTTP"
    return f"{type(error).__name__}: {error}"
