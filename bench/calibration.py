"""A figure for the speed of this machine, so that results of different machines or hours can be put side by side."""

from __future__ import annotations

import time

_STEPS = 200_000
_RUNS = 7


def calibrate() -> float:
    """Time of a fixed pure-Python loop: nanoseconds per step, the best of several runs."""
    return min(_run() for _ in range(_RUNS)) / _STEPS * 1e9


def _run() -> float:
    value = 0
    start = time.perf_counter()
    for step in range(_STEPS):
        value = (value * 31 + step) & 0xFFFF
    return time.perf_counter() - start
