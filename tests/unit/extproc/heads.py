"""Headers and response heads for tests, and ways to cut a body."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import strategies as st

from epp.seam import Metadata


class PlainHeaders:
    """Headers from pairs, as a transport would show them."""

    def __init__(self, *pairs: tuple[str, str]) -> None:
        self._pairs = pairs

    def get(self, name: str) -> str | None:
        """The last value of ``name``, or None."""
        return dict(self._pairs).get(name)

    def items(self) -> Iterator[tuple[str, str]]:
        """All pairs."""
        return iter(self._pairs)


@dataclass(frozen=True)
class PlainHead:
    """A response head."""

    headers: PlainHeaders
    status: int = 200
    metadata: Metadata = field(default_factory=dict)
    at_s: float = 0.0


def head(content_type: str | None = "application/json", *more: tuple[str, str]) -> PlainHead:
    """A head with this content type (None = no such header) and further headers."""
    first = () if content_type is None else (("content-type", content_type),)
    return PlainHead(PlainHeaders(*first, *more))


SSE = "text/event-stream"


def cut(body: bytes, places: list[int]) -> list[bytes]:
    """``body`` in pieces; a place counts modulo the length, equal places give empty pieces."""
    borders = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in pairwise(borders)]


places = st.lists(st.integers(0, 10_000), max_size=12)
"""Where to cut."""


def every_cut(body: bytes) -> Iterator[list[bytes]]:
    """``body`` whole, in two pieces at every place, and in single bytes."""
    yield [body]
    for place in range(1, len(body)):
        yield [body[:place], body[place:]]
    yield [body[i : i + 1] for i in range(len(body))]
