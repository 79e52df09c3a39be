"""Structured logs: one record per line on stderr, written by a thread of their own.

A call gives a constant phrase and fields; nothing is formatted unless the verbosity asks for it, and values that are
costly to build are guarded by ``logger.v(...)``. Records of a request carry its id, bound in a context variable or given as
``request_id``. When stderr cannot keep up, records are dropped and counted rather than delaying requests. Records of other
libraries from WARNING up take the same way. Never pass prompts, bodies or credentials; ``redacted`` is for header maps.

Verbosity is the Go pickers' ``-v``: 2 by default, each level adds detail. The keys ``level``, ``time`` and ``msg`` and the
words of ``level`` are what log pipelines in the field select by.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from contextvars import ContextVar, Token
from dataclasses import dataclass
from types import FrameType
from typing import BinaryIO, Literal

from epp.telemetry.log_format import REDACTED, ConsoleEncoder, JsonEncoder, TimeEncoding
from epp.telemetry.log_queue import Encode, QueuedHandler

ERRORS_ONLY = -1
"""``--zap-log-level error``."""
PANICS_ONLY = -2
DEFAULT = 2
VERBOSE = 3
DEBUG = 4
TRACE = 5
_LOWEST, _HIGHEST = PANICS_ONLY, 10

_LEVELS = {0: 20, 1: 19, DEFAULT: 18, VERBOSE: 15, DEBUG: 10, TRACE: 5, 6: 4, 7: 3, 8: 2}
"""Verbosity → number on the standard library's scale, where smaller is more detailed; 1 beyond."""
_STACKTRACE_FROM = {"info": logging.DEBUG + 1, "error": logging.ERROR, "panic": logging.CRITICAL}

SECRET_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key", "x-goog-api-key", "x-auth-token"}
)
_OWN = ("epp", "plugins")
"""Packages whose INFO records by way of the standard library are written too: plugins know no other logger."""
MAX_HEADER_VALUE = 256
"""Characters of a header value that are logged."""

_request_id: ContextVar[str] = ContextVar("request_id", default="")


@dataclass(frozen=True, slots=True)
class LogOptions:
    """How records look and which are written: ``-v`` and the ``--zap-*`` flags."""

    verbosity: int = DEFAULT
    encoder: Literal["json", "console"] = "json"
    time_encoding: TimeEncoding = "rfc3339nano"
    stacktrace_level: Literal["info", "error", "panic"] = "error"
    """Records from this level up carry a stack trace."""
    queue_limit: int = 10_000
    """Records that wait for stderr before others are dropped; some 4 MB."""


class _State:
    """What loggers need to know; one per process, as the standard library's logging is."""

    __slots__ = ("stacktrace_from", "verbosity")

    def __init__(self) -> None:
        self.verbosity = DEFAULT
        self.stacktrace_from = logging.ERROR


_state = _State()


class Logger:
    """Writes records under one name. Got from ``get``."""

    __slots__ = ("_std",)

    def __init__(self, std: logging.Logger) -> None:
        self._std = std

    def v(self, verbosity: int) -> bool:
        """Records of this verbosity are written: the guard for fields that are costly to build."""
        return _state.verbosity >= verbosity

    def error(self, msg: str, /, *, exc: BaseException | None = None, request_id: str = "", **fields: object) -> None:
        """Something needs a human."""
        if _state.verbosity >= ERRORS_ONLY:
            self._write(logging.ERROR, msg, exc, request_id, fields)

    def warning(self, msg: str, /, *, exc: BaseException | None = None, request_id: str = "", **fields: object) -> None:
        """Something is degraded; on change only."""
        if _state.verbosity >= 0:
            self._write(logging.WARNING, msg, exc, request_id, fields)

    def info(self, msg: str, /, *, request_id: str = "", **fields: object) -> None:
        """The process or its membership changed."""
        if _state.verbosity >= 0:
            self._write(logging.INFO, msg, None, request_id, fields)

    def verbose(self, msg: str, /, *, request_id: str = "", **fields: object) -> None:
        """A few lines per request."""
        if _state.verbosity >= VERBOSE:
            self._write(_LEVELS[VERBOSE], msg, None, request_id, fields)

    def debug(self, msg: str, /, *, exc: BaseException | None = None, request_id: str = "", **fields: object) -> None:
        """How a decision came about."""
        if _state.verbosity >= DEBUG:
            self._write(_LEVELS[DEBUG], msg, exc, request_id, fields)

    def trace(self, msg: str, /, *, request_id: str = "", **fields: object) -> None:
        """Lines per item."""
        if _state.verbosity >= TRACE:
            self._write(_LEVELS[TRACE], msg, None, request_id, fields)

    def log(self, verbosity: int, msg: str, /, *, request_id: str = "", **fields: object) -> None:
        """A record of any verbosity from 0 up."""
        if _state.verbosity >= verbosity:
            self._write(_LEVELS.get(max(verbosity, 0), 1), msg, None, request_id, fields)

    def _write(self, level: int, msg: str, exc: BaseException | None, request_id: str, fields: dict[str, object]) -> None:
        frame = sys._getframe(2)  # findCaller walks the stack and costs ten times as much
        exc_info = (type(exc), exc, exc.__traceback__) if exc is not None else None
        record = logging.LogRecord(self._std.name, level, frame.f_code.co_filename, frame.f_lineno, msg, None, exc_info)
        record.fields = fields
        record.request_id = request_id or _request_id.get()
        if exc is None and level >= _state.stacktrace_from:
            record.stack_info = _stack(frame)
        self._std.handle(record)


def get(name: str) -> Logger:
    """The logger of a module, such as ``epp.decision.director``."""
    return Logger(logging.getLogger(name))


def enabled(verbosity: int) -> bool:
    """Records of this verbosity are written."""
    return _state.verbosity >= verbosity


def verbosity() -> int:
    """The verbosity now."""
    return _state.verbosity


def set_verbosity(value: int) -> int:
    """Change what is written from now on; returns the value used, which is within -2 and 10."""
    _state.verbosity = min(max(value, _LOWEST), _HIGHEST)
    return _state.verbosity


def raise_verbosity() -> int:
    """One level more detail, as on SIGUSR1; returns the new verbosity."""
    return set_verbosity(_state.verbosity + 1)


def lower_verbosity() -> int:
    """One level less, as on SIGUSR2; returns the new verbosity."""
    return set_verbosity(_state.verbosity - 1)


def bind_request_id(request_id: str) -> Token[str]:
    """Put this id on every record of the current context (task); ``unbind_request_id`` with the result ends it."""
    return _request_id.set(request_id)


def unbind_request_id(token: Token[str]) -> None:
    """End what ``bind_request_id`` began."""
    _request_id.reset(token)


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
    _state.stacktrace_from = _STACKTRACE_FROM[options.stacktrace_level]
    set_verbosity(options.verbosity)
    out = stream if stream is not None else sys.stderr.buffer
    encode: Encode
    if options.encoder == "json":
        encode = JsonEncoder(options.time_encoding, _state.stacktrace_from)
    else:
        encode = ConsoleEncoder(options.time_encoding, _state.stacktrace_from, coloured=out.isatty())
    return Sink(QueuedHandler(encode, out, options.queue_limit))


def _stack(frame: FrameType | None) -> str:
    """The callers' functions and lines, innermost first, without reading source files."""
    lines = []
    while frame is not None:
        lines.append(f"{frame.f_code.co_qualname}\n\t{frame.f_code.co_filename}:{frame.f_lineno}")
        frame = frame.f_back
    return "\n".join(lines)
