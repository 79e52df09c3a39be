"""Read a response of OpenAI's Responses API as one JSON document, whether it comes as one or as a stream of events.

The last event of a stream holds the whole response object; nothing but that event is kept.

Source: OpenAI API reference, "Streaming events" of the Responses API.
"""

from __future__ import annotations

import orjson

from epp.extproc.media import is_encoded, is_event_stream, media_type
from epp.extproc.sse import SseScanner
from epp.seam import ResponseHead

MAX_DOCUMENT_BYTES = 8 * 1024 * 1024
"""Longest document that is kept; several times what an answer of the largest models needs, images apart."""

_LAST_EVENTS = frozenset({"response.completed", "response.incomplete", "response.failed"})


class _Whole:
    """A body that is the document."""

    __slots__ = ("_chunks", "_held")

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._held = 0

    def feed(self, data: bytes) -> None:
        self._held += len(data)
        if self._held > MAX_DOCUMENT_BYTES:
            self._chunks.clear()
        elif data:
            self._chunks.append(data)

    def result(self) -> bytes | None:
        if len(self._chunks) > 1:
            self._chunks = [b"".join(self._chunks)]
        return self._chunks[0] if self._chunks else None


class _Events:
    """A ``text/event-stream`` body."""

    __slots__ = ("_document", "_scanner")

    def __init__(self) -> None:
        # Only events about the response as a whole have a member of this name; a text that contains it has backslashes.
        self._scanner = SseScanner(b'"response"', b'"response":null', MAX_DOCUMENT_BYTES)
        self._document: bytes | None = None

    def feed(self, data: bytes) -> None:
        for event in self._scanner.feed(data):
            self._document = _response_of(event) or self._document

    def result(self) -> bytes | None:
        if self._document is not None:
            return self._document
        _, unfinished = self._scanner.snapshot()
        return _response_of(unfinished) if unfinished else None


class _Nothing:
    __slots__ = ()

    def feed(self, data: bytes) -> None:
        pass

    def result(self) -> None:
        return None


def openai_response(head: ResponseHead) -> _Whole | _Events | _Nothing:
    """Reader of a response object; its result is bytes, or None while the response is not there as a whole."""
    if is_encoded(head):
        return _Nothing()
    return _Events() if is_event_stream(media_type(head)) else _Whole()


def _response_of(event: bytes) -> bytes | None:
    """The response object of a stream's last event, None for all others."""
    try:
        document = orjson.loads(event)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(document, dict) or document.get("type") not in _LAST_EVENTS:
        return None
    response = document.get("response")
    return orjson.dumps(response) if isinstance(response, dict) else None
