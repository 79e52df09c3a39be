"""HttpFetcher: GET from endpoints over connections that are kept alive, for polling data sources."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import aiohttp
from yarl import URL

from plugins.datalayer.client_headers import ClientHeaders
from plugins.datalayer.client_tls import ClientTls

MAX_BODY_BYTES = 8 * 1024 * 1024
"""What is larger is not what was asked for, and reading it would hold up the event loop."""
TIMEOUT_S = 1.0
"""Of a whole fetch, as in llm-d-router: pkg/epp/datalayer/collector.go."""


class HttpFetcher:
    """Reads one path of endpoints. An answer that is not 200 and whole is a failure.

    Asks for identity encoding: compressing answers would cost the model server more than sending them. Redirects are followed,
    but not with credentials: these are meant for the endpoint alone.

    Args:
        scheme: http or https.
        path: with its leading slash.
        accept: value of the header ``Accept``.
        tls: of https; None = the system's CAs.
        headers: credentials to send; None = none.
    """

    def __init__(
        self,
        scheme: str,
        path: str,
        *,
        accept: str,
        tls: ClientTls | None = None,
        headers: ClientHeaders | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._scheme = scheme
        self._path = path
        self._accept = accept
        self._tls = tls
        self._headers = headers
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def get(self, host: str) -> bytes:
        """The body.

        Args:
            host: ``host:port``, IPv6 in brackets.

        Raises:
            OSError: it could not be read whole in time.
        """
        session = self._session or self._open()
        url = _url(self._scheme, host, self._path)
        tls = self._tls.context() if self._tls is not None else True
        headers: Mapping[str, str] = self._headers.current() if self._headers is not None else {}
        try:
            async with session.get(url, ssl=tls, headers=headers, allow_redirects=not headers) as response:
                if response.status != 200:
                    raise OSError(f"status {response.status} from {response.url}")
                return await _body(response)
        except TimeoutError:
            raise TimeoutError(f"no whole answer within {self._timeout_s:g} s from {url}") from None
        except aiohttp.ClientError as error:
            raise OSError(f"{type(error).__name__}: {error}") from error

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
        )
        return self._session


async def _body(response: aiohttp.ClientResponse) -> bytes:
    pieces = []
    size = 0
    async for piece in response.content.iter_any():
        size += len(piece)
        if size > MAX_BODY_BYTES:
            raise OSError(f"the answer of {response.url} is larger than {MAX_BODY_BYTES} bytes")
        pieces.append(piece)
    return b"".join(pieces)


@lru_cache(maxsize=4096)
def _url(scheme: str, host: str, path: str) -> URL:
    return URL(f"{scheme}://{host}{path}")
