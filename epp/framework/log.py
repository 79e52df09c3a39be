"""The one way to log: a constant phrase and fields, for the picker and its plugins alike.

Nothing is formatted unless the verbosity asks for it; guard values that are costly to build by ``logger.v(...)``. Records of a
request carry its id, bound in a context variable or given as ``request_id``. Never pass prompts, bodies or credentials. How and
where records are written is ``epp.telemetry.log``.

Verbosity is the Go pickers' ``-v``: 2 by default, each level adds detail.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from contextvars import ContextVar, Token
from types import FrameType

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

_request_id: ContextVar[str] = ContextVar("request_id", default="")
_pool: ContextVar[str] = ContextVar("pool", default="")


Details = Mapping[str, object] | None


class _State:
    """What loggers need to know; one per process, as the standard library's logging is."""

    __slots__ = ("stacktrace_from", "verbosity")

    def __init__(self) -> None:
        self.verbosity = DEFAULT
        self.stacktrace_from = logging.ERROR


_state = _State()


class Logger:
    """Writes records under one name. Got from ``get``.

    Each method takes a constant phrase, fields as keywords, and ``details`` where fields are in a mapping already.
    """

    __slots__ = ("_std",)

    def __init__(self, std: logging.Logger) -> None:
        self._std = std

    def v(self, verbosity: int) -> bool:
        """Records of this verbosity are written: the guard for fields that are costly to build."""
        return _state.verbosity >= verbosity

    def error(
        self, msg: str, /, *, details: Details = None, exc: BaseException | None = None, request_id: str = "", **fields: object
    ) -> None:
        """Something needs a human."""
        if _state.verbosity >= ERRORS_ONLY:
            self._write(logging.ERROR, msg, exc, request_id, {**details, **fields} if details else fields)

    def warning(
        self, msg: str, /, *, details: Details = None, exc: BaseException | None = None, request_id: str = "", **fields: object
    ) -> None:
        """Something is degraded; on change only."""
        if _state.verbosity >= 0:
            self._write(logging.WARNING, msg, exc, request_id, {**details, **fields} if details else fields)

    def info(self, msg: str, /, *, details: Details = None, request_id: str = "", **fields: object) -> None:
        """The process or its membership changed."""
        if _state.verbosity >= 0:
            self._write(logging.INFO, msg, None, request_id, {**details, **fields} if details else fields)

    def verbose(self, msg: str, /, *, details: Details = None, request_id: str = "", **fields: object) -> None:
        """A few lines per request."""
        if _state.verbosity >= VERBOSE:
            self._write(_LEVELS[VERBOSE], msg, None, request_id, {**details, **fields} if details else fields)

    def debug(
        self, msg: str, /, *, details: Details = None, exc: BaseException | None = None, request_id: str = "", **fields: object
    ) -> None:
        """How a decision came about."""
        if _state.verbosity >= DEBUG:
            self._write(_LEVELS[DEBUG], msg, exc, request_id, {**details, **fields} if details else fields)

    def trace(self, msg: str, /, *, details: Details = None, request_id: str = "", **fields: object) -> None:
        """Lines per item."""
        if _state.verbosity >= TRACE:
            self._write(_LEVELS[TRACE], msg, None, request_id, {**details, **fields} if details else fields)

    def log(self, verbosity: int, msg: str, /, *, details: Details = None, request_id: str = "", **fields: object) -> None:
        """A record of any verbosity from 0 up."""
        if _state.verbosity >= verbosity:
            self._write(_LEVELS.get(max(verbosity, 0), 1), msg, None, request_id, {**details, **fields} if details else fields)

    def _write(self, level: int, msg: str, exc: BaseException | None, request_id: str, fields: dict[str, object]) -> None:
        frame = sys._getframe(2)  # findCaller walks the stack and costs ten times as much
        exc_info = (type(exc), exc, exc.__traceback__) if exc is not None else None
        record = logging.LogRecord(self._std.name, level, frame.f_code.co_filename, frame.f_lineno, msg, None, exc_info)
        record.fields = fields
        record.request_id = request_id or _request_id.get()
        record.of_pool = _pool.get()
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


def bind_pool(name: str) -> Token[str]:
    """Put the name of a pool on every record of the current context and of tasks that it starts; ``unbind_pool`` ends it.

    Only where a process serves several pools.
    """
    return _pool.set(name)


def unbind_pool(token: Token[str]) -> None:
    """End what ``bind_pool`` began."""
    _pool.reset(token)


def stacktraces_from(level: int) -> None:
    """Records from this level of the standard library's scale up carry a stack trace."""
    _state.stacktrace_from = level


def _stack(frame: FrameType | None) -> str:
    """The callers' functions and lines, innermost first, without reading source files."""
    lines = []
    while frame is not None:
        lines.append(f"{frame.f_code.co_qualname}\n\t{frame.f_code.co_filename}:{frame.f_lineno}")
        frame = frame.f_back
    return "\n".join(lines)
