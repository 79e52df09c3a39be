"""The HTTP server on the metrics port: /metrics, probes, and what operators look at when something is odd.

It shares the event loop with ext_proc, so whatever takes long (rendering, compressing, JSON) happens in a thread of its own;
only the look at live state happens on the loop.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from ssl import CERT_REQUIRED, PROTOCOL_TLS_SERVER, SSLContext, SSLError
from types import MappingProxyType
from typing import NamedTuple

import orjson
from aiohttp import web

from epp.errors import PageError, UsageError
from epp.framework import log
from epp.transport.metrics_page import Exposed, MetricsPage
from epp.transport.profiles import profile_pages

_STOP_TIMEOUT_S = 2.0
"""How long a stop waits for open requests; the pages are small."""
_JSON = "application/json"
_ROOT = "/"
_BROWSER_CHALLENGE = 'Basic realm="endpoint picker: the token as password", charset="UTF-8"'
MAX_BODY_BYTES = 64 * 1024 * 1024
"""Of a request to be explained: as much as the picker takes of a live one by default."""

_logger = log.get("epp.transport.http_server")


class Access(NamedTuple):
    """What the authorizer says of one request: ``status`` 200, 401, 403 or 500, and the text that refused ones get."""

    status: int = HTTPStatus.OK
    message: str = ""


class AccessRequest(NamedTuple):
    """What an authorizer decides by."""

    path: str
    verb: str
    """Lower-case method, as in Kubernetes' SubjectAccessReview."""
    token: str
    """The bearer token; empty if there is none."""


Authorize = Callable[[AccessRequest], Awaitable[Access]]


async def refuse_all(_request: AccessRequest) -> Access:
    """The authorizer where authentication is demanded and there is no API server to ask."""
    return Access(HTTPStatus.UNAUTHORIZED, "Unauthorized")


class PageRequest(NamedTuple):
    """What a page is asked."""

    rest: str = ""
    """Of the path, behind a page whose name ends with a slash."""
    query: Mapping[str, str] = MappingProxyType({})
    body: bytes = b""


JsonSource = Callable[[PageRequest], Awaitable[object]]
"""Gives what a page shows, serialisable by orjson; called on the event loop. None is answered with 404, a ``PageError`` with
400."""


Page = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
"""Answers a request that was let in."""


@dataclass(frozen=True, slots=True)
class HttpSources:
    """Where the pages come from."""

    metrics: Exposed
    not_ready: Callable[[], Sequence[str]]
    """Reasons why the picker is not ready; empty = ready."""
    pages: Mapping[str, JsonSource] = field(default_factory=dict)
    """By path; one that ends with a slash has everything below it."""
    posts: Mapping[str, JsonSource] = field(default_factory=dict)
    """What is asked with a body."""
    answers: Mapping[str, Page] = field(default_factory=dict)
    """What is no JSON, or no end: by path, as ``pages``."""


def reading(read: Callable[[], object]) -> JsonSource:
    """A page that is asked nothing."""

    async def source(_request: PageRequest) -> object:
        return read()

    return source


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """How the server listens and who may read."""

    host: str = "0.0.0.0"
    port: int = 9090
    """0 lets the system choose."""
    authorize: Authorize | None = None
    """None = anyone may read."""
    cert_dir: Path | None = None
    """Directory with ``tls.crt`` and ``tls.key``; None = plain HTTP."""
    client_ca_file: Path | None = None
    """Clients must show a certificate of this authority."""
    pprof: bool = False
    """Serve ``/debug/pprof/``."""
    metrics_cache_s: float = 1.0
    """How long a rendered /metrics is served again: several scrapers must not multiply its cost."""


