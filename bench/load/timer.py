"""A timer of microseconds for the event loop; the loop's own round to milliseconds, far too coarse for arrivals."""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Callable

_LIBC = ctypes.CDLL(None, use_errno=True)
_ABSOLUTE = 1  # TFD_TIMER_ABSTIME


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


class PreciseTimer:
    """A Linux timerfd that calls back on the running event loop.

    Args:
        callback: called when the time set last has come.
    """

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._fd: int = _LIBC.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        asyncio.get_running_loop().add_reader(self._fd, self._fire)

    def set(self, at_s: float) -> None:
        """Call back once at a time of `time.monotonic`; at once if that is past."""
        seconds, fraction = divmod(max(at_s, 1e-9), 1.0)
        spec = _TimerSpec(_TimeSpec(0, 0), _TimeSpec(int(seconds), max(1, int(fraction * 1e9))))
        if _LIBC.timerfd_settime(self._fd, _ABSOLUTE, ctypes.byref(spec), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")

    def close(self) -> None:
        """Release the descriptor."""
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    def _fire(self) -> None:
        os.read(self._fd, 8)
        self._callback()
