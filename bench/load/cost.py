"""CPU time and memory of a process and all its descendants, from /proc."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psutil


def cpu_s(pid: int) -> float:
    """User and system time of all threads, of living descendants and of ended ones; resolution 10 ms."""
    total = 0.0
    for process in _tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:4])  # user, system, and both of ended children
    return total


def resident_bytes(pid: int) -> int:
    """Resident memory of the process and its descendants; shared pages count in each."""
    total = 0
    for process in _tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total


def _tree(pid: int) -> Iterator[psutil.Process]:
    try:
        root = psutil.Process(pid)
        yield root
        yield from root.children(recursive=True)
    except psutil.NoSuchProcess:
        return
