"""The response of one stream: what was seen of it, counted, read and renamed while it passes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from epp.extproc.media import is_encoded
from epp.extproc.messages import WireHeaders
from epp.extproc.readers import READERS, Reader, Renamer, make_renamer
from epp.seam import Chunk, End, Headers, Metadata, Observe, Outcome, Plan

NO_METADATA: Metadata = {}


class Head:
    """The response headers, read on access."""

    __slots__ = ("at_s", "headers", "metadata")

    def __init__(self, headers: Headers, metadata: Metadata | None, at_s: float) -> None:
        self.headers = headers
        self.metadata = metadata or NO_METADATA
        self.at_s = at_s

    @property
    def status(self) -> int:
        """HTTP status; 0 if none was sent or it is not a number."""
        text = self.headers.get(":status") or self.headers.get("status") or ""
        return int(text) if text.isascii() and text.isdigit() else 0


class NoHeaders:
    """Stands for headers that the data plane does not show."""

    __slots__ = ()

    def get(self, name: str) -> str | None:  # noqa: ARG002 — the protocol's signature
        """None, always."""
        return None

    def items(self) -> Iterator[tuple[str, str]]:
        """Nothing."""
        return iter(())

    def names(self) -> frozenset[str]:
        """Nothing."""
        return frozenset()


class ResponseSide:
    """Counts, readers and rename of one response.

    The default plan costs a few additions for each chunk.

    Args:
        gap_bounds_s: upper bounds of the buckets for gaps between chunks, ascending.
    """

    __slots__ = (
        "_chunks",
        "_first_s",
        "_gap_bounds_s",
        "_gaps",
        "_gaps_s",
        "_last_s",
        "_readable",
        "_readers",
        "_size_bytes",
        "busy_s",
        "ended",
        "head",
        "observe",
        "renamer",
        "seen",
        "streaming",
        "trailers",
    )

    def __init__(self, gap_bounds_s: tuple[float, ...]) -> None:
        self.seen = False
        """Any message of the response came."""
        self.ended = False
        self.trailers = False
        """Trailers came."""
        self.head: Head | None = None
        self.streaming = False
        self.observe = Observe.OFF
        self.renamer: Renamer | None = None
        self.busy_s = 0.0
        self._gap_bounds_s = gap_bounds_s
        self._readers: tuple[Reader, ...] = ()
        self._readable = False
        self._chunks = 0
        self._size_bytes = 0
        self._first_s: float | None = None
        self._last_s: float | None = None
        self._gaps: list[int] = []
        self._gaps_s = 0.0

    def begin(self, headers: WireHeaders | None, metadata: Metadata | None, now: float, plan: Plan, may_rename: bool) -> None:
        """The response begins; ``headers`` is None if the data plane does not show them.

        Args:
            plan: the route's plan, or the default one.
            may_rename: the body mode lets us change bytes and hold some back.
        """
        self.seen = True
        head = Head(NoHeaders() if headers is None else headers, metadata, now)
        if headers is not None:
            self.head = head
        self.streaming = plan.streams or "text/event-stream" in (head.headers.get("content-type") or "").lower()
        self.observe = plan.observe if self.streaming else Observe.OFF
        if plan.readers:
            self._readers = tuple([READERS[name](head) for name in plan.readers])
            self._readable = not is_encoded(head)
        if plan.rename is not None and may_rename:
            self.renamer = make_renamer(head, plan.rename)

    def take(self, data: bytes, now: float) -> None:
        """Count and read a chunk that is not empty."""
        self._chunks += 1
        self._size_bytes += len(data)
        last_s = self._last_s
        if last_s is None:
            self._first_s = now
        elif self.streaming:
            self._count_gap(now - last_s)
        self._last_s = now
        if self._readable:
            for reader in self._readers:
                reader.feed(data)

    def _count_gap(self, gap_s: float) -> None:
        bounds = self._gap_bounds_s
        if not self._gaps:
            self._gaps = [0] * (len(bounds) + 1)
        self._gaps[bisect_left(bounds, gap_s)] += 1
        self._gaps_s += gap_s

    def results(self) -> tuple[object, ...]:
        """What the readers know so far."""
        return tuple([reader.result() for reader in self._readers])

    def observed(self, data: bytes, end: bool, now: float) -> Chunk:
        """The chunk as the plan wants to be told of it; call only if it does."""
        if self.observe is Observe.FIRST:
            self.observe = Observe.OFF
        return Chunk(data, end, now, self.results())

    def outcome(self, end: End, complete: bool, error: str, now: float) -> Outcome:
        """The facts of the stream as they are now."""
        return Outcome(
            end=end,
            complete=complete,
            error=error,
            head=self.head,
            streaming=self.streaming,
            chunks=self._chunks,
            size_bytes=self._size_bytes,
            read=self.results(),
            first_s=self._first_s,
            last_s=self._last_s,
            end_s=now,
            busy_s=self.busy_s,
            gaps=tuple(self._gaps),
            gaps_s=self._gaps_s,
        )