class HttpServer:
    """The server; one instance listens once.

    Args:
        sources: where the pages come from.
        options: how to listen.
    """

    def __init__(self, sources: HttpSources, options: HttpOptions) -> None:
        self._options = options
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="http-render")
        self._tls: SSLContext | None = None
        self._runner: web.ServerRunner | None = None
        self._own = self._routes(sources, "")
        if options.pprof:
            self._own.pages.update(profile_pages())
        self._mounted: dict[str, _Routes] = {}
        self._all = self._own

    def mount(self, prefix: str, sources: HttpSources) -> None:
        """Show these pages too, below a prefix such as ``/pools/chat``, in place of what was there.

        With the prefix "" they are shown beside the server's own, which come first.
        """
        self._mounted[prefix] = self._routes(sources, prefix)
        self._all = _Routes.together([*self._mounted.values(), self._own])

    def unmount(self, prefix: str) -> None:
        """Show nothing below this prefix any more."""
        if self._mounted.pop(prefix, None) is not None:
            self._all = _Routes.together([*self._mounted.values(), self._own])

    def _routes(self, sources: HttpSources, prefix: str) -> _Routes:
        async def readyz(_request: web.BaseRequest) -> web.Response:
            return _readiness(sources.not_ready())

        metrics = MetricsPage(sources.metrics, self._executor, self._options.metrics_cache_s)
        pages: dict[str, Page] = {
            "/metrics": metrics.page,
            "/healthz": _healthz,
            "/readyz": readyz,
            **{path: self._json_page(source, prefix + path) for path, source in sources.pages.items()},
            **sources.answers,
        }
        posts: dict[str, Page] = {path: self._json_page(source, prefix + path) for path, source in sources.posts.items()}
        return _Routes.below(prefix, pages, posts)

    async def start(self) -> int:
        """Listen and serve.

        Returns:
            The port number bound.

        Raises:
            UsageError: the port cannot be bound, or the TLS files are not usable.
        """
        options = self._options
        if options.cert_dir is not None:
            self._tls = _tls_context(options.cert_dir, options.client_ca_file)
        runner = web.ServerRunner(web.Server(self._serve, access_log=None), shutdown_timeout=_STOP_TIMEOUT_S)
        await runner.setup()
        site = web.TCPSite(runner, options.host, options.port, ssl_context=self._tls)
        try:
            await site.start()
        except OSError as error:
            await runner.cleanup()
            msg = f"--metrics-port: cannot listen on {options.host}:{options.port}: {error.strerror or error}"
            raise UsageError([msg]) from error
        self._runner = runner
        address: tuple[str, int] = runner.addresses[0]
        return address[1]

    def reload_tls(self) -> None:
        """Read the certificate again; connections made from now on get it.

        Raises:
            UsageError: the files are not usable; the certificate in use stays.
        """
        if self._tls is not None and self._options.cert_dir is not None:
            _tls_context(self._options.cert_dir, self._options.client_ca_file)
            _load_key_pair(self._tls, self._options.cert_dir)

    async def stop(self) -> None:
        """Stop listening and end open requests."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        refused = await self._refused(request)
        if refused is not None:
            return refused
        method, path = request.method, request.path
        posted, page = self._all.posts.get(path), self._all.page(path)
        if page is None and posted is None:
            if f"{path}/" in self._all.roots:
                return web.Response(status=HTTPStatus.PERMANENT_REDIRECT, headers={"Location": f"{path.rpartition('/')[2]}/"})
            return _json(HTTPStatus.NOT_FOUND, {"error": f"no page {path}", "paths": self._paths()})
        if method == "POST" and posted is not None:
            page = posted
        elif page is None or method not in ("GET", "HEAD"):
            allowed = "POST" if page is None else "GET"
            error = {"error": f"{method} is not allowed; use {allowed}"}
            return _json(HTTPStatus.METHOD_NOT_ALLOWED, error, headers={"Allow": allowed})
        try:
            return await page(request)
        except PageError as error:
            return _json(HTTPStatus.BAD_REQUEST, {"error": str(error)})
        except Exception as error:  # noqa: BLE001 — a defect in one page is logged and answered, the server goes on
            _logger.error("debug page failed", exc=error, path=request.path)
            return _json(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": f"{request.path} failed; the log says why"})

    def _paths(self) -> list[str]:
        """What can be asked, of what is mounted only where it begins."""
        own = {"": self._own, **{prefix: routes for prefix, routes in self._mounted.items() if not prefix}}
        listed = {path for routes in own.values() for path in (*routes.pages, *routes.posts)}
        return sorted(listed | {f"{prefix}/" for prefix in self._mounted if prefix})

    async def _refused(self, request: web.BaseRequest) -> web.Response | None:
        if self._options.authorize is None:
            return None
        asked = AccessRequest(request.path, request.method.lower(), _token(request))
        try:
            access = await self._options.authorize(asked)
        except Exception as error:  # noqa: BLE001 — whatever went wrong, the answer is no
            _logger.error("authorizer failed", exc=error, path=request.path)
            access = Access(HTTPStatus.INTERNAL_SERVER_ERROR, "authorization failed; the log says why")
        if access.status == HTTPStatus.OK:
            return None
        response = web.Response(status=access.status, text=f"{access.message}\n")
        if access.status == HTTPStatus.UNAUTHORIZED:
            response.headers.add("WWW-Authenticate", "Bearer")
            if request.path.endswith("/"):  # a page for people
                response.headers.add("WWW-Authenticate", _BROWSER_CHALLENGE)
        return response

    def _json_page(self, source: JsonSource, path: str) -> Page:
        async def page(request: web.BaseRequest) -> web.Response:
            body = await _body(request) if request.method == "POST" else b""
            state = await source(PageRequest(request.path[len(path) :], request.query, body))
            if state is None:
                return _json(HTTPStatus.NOT_FOUND, {"error": f"nothing is known of {request.path[len(path) :]!r}"})
            loop = asyncio.get_running_loop()
            body = await loop.run_in_executor(self._executor, _to_json, state)
            return web.Response(body=body, content_type=_JSON)

        return page


@dataclass(slots=True)
class _Routes:
    """Who answers, by path."""

    pages: dict[str, Page] = field(default_factory=dict)
    posts: dict[str, Page] = field(default_factory=dict)
    folders: dict[str, Page] = field(default_factory=dict)
    """Those whose name ends with a slash: they have everything below it."""
    roots: set[str] = field(default_factory=set)
    """Pages that answer for their slash alone."""

    @classmethod
    def below(cls, prefix: str, pages: Mapping[str, Page], posts: Mapping[str, Page]) -> _Routes:
        """Pages with a prefix before their paths."""
        return cls(
            {prefix + path: page for path, page in pages.items()},
            {prefix + path: page for path, page in posts.items()},
            {prefix + path: page for path, page in pages.items() if path.endswith("/") and path != _ROOT},
            {prefix + _ROOT} if _ROOT in pages else set(),
        )

    @classmethod
    def together(cls, some: Iterable[_Routes]) -> _Routes:
        """All of these; of two answers for a path the later one counts."""
        found = cls()
        for routes in some:
            found.pages.update(routes.pages)
            found.posts.update(routes.posts)
            found.folders.update(routes.folders)
            found.roots |= routes.roots
        return found

    def page(self, path: str) -> Page | None:
        """Who answers a path."""
        page = self.pages.get(path)
        if page is not None or path.endswith("/"):
            return page
        return next((below for name, below in self.folders.items() if path.startswith(name)), None)


async def _healthz(_request: web.BaseRequest) -> web.Response:
    return _json(HTTPStatus.OK, {"status": "ok"})


def _readiness(reasons: Sequence[str]) -> web.Response:
    if reasons:
        return _json(HTTPStatus.SERVICE_UNAVAILABLE, {"status": "not ready", "reasons": list(reasons)})
    return _json(HTTPStatus.OK, {"status": "ready", "reasons": []})


def _token(request: web.BaseRequest) -> str:
    """The bearer token. A browser cannot be told one, but asks for a password: to read, the token may be that.

    What changes something or costs much is not to be had so, as browsers send passwords along whoever makes them ask.
    """
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    if scheme.lower() != "basic" or request.method not in ("GET", "HEAD"):
        return ""
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2].strip()
    except (binascii.Error, UnicodeDecodeError):
        return ""


async def _body(request: web.BaseRequest) -> bytes:
    """The body of a request.

    Raises:
        PageError: it is longer than ``MAX_BODY_BYTES``.
    """
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise PageError(f"the body is longer than {MAX_BODY_BYTES} bytes")
    return bytes(body)


def _to_json(state: object) -> bytes:
    return orjson.dumps(state, default=str, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _json(status: int, document: object, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(status=status, body=_to_json(document), content_type=_JSON, headers=headers)


def _tls_context(cert_dir: Path, client_ca_file: Path | None) -> SSLContext:
    context = SSLContext(PROTOCOL_TLS_SERVER)
    _load_key_pair(context, cert_dir)
    if client_ca_file is None:
        return context
    try:
        context.load_verify_locations(client_ca_file)
    except (OSError, SSLError) as error:
        msg = f"--metrics-client-ca-file: {client_ca_file} cannot be used: {error}"
        raise UsageError([msg]) from error
    context.verify_mode = CERT_REQUIRED
    return context


def _load_key_pair(context: SSLContext, cert_dir: Path) -> None:
    certificate, key = cert_dir / "tls.crt", cert_dir / "tls.key"
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, SSLError) as error:
        msg = f"--metrics-cert-dir: {certificate} and {key} cannot be used: {error}; both must be PEM files of one key pair"
        raise UsageError([msg]) from error
