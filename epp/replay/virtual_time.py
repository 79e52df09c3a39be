"""An event loop whose time does not pass but jumps: to whatever is due next, as soon as nothing is left to do before.

All that waits by asyncio's own means (timers, timeouts, ``sleep``, tasks) works as in reality, only at once, and in the same
order each time. What would take it out of this world is either done on the spot (work for threads takes no time) or fails as a
broken network does (connections).
"""

from __future__ import annotations

import asyncio
import errno
import selectors
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, NoReturn, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

START_S = 1000.0
"""Time of a new loop. Not 0, which many a field takes for "not yet"."""
_NO_NETWORK = "there is no network in virtual time"


class NothingLeftError(RuntimeError):
    """Everybody waits and nothing is due: the loop would stand still for ever."""


class _Jump(selectors.DefaultSelector):
    """A selector that does not wait for its files: the time that it is given passes at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = START_S

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Nothing, ``timeout`` seconds later."""
        if timeout is None:
            raise NothingLeftError("everybody waits and nothing is due")
        if timeout > 0:
            self.now_s += timeout
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """The loop; ``time()`` is its clock, in seconds."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        """Virtual seconds."""
        return self._jump.now_s

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Call it now; it takes no time."""
        del executor
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 — raised where the result is awaited
            future.set_exception(error)
        return future

    async def getaddrinfo(self, *_: Any, **__: Any) -> NoReturn:
        """Raise OSError, as the following do."""
        raise OSError(errno.ENETUNREACH, _NO_NETWORK)

    async def sock_connect(self, *_: Any) -> NoReturn:
        raise OSError(errno.ENETUNREACH, _NO_NETWORK)

    async def create_connection(self, *_: Any, **__: Any) -> NoReturn:
        raise OSError(errno.ENETUNREACH, _NO_NETWORK)

    async def create_unix_connection(self, *_: Any, **__: Any) -> NoReturn:
        raise OSError(errno.ENETUNREACH, _NO_NETWORK)

    async def create_datagram_endpoint(self, *_: Any, **__: Any) -> NoReturn:
        raise OSError(errno.ENETUNREACH, _NO_NETWORK)

    async def create_server(self, *_: Any, **__: Any) -> NoReturn:
        raise OSError(errno.ENETUNREACH, _NO_NETWORK)
