"""Structured logs: one record per line on stderr, written by a thread of their own.

Who logs uses ``epp.framework.log``. When stderr cannot keep up, records are dropped and counted rather than delaying requests.
Records of other libraries from WARNING up take the same way. ``redacted`` is for header maps.

The keys ``level``, ``time`` and ``msg`` and the words of ``level`` are what log pipelines in the field select by.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO, Literal

from epp.framework import log
from epp.telemetry.log_format import REDACTED, ConsoleEncoder, JsonEncoder, TimeEncoding
from epp.telemetry.log_queue import Encode, QueuedHandler

_STACKTRACE_FROM = {"info": logging.DEBUG + 1, "error": logging.ERROR, "panic": logging.CRITICAL}

SECRET_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key", "x-goog-api-key", "x-auth-token"}
)
_OWN = ("epp", "plugins")
"""Packages whose INFO records by way of the standard library are written too."""
MAX_HEADER_VALUE = 256
"""Characters of a header value that are logged."""


@dataclass(frozen=True, slots=True)
class LogOptions:
    """How records look and which are written: ``-v`` and the ``--zap-*`` flags."""

    verbosity: int = log.DEFAULT
    encoder: Literal["json", "console"] = "json"
    time_encoding: TimeEncoding = "rfc3339nano"
    stacktrace_level: Literal["info", "error", "panic"] = "error"
    """Records from this level up carry a stack trace."""
    queue_limit: int = 10_000
    """Records that wait for stderr before others are dropped; some 4 MB."""


def redacted(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers as a field: lower-case names, credentials masked, long values cut, values of one name joined."""
    shown: dict[str, str] = {}
    for name, value in headers:
        name = name.lower()
        value = REDACTED if name in SECRET_HEADERS else value[:MAX_HEADER_VALUE]
        shown[name] = f"{shown[name]}, {value}" if name in shown else value
    return shown


class Sink:
    """The process's log, from ``setup`` to ``close``."""

    def __init__(self, handler: QueuedHandler) -> None:
        self._handler = handler
        root = logging.getLogger()
        self._root_level = root.level
        root.setLevel(logging.WARNING)
        for name in _OWN:
            logging.getLogger(name).setLevel(logging.INFO)
        root.addHandler(handler)
        logging.captureWarnings(True)

    @property
    def dropped(self) -> int:
        """Records that were not written because stderr could not keep up."""
        return self._handler.dropped

    def flush(self) -> None:
        """Wait until what was logged is written, at most two seconds."""
        self._handler.flush()

    def close(self) -> None:
        """Flush, and leave the standard library's logging as it was."""
        logging.captureWarnings(False)
        root = logging.getLogger()
        root.removeHandler(self._handler)
        root.setLevel(self._root_level)
        for name in _OWN:
            logging.getLogger(name).setLevel(logging.NOTSET)
        self._handler.close()


def setup(options: LogOptions, stream: BinaryIO | None = None) -> Sink:
    """Start to write records; once per process, first of all.

    Args:
        options: how they look and which are written.
        stream: stderr if None.

    Raises:
        ValueError: an encoder, encoding or level that does not exist.
    """
    if options.encoder not in ("json", "console"):
        msg = f"unknown log encoder {options.encoder!r}; there are json, console"
        raise ValueError(msg)
    if options.stacktrace_level not in _STACKTRACE_FROM:
        msg = f"unknown stack trace level {options.stacktrace_level!r}; there are {', '.join(_STACKTRACE_FROM)}"
        raise ValueError(msg)
    stacktrace_from = _STACKTRACE_FROM[options.stacktrace_level]
    log.stacktraces_from(stacktrace_from)
    log.set_verbosity(options.verbosity)
    out = stream if stream is not None else sys.stderr.buffer
    encode: Encode
    if options.encoder == "json":
        encode = JsonEncoder(options.time_encoding, stacktrace_from)
    else:
        encode = ConsoleEncoder(options.time_encoding, stacktrace_from, coloured=out.isatty())
    return Sink(QueuedHandler(encode, out, options.queue_limit))
