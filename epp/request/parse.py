"""Path → parser plugin → ParsedBody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from epp.errors import ErrorCode, RequestError
from epp.framework.interfaces import Parser
from epp.framework.types import RAW_BODY, ParsedBody
from epp.request.headers import MODEL_REWRITE, lookup
from epp.seam import BodyState, Request

_CACHE_LIMIT = 1024
"""Distinct paths remembered; paths are chosen by clients."""


@dataclass(frozen=True, slots=True)
class NamedParser:
    """A parser instance with its name for logs."""

    name: str
    type: str
    plugin: Parser


class ParserTable:
    """Chooses the parser of a path: the longest claimed suffix at a segment boundary, else the first that takes all.

    Source: llm-d-router: pkg/epp/handlers/parsers.go (with a segment boundary).
    """

    def __init__(self, parsers: Sequence[NamedParser]) -> None:
        self._claims: list[tuple[str, NamedParser]] = []
        self._fallback: NamedParser | None = None
        self.ignored: list[tuple[NamedParser, str]] = []
        """Parsers that can never be asked, with the reason."""
        seen: set[str] = set()
        for parser in parsers:
            if parser.type in seen:
                self.ignored.append((parser, f"another parser of type {parser.type} comes earlier"))
            elif self._fallback is not None:
                self.ignored.append((parser, f"{self._fallback.name} comes earlier and takes every path"))
            elif not parser.plugin.paths:
                self._fallback = parser
            else:
                self._claims.extend((path.strip("/ "), parser) for path in parser.plugin.paths)
            seen.add(parser.type)
        self._claims.sort(key=lambda claim: -len(claim[0]))
        self._known: dict[str, NamedParser] = {}

    @property
    def parsers(self) -> list[NamedParser]:
        """Those that can be asked, each once."""
        active = {id(parser): parser for _, parser in self._claims}
        if self._fallback is not None:
            active[id(self._fallback)] = self._fallback
        return list(active.values())

    def resolve(self, path: str) -> NamedParser:
        """The parser of ``path`` (without query).

        Raises:
            RequestError: BAD_REQUEST if no parser takes it.
        """
        parser = self._known.get(path)
        if parser is not None:
            return parser
        trimmed = path.strip("/ ")
        parser = next((parser for claim, parser in self._claims if _is_claimed(trimmed, claim)), self._fallback)
        if parser is None:
            raise RequestError(ErrorCode.BAD_REQUEST, f"no parser registered matching path suffix for: {path}")
        if len(self._known) < _CACHE_LIMIT:
            self._known[path] = parser
        return parser

    def reads(self, path: str) -> bool:
        """Bodies of ``path`` (without query) are read; those of paths that nobody claims are forwarded as they are.

        Raises:
            RequestError: as ``resolve``.
        """
        return bool(self.resolve(path.rstrip("/") or "/").plugin.paths)


def read_body(parsers: ParserTable, path: str, request: Request) -> ParsedBody:
    """What a request asks for.

    Args:
        path: without query.

    Raises:
        RequestError: a parser refuses the body, or it did not come as a whole.
    """
    state = request.body_state
    if state is BodyState.COMPLETE:
        path = path.rstrip("/") or "/"
        return parsers.resolve(path).plugin.parse(path, request.headers, request.body)
    if state is BodyState.UNSEEN:
        if lookup(request.headers, *MODEL_REWRITE):
            raise RequestError(ErrorCode.BAD_REQUEST, "request body not available for model rewrite")
        return RAW_BODY
    code, text = _BODY_ERRORS[state]
    raise RequestError(code, text)


NO_MEMORY = "too many request bodies in memory, try again in a moment"
"""Text of a refusal with 503."""
_BODY_ERRORS = {
    BodyState.TIMED_OUT: (ErrorCode.REQUEST_TIMEOUT, "request body incomplete"),
    BodyState.TOO_LARGE: (ErrorCode.PAYLOAD_TOO_LARGE, "request body is larger than this service accepts"),
    BodyState.NO_MEMORY: (ErrorCode.SERVICE_UNAVAILABLE, NO_MEMORY),
}


def _is_claimed(path: str, claim: str) -> bool:
    """``path`` ends with the segments of ``claim``, whose last one may stand for any."""
    if claim.endswith("/*"):
        path, _, last = path.rpartition("/")
        if not last:
            return False
        claim = claim[:-2]
    return path == claim or path.endswith("/" + claim)
