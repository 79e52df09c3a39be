"""How a log record looks: JSON or console lines, with flat fields."""

from __future__ import annotations

import logging
import re
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Literal, get_args

import orjson

TimeEncoding = Literal["epoch", "millis", "nano", "iso8601", "rfc3339", "rfc3339nano"]
"""Names of zap's time encoders; all in UTC."""

REDACTED = "[redacted]"
SECRET_FIELDS = frozenset(
    {
        "authorization",
        "api_key",
        "body",
        "cookie",
        "credentials",
        "messages",
        "password",
        "prompt",
        "prompts",
        "secret",
        "token",
    }
)
"""Fields that are never written, whoever passes them."""

_SURROGATES = re.compile("[\ud800-\udfff]")
_COLOURS = {"error": "\x1b[31m", "warning": "\x1b[33m", "info": "\x1b[34m", "debug": "\x1b[35m", "trace": "\x1b[90m"}
_RESET = "\x1b[0m"
_NS_PER_S = 1_000_000_000
_TRACE_NUMBER = 5
"""``log.TRACE`` on the standard library's scale."""


def level_name(number: int) -> str:
    """The word for a level number, as log pipelines know it."""
    if number >= logging.ERROR:
        return "error"
    if number >= logging.WARNING:
        return "warning"
    if number > logging.DEBUG:
        return "info"
    return "debug" if number > _TRACE_NUMBER else "trace"


class JsonEncoder:
    """A record as one JSON object: level, time, logger, caller, msg, x-request-id, the fields, error, stacktrace.

    Args:
        time_encoding: one of ``TimeEncoding``; with ``epoch`` the time is also written as ``ts``.
        stacktrace_from: level number from which a stack trace is written.
    """

    def __init__(self, time_encoding: TimeEncoding, stacktrace_from: int) -> None:
        self._time = time_encoder(time_encoding)
        self._with_ts = time_encoding == "epoch"
        self._stacktrace_from = stacktrace_from

    def __call__(self, record: logging.LogRecord) -> bytes:
        at = self._time(record.created)
        line: dict[str, object] = {"level": level_name(record.levelno), "time": at}
        if self._with_ts:
            line["ts"] = at
        line["logger"] = record.name
        line["caller"] = caller(record)
        line["msg"] = record.getMessage()
        for name, value in fields_of(record).items():
            line[name if name not in line else f"{name}_"] = value
        stack = stacktrace(record, self._stacktrace_from)
        if stack:
            line["stacktrace"] = stack
        return to_json(line) + b"\n"


class ConsoleEncoder:
    """A record as tab-separated text: time, level, logger, caller, message, fields as JSON; then the stack trace.

    Args:
        time_encoding: one of ``TimeEncoding``.
        stacktrace_from: level number from which a stack trace is written.
        coloured: colour the level; only for terminals.
    """

    def __init__(self, time_encoding: TimeEncoding, stacktrace_from: int, *, coloured: bool) -> None:
        self._time = time_encoder(time_encoding)
        self._stacktrace_from = stacktrace_from
        self._coloured = coloured

    def __call__(self, record: logging.LogRecord) -> bytes:
        name = level_name(record.levelno)
        level = f"{_COLOURS[name]}{name.upper()}{_RESET}" if self._coloured else name.upper()
        columns = [str(self._time(record.created)), level, record.name, caller(record), record.getMessage()]
        text = _SURROGATES.sub("\ufffd", "\t".join(columns)).encode()
        fields = fields_of(record)
        if fields:
            text += b"\t" + to_json(fields)
        stack = stacktrace(record, self._stacktrace_from)
        return text + b"\n" + _SURROGATES.sub("\ufffd", stack).encode() + (b"\n" if stack else b"")


_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"request_id", "of_pool", "message", "asctime", "taskName"}


def _extra(record: logging.LogRecord) -> dict[str, object]:
    """What a caller of the standard library's logging passed as ``extra``."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """The request id, the pool, the fields, and the error of a record; secret ones masked."""
    fields: dict[str, object] = {}
    request_id = getattr(record, "request_id", "")
    if request_id:
        fields["x-request-id"] = request_id
    pool = getattr(record, "of_pool", "")
    if pool:
        fields["pool"] = pool
    own: Mapping[str, object] | None = getattr(record, "fields", None)
    fields.update(own if own is not None else _extra(record))
    if not SECRET_FIELDS.isdisjoint(fields):
        fields.update(dict.fromkeys(SECRET_FIELDS & fields.keys(), REDACTED))
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        fields.setdefault("error", f"{type(error).__name__}: {error}")
    return fields


def stacktrace(record: logging.LogRecord, stacktrace_from: int) -> str:
    """The traceback of the record's exception, or the stack it was logged from; empty below the level."""
    if record.levelno < stacktrace_from:
        return ""
    if record.exc_info and record.exc_info[1] is not None:
        return "".join(traceback.format_exception(record.exc_info[1])).rstrip("\n")
    return record.stack_info or ""


def caller(record: logging.LogRecord) -> str:
    """``directory/file.py:line``, as zap shortens it."""
    return f"{'/'.join(record.pathname.rsplit('/', 2)[-2:])}:{record.lineno}"


def to_json(line: Mapping[str, object]) -> bytes:
    """``line`` as JSON. What JSON cannot hold is written as text, undecodable bytes as U+FFFD."""
    try:
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # surrogates, integers beyond 64 bits, cycles
        return orjson.dumps({_SURROGATES.sub("\ufffd", str(k)): _plain(v) for k, v in line.items()})


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | float):
        return value
    return _SURROGATES.sub("\ufffd", str(value))


def time_encoder(encoding: TimeEncoding) -> Callable[[float], float | str]:
    """How Unix seconds are written.

    Raises:
        ValueError: no such encoding.
    """
    encoders: dict[TimeEncoding, Callable[[float], float | str]] = {
        "epoch": lambda at: at,
        "millis": lambda at: at * 1000,
        "nano": lambda at: int(at) * _NS_PER_S + int(at % 1 * _NS_PER_S),
        "iso8601": lambda at: f"{_date(int(at))}.{int(at % 1 * 1000):03d}Z",
        "rfc3339": lambda at: f"{_date(int(at))}Z",
        "rfc3339nano": lambda at: f"{_date(int(at))}.{int(at % 1 * _NS_PER_S):09d}Z",
    }
    if encoding not in encoders:
        msg = f"unknown time encoding {encoding!r}; there are {', '.join(get_args(TimeEncoding))}"
        raise ValueError(msg)
    return encoders[encoding]


def _date(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
