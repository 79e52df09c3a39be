"""Lines on their way to stderr: a bounded queue, and the thread that writes it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import BinaryIO

Encode = Callable[[logging.LogRecord], bytes]
"""A record as a line, with its newline."""

FLUSH_TIMEOUT_S = 2.0
"""How long an exit waits for a reader that does not read."""
_BATCH_LINES = 256


class QueuedHandler(logging.Handler):
    """Encodes records where they are made, and writes them in a thread; drops and counts what finds the queue full.

    Args:
        encode: called in the thread that logs, so that fields may change afterwards.
        stream: written and flushed by our thread only.
        limit: lines that may wait.
    """

    def __init__(self, encode: Encode, stream: BinaryIO, limit: int) -> None:
        super().__init__()
        self._encode = encode
        self._stream = stream
        self._limit = limit
        self._queue: SimpleQueue[bytes | threading.Event | None] = SimpleQueue()
        self._told_dropped = 0
        self.dropped = 0
        """Records that were not written: the queue was full, or the stream refused them."""
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record's line, or count it as dropped."""
        if self._queue.qsize() >= self._limit:
            self.dropped += 1
            return
        try:
            line = self._encode(record)
        except Exception:  # noqa: BLE001 — a value's own __str__ may raise anything; logging reports it and goes on
            self.handleError(record)
            return
        self._queue.put(line)

    def flush(self) -> None:
        """Wait until all that is queued now is written, at most ``FLUSH_TIMEOUT_S``."""
        if not self._thread.is_alive():
            return
        written = threading.Event()
        self._queue.put(written)
        written.wait(FLUSH_TIMEOUT_S)

    def close(self) -> None:
        """Write what is queued and end the thread, at most ``FLUSH_TIMEOUT_S``; later records are dropped."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(FLUSH_TIMEOUT_S)
        self._limit = 0
        super().close()

    def _run(self) -> None:
        while True:
            lines: list[bytes] = []
            marks: list[threading.Event] = []
            goes_on = self._take(lines, marks)
            self._write(lines)
            for mark in marks:
                mark.set()
            if not goes_on:
                return

    def _take(self, lines: list[bytes], marks: list[threading.Event]) -> bool:
        """Wait for an item and take what else is there; False when told to end."""
        item = self._queue.get()
        while True:
            if item is None:
                return False
            if isinstance(item, threading.Event):
                marks.append(item)
            else:
                lines.append(item)
            if len(lines) >= _BATCH_LINES:
                return True
            try:
                item = self._queue.get_nowait()
            except Empty:
                return True

    def _write(self, lines: list[bytes]) -> None:
        if self.dropped != self._told_dropped:
            self._told_dropped = self.dropped
            lines.append(self._encode(_dropped_record(self.dropped)))
        if not lines:
            return
        try:
            self._stream.write(b"".join(lines))
            self._stream.flush()
        except (OSError, ValueError):  # the reader is gone, or the stream is closed: nobody is left to be told
            self.dropped += len(lines)
            self._told_dropped = self.dropped


def _dropped_record(count: int) -> logging.LogRecord:
    record = logging.LogRecord("epp.telemetry.log", logging.WARNING, __file__, 0, "log records dropped", None, None)
    record.fields = {"total": count}
    return record
