"""The files of the page: HTML, style and scripts, read once. They hold nothing of this process, and nothing of elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path

from aiohttp import web

from epp.transport.http_server import Page

FOLDER = Path(__file__).parent / "static"
INDEX = "index.html"
PREFIX = "/page/"
"""Of the paths of all files but the index."""
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Nothing of elsewhere, nothing inline, and no text that becomes markup: names and headers come from clients."""


def static_pages() -> Mapping[str, Page]:
    """By path."""
    files = {path.name: path for path in FOLDER.iterdir() if path.suffix in _TYPES}
    return {"/" if name == INDEX else PREFIX + name: _page(path) for name, path in files.items()}


def _page(path: Path) -> Page:
    body = path.read_bytes()
    etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    headers = {
        "Content-Type": _TYPES[path.suffix],
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
        "ETag": etag,
    }

    async def page(request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers={"ETag": etag})
        return web.Response(body=body, headers=headers)

    return page
