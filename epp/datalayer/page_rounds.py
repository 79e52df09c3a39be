"""PageRounds: has plain pages read by native code, many with one call.

Pages that are due in one slot of time are read together, a tick later all that came is taken, so that the event loop is woken a
hundred times a second at most, however many endpoints there are. Slots are as long as their pages are few.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from importlib import import_module
from importlib.util import find_spec
from math import ceil
from typing import NamedTuple, Protocol

from epp.datalayer.scrape import Scrape
from epp.framework import log
from epp.framework.interfaces import PageAddress, ReadsFamilies, ServesPages

_logger = log.get(__name__)

TICK_S = 0.01
NATIVE_MODULE = "epp_native"
BURST = 64
"""So many pages are handled in one turn of the event loop: a millisecond, if all of them have changed."""
SLOT_PAGES = 16
"""So many pages are read together before slots get shorter."""
MAX_SLOT_TICKS = 5
_AT_ONCE = 0.0
_SAME_SLOT = 1e-6
"""Part of a slot that is nothing but rounding."""
_EARLY_S = 0.001
"""So much early a timer may be."""

CallLater = Callable[[float, Callable[[], None]], asyncio.Handle]
Page = tuple[int, bytes | None, str | None]
"""(key, page, error); neither = the reader cannot read this one, somebody else must."""


class PageReader(Protocol):
    """Reads pages elsewhere. A target that is being read already is not read a second time."""

    def set_target(
        self, key: int, address: str, port: int, host: str, path: str, url: str, families: Sequence[str] | None
    ) -> None:
        """Where a page is (as in ``PageAddress``), and the families that are read of it; None = the whole page."""
        ...

    def remove_target(self, key: int) -> None: ...
    def exchange(self, keys: Sequence[int]) -> list[Page]:
        """Begin to read these targets; take what came since the last call.

        Raises:
            RuntimeError: it reads nothing any more.
        """
        ...

    def close(self) -> None: ...


def make_page_reader(max_page_bytes: int, timeout_s: float) -> PageReader | None:
    """The native reader; None where it is not installed."""
    if find_spec(NATIVE_MODULE) is None:
        return None
    reader: PageReader = import_module(NATIVE_MODULE).PageReader(max_page_bytes, timeout_s)
    return reader


class _Place(NamedTuple):
    key: int
    page: PageAddress
    families: tuple[str, ...] | None


class PageRounds:
    """Has the pages of scrapes read when they are due.

    Args:
        reader: reads them.
        refused: takes scrapes that the reader cannot serve.
        clock: seconds, monotonic.
        call_later: of the event loop; None = the running one's.
    """

    def __init__(
        self,
        reader: PageReader,
        refused: Callable[[Sequence[Scrape]], None],
        clock: Callable[[], float],
        call_later: CallLater | None = None,
    ) -> None:
        self._reader = reader
        self._refused = refused
        self._clock = clock
        self._call_later = call_later
        self._keys = itertools.count()
        self._places: dict[Scrape, _Place] = {}
        self._scrapes: dict[int, Scrape] = {}
        self._due: list[tuple[float, int]] = []
        self._under_way: dict[int, float] = {}
        """Keys that are being read, and when they were due."""
        self._came: deque[Page] = deque()
        """Taken from the reader, not handled yet."""
        self._slot_s = TICK_S
        self._timer: asyncio.Handle | None = None
        self._ticks_at_s = 0.0
        self._is_lost = False

    def follow(self, scrape: Scrape) -> bool:
        """Read this one from now on, or go on with what its endpoint says now; False if native code cannot."""
        wanted = self._wanted(scrape)
        if wanted is None:
            self.forget(scrape)
            return False
        place = self._places.get(scrape)
        if place is not None and place[1:] == wanted:
            return True
        self.forget(scrape)
        key, (page, families) = next(self._keys), wanted
        try:
            self._reader.set_target(key, page.address, page.port, page.host, page.path, page.url, families)
        except ValueError as error:
            _logger.info("page is left to the event loop", url=page.url, error=str(error))
            return False
        self._places[scrape] = _Place(key, page, families)
        self._scrapes[key] = scrape
        now = self._clock()
        self._measure_slots()
        heappush(self._due, (_AT_ONCE, key))
        self._tick_at(now)
        return True

    def forget(self, scrape: Scrape) -> None:
        """Read it no more; what is under way is thrown away."""
        place = self._places.pop(scrape, None)
        if place is not None:
            del self._scrapes[place.key]
            self._under_way.pop(place.key, None)
            self._reader.remove_target(place.key)
            self._measure_slots()

    def close(self) -> None:
        """End everything; no scrape is told anything any more."""
        if self._timer is not None:
            self._timer.cancel()
        for scrape in tuple(self._places):
            self.forget(scrape)
        self._reader.close()

    def _wanted(self, scrape: Scrape) -> tuple[PageAddress, tuple[str, ...] | None] | None:
        if self._is_lost:
            return None
        try:
            page = _page(scrape)
            return (page, _families(scrape)) if page is not None else None
        except Exception as error:  # noqa: BLE001 — a plugin's bug must not end the scraping
            scrape.misbehaved(error)
            return None

    def _tick(self) -> None:
        self._timer = None
        now = self._clock()
        if not self._came:
            self._exchange(now)
        for _ in range(min(len(self._came), BURST)):
            self._tell(*self._came.popleft(), now)
        self._tick_next(now)

    def _exchange(self, now_s: float) -> None:
        try:
            self._came.extend(self._reader.exchange(self._take_due(now_s)))
        except RuntimeError as error:
            self._lost(error)

    def _tell(self, key: int, page: bytes | None, problem: str | None, now_s: float) -> None:
        scrape = self._scrapes.get(key)
        if scrape is None:
            return
        due_s = self._under_way.pop(key, _AT_ONCE)
        try:
            if page is not None:
                scrape.fetched(page, now_s)
            elif problem is not None:
                scrape.failed(problem)
            else:
                self._hand_over((scrape,))
                return
        except Exception as error:  # noqa: BLE001 — told
            # The others, and this one's next page, are still to come.
            _logger.error("page not handled", exc=error, endpoint=scrape.state.endpoint_id)
        heappush(self._due, (self._next_s(scrape, due_s, now_s), key))

    def _next_s(self, scrape: Scrape, due_s: float, now_s: float) -> float:
        """When to read next. That a slot ends late for this scrape must not cost its next moment."""
        next_s = due_s + scrape.interval_s
        is_missed = self._slot_end_s(next_s) <= now_s
        return scrape.due_s(now_s) if is_missed or scrape.state.consecutive_failures else next_s

    def _take_due(self, now_s: float) -> list[int]:
        due: list[int] = []
        while self._due and self._slot_end_s(self._due[0][0]) <= now_s + _EARLY_S:
            due_s, key = heappop(self._due)
            if key in self._scrapes:
                self._under_way[key] = due_s
                due.append(key)
        return due

    def _tick_next(self, now_s: float) -> None:
        if self._came:
            self._tick_at(now_s)
        elif self._under_way:
            self._tick_at(now_s + TICK_S)
        if self._due:
            self._tick_at(self._slot_end_s(self._due[0][0]))

    def _measure_slots(self) -> None:
        """Few pages share long slots, which wake the process less often; many have short ones, so that no slot is crowded."""
        pages_per_tick = TICK_S * sum(1 / scrape.interval_s for scrape in self._places)
        self._slot_s = TICK_S * min(max(int(SLOT_PAGES / pages_per_tick), 1), MAX_SLOT_TICKS) if pages_per_tick else TICK_S

    def _slot_end_s(self, due_s: float) -> float:
        """When what is due then is read: all that is due in one slot together."""
        return ceil(due_s / self._slot_s - _SAME_SLOT) * self._slot_s

    def _tick_at(self, at_s: float) -> None:
        """Tick then, unless a tick comes before."""
        now = self._clock()
        at_s = max(at_s, now)
        if self._timer is not None:
            if self._ticks_at_s <= at_s:
                return
            self._timer.cancel()
        later = self._call_later or asyncio.get_running_loop().call_later
        self._ticks_at_s = at_s
        self._timer = later(at_s - now, self._tick)

    def _hand_over(self, scrapes: Sequence[Scrape]) -> None:
        for scrape in scrapes:
            self.forget(scrape)
        if scrapes:
            self._refused(scrapes)

    def _lost(self, error: RuntimeError) -> None:
        self._is_lost = True
        self._due.clear()
        self._under_way.clear()
        _logger.error("pages are read by the event loop from now on, which costs more", exc=error)
        self._hand_over(tuple(self._places))


def _page(scrape: Scrape) -> PageAddress | None:
    source = scrape.binding.source
    return source.page(scrape.target.endpoint) if isinstance(source, ServesPages) else None


def _families(scrape: Scrape) -> tuple[str, ...] | None:
    """What all extractors of the source read; None if one of them wants the whole page."""
    families: set[str] = set()
    for entry in scrape.binding.extractors:
        if not isinstance(entry.extractor, ReadsFamilies):
            return None
        families |= entry.extractor.families(scrape.target.endpoint)
    return tuple(sorted(families))
