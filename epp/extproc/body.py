"""Request bodies: collect them within limits, replace spans, cut them into legal pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from epp.seam import BodyState

MAX_PIECE_BYTES = 62_000
"""Longest ``StreamedBodyResponse.body``: some data planes cap a message at 64 KB, and Envoy advises the same.

Source: llm-d/llm-d-router: pkg/common/envoy/chunking.go
"""

Splices = Sequence[tuple[int, int, bytes]]

NO_BODY = memoryview(b"")


class Budget:
    """Bytes that all request bodies together hold in memory.

    Args:
        limit_bytes: 0 means no limit.
    """

    __slots__ = ("limit_bytes", "used_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0


class Frame(NamedTuple):
    """One message of a gRPC request: its place in the body, and the flags to echo."""

    start: int
    stop: int
    end: bool
    compressed: bool
    without_message: bool


class Body:
    """One request body while it arrives.

    Args:
        budget: shared by all bodies.
        max_bytes: limit for this one; 0 means none.
    """

    __slots__ = ("_budget", "_chunks", "_max_bytes", "size_bytes")

    def __init__(self, budget: Budget, max_bytes: int) -> None:
        self._budget = budget
        self._max_bytes = max_bytes
        self._chunks: list[bytes] = []
        self.size_bytes = 0

    def add(self, data: bytes) -> BodyState | None:
        """Keep ``data``.

        Returns:
            None, or which limit it broke; everything kept so far is dropped then.
        """
        size = len(data)
        if not size:
            return None
        budget = self._budget
        if self._max_bytes and self.size_bytes + size > self._max_bytes:
            self.release()
            return BodyState.TOO_LARGE
        if budget.limit_bytes and budget.used_bytes + size > budget.limit_bytes:
            self.release()
            return BodyState.NO_MEMORY
        self.size_bytes += size
        budget.used_bytes += size
        self._chunks.append(data)
        return None

    def whole(self) -> memoryview:
        """All bytes; copied only if they came in several pieces."""
        chunks = self._chunks
        if len(chunks) > 1:
            self._chunks = chunks = [b"".join(chunks)]
        return memoryview(chunks[0]) if chunks else NO_BODY

    def release(self) -> None:
        """Give the memory back; may be called again."""
        self._budget.used_bytes -= self.size_bytes
        self.size_bytes = 0
        self._chunks = []


def splice(body: memoryview, splices: Splices) -> memoryview:
    """The body with its spans replaced; the same object if there are none.

    Raises:
        ValueError: the spans are not ascending, overlap, or leave the body.
    """
    if not splices:
        return body
    pieces: list[bytes | memoryview] = []
    done = 0
    for start, stop, replacement in splices:
        if not done <= start <= stop <= len(body):
            raise ValueError(
                f"splice ({start}, {stop}) does not follow {done} within a body of {len(body)} bytes; "
                "spans must be ascending and must not overlap"
            )
        pieces += (body[done:start], replacement)
        done = stop
    pieces.append(body[done:])
    return memoryview(b"".join(pieces))


def splice_frames(body: memoryview, frames: Sequence[Frame], splices: Splices) -> Iterator[tuple[memoryview, Frame]]:
    """The messages of a gRPC request, each with its own spans replaced.

    Raises:
        ValueError: a span is in no single message, or as for ``splice``.
    """
    used = 0
    for frame in frames:
        own = [(a - frame.start, b - frame.start, new) for a, b, new in splices if frame.start <= a and b <= frame.stop]
        used += len(own)
        yield splice(body[frame.start : frame.stop], own), frame
    if used != len(splices):
        raise ValueError(f"{len(splices) - used} of {len(splices)} splices are not within one gRPC message")


def pieces(data: bytes | memoryview) -> Sequence[bytes | memoryview]:
    """``data`` in pieces of at most ``MAX_PIECE_BYTES``; one empty piece if it is empty. Nothing is copied."""
    if len(data) <= MAX_PIECE_BYTES:
        return (data,)
    view = memoryview(data)
    return [view[start : start + MAX_PIECE_BYTES] for start in range(0, len(view), MAX_PIECE_BYTES)]
