"""What the picker is shown of a request of a replay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from epp.extproc.readers import REQUEST_READERS
from epp.extproc.response import Head
from epp.seam import BodyState, Metadata, ResponseHead


class PlainHeaders:
    """Headers of pairs whose names are lower-case. Implements ``Headers``."""

    __slots__ = ("_last", "_pairs")

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._pairs = pairs
        self._last = dict(pairs)

    def get(self, name: str) -> str | None:
        """The last value of ``name``."""
        return self._last.get(name)

    def items(self) -> Iterator[tuple[str, str]]:
        """All pairs."""
        return iter(self._pairs)


class ReplayedRequest:
    """What the picker is shown. Implements ``seam.Request``.

    Args:
        headers: with the pseudo-headers.
        body: empty for a request without one.
        at_s: now.
        readers: names of the readers that plugins want.
    """

    __slots__ = ("at_s", "body", "body_state", "headers", "metadata", "read")

    def __init__(self, headers: PlainHeaders, body: bytes, at_s: float, readers: Sequence[str]) -> None:
        self.headers = headers
        self.metadata: Metadata = {}
        self.at_s = at_s
        self.body = memoryview(body)
        self.body_state = BodyState.COMPLETE if body else BodyState.ABSENT
        self.read: tuple[object, ...] = ()
        if readers:
            head = Head(headers, None, at_s)
            self.read = tuple([_read(name, head, body) for name in readers])


def _read(name: str, head: ResponseHead, body: bytes) -> object:
    reader = REQUEST_READERS[name](head)
    reader.feed(body)
    return reader.result()
