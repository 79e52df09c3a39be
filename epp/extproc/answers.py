"""The messages that answer a stream: header edits as deltas, a routed request, a piece of the response.

Only what changes is sent: headers that are echoed would collapse duplicates and undo removals (decision D4).
"""

from __future__ import annotations

from collections.abc import Sequence

from epp.extproc.body import MAX_PIECE_BYTES, Frame, pieces, splice, splice_frames
from epp.extproc.messages import (
    BodyAnswer,
    Effect,
    HeadersAnswer,
    Mode,
    ResponseBody,
    StreamedBody,
    TrailersAnswer,
    WireHeaders,
)
from epp.seam import Edits, Metadata, Names, Pairs, Route, Settings

REQUEST_HEADERS_PASS = HeadersAnswer(response=False)
REQUEST_BODY_PASS = BodyAnswer(response=False)
REQUEST_TRAILERS_PASS = TrailersAnswer(response=False)
RESPONSE_BODY_PASS = BodyAnswer(response=True)
RESPONSE_TRAILERS_PASS = TrailersAnswer(response=True)

WHOLE = (Mode.BUFFERED, Mode.BUFFERED_PARTIAL)
"""Modes that bring a body in one message."""

DUPLEX = (Mode.FULL_DUPLEX, Mode.GRPC)
"""Modes whose answers are ``StreamedBody`` and may come whenever we like."""


class Rules:
    """Settings as the machines use them: made once, shared by all streams that began under them."""

    __slots__ = ("plain_response", "response_names", "settings")

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.response_names: Names = frozenset(name for name, _ in settings.response_set)
        self.plain_response = HeadersAnswer(response=True, set=settings.response_set)
        """The answer to response headers that nobody edits; one object, so that a codec can keep its bytes."""


def response_headers_answer(rules: Rules, headers: WireHeaders, edits: Edits | None) -> HeadersAnswer:
    """The answer to response headers; the handler's edits win over the settings."""
    settings = rules.settings
    if edits is None or edits == _NO_EDITS:
        remove = settings.response_strip & headers.names()
        if not remove:
            return rules.plain_response
        return rules.plain_response._replace(remove=_sorted(remove - rules.response_names))
    changed = {name for name, _ in edits.set}
    kept = tuple([pair for pair in settings.response_set if pair[0] not in changed and pair[0] not in edits.remove])
    pairs = kept + edits.set
    remove = (settings.response_strip | edits.remove) & headers.names()
    return HeadersAnswer(response=True, set=pairs, remove=_sorted(remove - {name for name, _ in pairs}))


_NO_EDITS = Edits()


def routed_headers(rules: Rules, headers: WireHeaders, edits: Edits) -> tuple[Pairs, tuple[str, ...]]:
    """Which request headers to set and which to remove."""
    remove = (rules.settings.request_strip | edits.remove) & headers.names()
    if remove:
        remove = remove - {name for name, _ in edits.set}
    return edits.set, _sorted(remove)


def routed_at_headers(rules: Rules, headers: WireHeaders, route: Route) -> HeadersAnswer:
    """The routing answer where it belongs to the headers."""
    pairs, remove = routed_headers(rules, headers, route.headers)
    return HeadersAnswer(False, pairs, remove, clear_route_cache=True, metadata=route.metadata or None)


def routed_at_body(rules: Rules, headers: WireHeaders, route: Route, body: memoryview) -> BodyAnswer:
    """The routing answer of the modes whose headers were answered before the body came.

    Raises:
        ValueError: the route's splices do not fit the body.
    """
    pairs, remove = routed_headers(rules, headers, route.headers)
    changed = splice(body, route.splices) if route.splices else None
    if changed is not None:
        pairs = (*pairs, ("content-length", str(len(changed))))
    return BodyAnswer(False, pairs, remove, clear_route_cache=True, metadata=route.metadata or None, body=changed)


def routed_body(body: memoryview, route: Route, frames: Sequence[Frame] | None, ends: bool) -> list[Effect]:
    """The body of a routed request in duplex modes.

    Args:
        body: as it came.
        route: says what to replace.
        frames: the messages of a gRPC request, None in full duplex.
        ends: the body itself ends the request; False if trailers do.

    Raises:
        ValueError: the route's splices do not fit the body.
    """
    if frames is None:
        return streamed(False, splice(body, route.splices), ends)
    return [
        StreamedBody(False, data, frame.end, None, frame.compressed, frame.without_message)
        for data, frame in splice_frames(body, frames, route.splices)
    ]


def streamed(response: bool, data: bytes | memoryview, end: bool) -> list[Effect]:
    """``data`` as legal pieces, the last one with the end flag."""
    parts = pieces(data)
    if len(parts) == 1:
        return [StreamedBody(response, data, end)]
    answers: list[Effect] = [StreamedBody(response, part) for part in parts[:-1]]
    answers.append(StreamedBody(response, parts[-1], end))
    return answers


def response_body_answer(mode: Mode, message: ResponseBody, data: bytes) -> list[Effect]:
    """The answer to one response body message.

    Args:
        mode: the response body mode.
        message: as it came.
        data: what to forward instead of its bytes; the same object if nothing changed.
    """
    if mode is Mode.FULL_DUPLEX:
        if not data and not message.end:
            return []
        return [StreamedBody(True, data, message.end)] if len(data) <= MAX_PIECE_BYTES else streamed(True, data, message.end)
    if mode is Mode.GRPC:
        return [StreamedBody(True, data, message.end, None, message.compressed, message.without_message)]
    if data is message.data or data == message.data:
        return [RESPONSE_BODY_PASS]
    return [BodyAnswer(True, (("content-length", str(len(data))),), body=data)]


def with_metadata(effects: list[Effect], metadata: Metadata) -> list[Effect]:
    """The same effects, the last answer of them carrying ``metadata``."""
    for index in range(len(effects) - 1, -1, -1):
        answer = effects[index]
        if isinstance(answer, HeadersAnswer | BodyAnswer | StreamedBody | TrailersAnswer):
            return [*effects[:index], answer._replace(metadata=metadata), *effects[index + 1 :]]
    return effects


def _sorted(names: frozenset[str] | set[str]) -> tuple[str, ...]:
    return tuple(sorted(names)) if names else ()
