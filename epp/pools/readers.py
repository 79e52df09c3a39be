"""The request readers of several pools behind one transport: it feeds all of them, and each pool gets its own results.

A request is read before it is known whose it is, so that the transport has the readers of all pools. A reader once asked for
keeps its place for as long as the process lives: streams that were opened before a change are read by fewer, never by others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class ReaderUnion:
    """Names of readers, each once, in the order in which they were first asked for."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """All so far, as ``seam.Settings.request_readers`` has them."""
        return tuple(self._places)

    def places(self, names: Iterable[str]) -> tuple[int, ...]:
        """Where the results of these readers are in ``seam.Request.read``, in the order of ``names``; new ones come last."""
        return tuple([self._places.setdefault(name, len(self._places)) for name in names])


def own_results(read: Sequence[object], places: Sequence[int]) -> tuple[object, ...]:
    """The results at these places; () if the stream is older than one of the readers, as of a body that nobody read."""
    if places and max(places) >= len(read):
        return ()
    return tuple([read[place] for place in places])
