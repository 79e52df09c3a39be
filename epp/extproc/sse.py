"""Find the events of a ``text/event-stream`` body that are worth decoding, and count all of them.

Most chunks hold whole events of which none is interesting; those are recognised by a handful of C-level searches and never
split into lines. Everything else goes through the line scanner, which is exact for any cut, also inside a CRLF.

Source: WHATWG HTML, 9.2.6 "Interpreting an event stream"; protocol decision D9.
"""

from __future__ import annotations

from collections.abc import Sequence

MAX_EVENT_BYTES = 1024 * 1024
"""Longest event whose data is looked at. Longer ones are counted and forgotten, so that a body without line ends cannot
take memory; token events are four orders of magnitude smaller."""

_DATA = b"data:"
_EVENT = b"event:"
_DONE = b"[DONE]"
_NOTHING: tuple[bytes, ...] = ()


class SseScanner:
    """Incremental scanner for one body.

    Args:
        wanted: events without these bytes are not returned; no line end in it.
        dull: occurrences of ``wanted`` inside this longer text do not count; it contains ``wanted`` once.
        max_event_bytes: longest event whose data is kept, lines of other fields not counted.
    """

    __slots__ = (
        "_after_cr",
        "_carry",
        "_dull",
        "_events",
        "_idle",
        "_limit",
        "_lines",
        "_overlong",
        "_size",
        "_skipping",
        "_wanted",
    )

    def __init__(self, wanted: bytes, dull: bytes, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._wanted = wanted
        self._dull = dull
        self._limit = max_event_bytes
        self._events = 0
        self._carry = bytearray()
        self._lines: list[bytes] = []
        self._size = 0
        self._overlong = False
        self._skipping = False
        self._after_cr = False
        self._idle = True

    def feed(self, chunk: bytes) -> Sequence[bytes]:
        """Take the next bytes of the body.

        Returns:
            The data of the interesting events that end in this chunk, in order.
        """
        if self._idle and chunk.endswith(b"\n\n") and not self._is_wanted(chunk) and _DONE not in chunk and b"\r" not in chunk:
            line_ends = chunk.count(b"\n")
            if chunk.startswith(_DATA):
                # All line ends belong to one of the blank lines counted here: each event is a single data line.
                events = 1 if line_ends == 2 else chunk.count(b"\n\ndata:") + 1
                if line_ends == 2 * events:
                    self._events += events
                    return _NOTHING
            elif line_ends == 3 and chunk.startswith(_EVENT) and b"\ndata:" in chunk:
                self._events += 1
                return _NOTHING
        return self._scan(chunk) if chunk else _NOTHING

    def snapshot(self) -> tuple[int, bytes]:
        """What is known so far, as if the body ended here.

        Returns:
            The number of events, ``[DONE]`` not counted, and the data of an interesting event that has not ended (else empty).
        """
        if self._idle:
            return self._events, b""
        lines = self._lines
        if not self._skipping and self._carry.startswith(_DATA):
            lines = [*lines, _value(bytes(self._carry))]
        if self._overlong:
            return self._events + 1, b""
        data = b"\n".join(lines)
        if not lines or data.strip() == _DONE:
            return self._events, b""
        return self._events + 1, data if self._is_wanted(data) else b""

    def _is_wanted(self, data: bytes) -> bool:
        return self._wanted in data and data.count(self._wanted) != data.count(self._dull)

    def _scan(self, chunk: bytes) -> Sequence[bytes]:
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._after_cr = chunk.endswith(b"\r")
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = chunk.split(b"\n")
        rest = lines.pop()
        found: list[bytes] = []
        if lines:
            lines[0] = self._complete(lines[0])
            for line in lines:
                if line.startswith(_DATA):
                    self._add(line)
                elif not line:
                    self._end_event(found)
        self._keep(rest)
        self._idle = not (self._carry or self._lines or self._overlong or self._skipping or self._after_cr)
        return found

    def _complete(self, end: bytes) -> bytes:
        """The whole first line; a dropped one becomes a comment."""
        if self._skipping:
            self._skipping = False
            return b":"
        if not self._carry:
            return end
        line = bytes(self._carry) + end
        self._carry.clear()
        return line

    def _keep(self, rest: bytes) -> None:
        if self._skipping or not rest:
            return
        self._carry += rest
        if self._size + len(self._carry) <= self._limit:
            return
        if self._carry.startswith(_DATA):
            self._drop_event()
            self._carry.clear()
            self._skipping = True
        elif len(self._carry) > self._limit:
            self._carry.clear()
            self._skipping = True

    def _add(self, line: bytes) -> None:
        self._size += len(line)
        if self._overlong or self._size > self._limit:
            self._drop_event()
        else:
            self._lines.append(_value(line))

    def _drop_event(self) -> None:
        self._overlong = True
        self._lines.clear()

    def _end_event(self, found: list[bytes]) -> None:
        if self._overlong:
            self._events += 1
        elif self._lines:
            data = self._lines[0] if len(self._lines) == 1 else b"\n".join(self._lines)
            if data.strip() != _DONE:
                self._events += 1
                if self._is_wanted(data):
                    found.append(data)
        self._lines.clear()
        self._size = 0
        self._overlong = False


def _value(line: bytes) -> bytes:
    """The value of a data line, without the one blank that may follow the colon."""
    return line[6:] if line[5:6] == b" " else line[5:]
