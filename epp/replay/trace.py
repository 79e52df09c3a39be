"""Reading a recorded load. JSON Lines, plain or compressed with gzip, in one of two formats that the first line tells apart:

- Mooncake's: ``timestamp`` (ms), ``input_length``, ``output_length`` (tokens), ``hash_ids`` (blocks of 512 tokens).
- Requests: ``time_s``, ``path``, ``body``, ``output_tokens``, ``headers``.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from io import BufferedReader
from itertools import islice
from typing import Any

import orjson

from epp.replay import mooncake, recorded
from epp.replay.fields import FieldError, Line, shown
from epp.replay.load import RecordedRequest, Trace, TraceError

MAX_PROBLEMS = 10
"""So many bad lines are named; whoever has more has the wrong file."""
_GZIP = b"\x1f\x8b"

ReadLine = Callable[[Line, int], RecordedRequest]


def read_trace(stream: BufferedReader, name: str, limit: int | None = None) -> Trace:
    """Read a trace; what has the same time keeps its order.

    Args:
        stream: its bytes.
        name: for messages.
        limit: only the first so many requests.

    Raises:
        TraceError: it cannot be read; names the first bad lines.
        OSError: the stream cannot be read.
    """
    requests: list[RecordedRequest] = []
    problems: list[str] = []
    read: ReadLine | None = None
    for number, data in islice(_lines(stream, name), limit):
        try:
            line = _object(data)
            read = read or _format(line)
            requests.append(read(line, number))
        except FieldError as error:
            problems.append(f"{name}, line {number}: {error}")
            if len(problems) >= MAX_PROBLEMS:
                break
    if problems:
        raise TraceError(problems)
    if not requests:
        raise TraceError([f"{name} has no requests: write one JSON object in each line"])
    return Trace(name, tuple(sorted(requests, key=lambda request: request.at_s)))


def _lines(stream: BufferedReader, name: str) -> Iterator[tuple[int, bytes]]:
    """The lines that are not empty, with their numbers."""
    is_compressed = stream.peek(2)[:2] == _GZIP
    lines = gzip.GzipFile(fileobj=stream) if is_compressed else stream
    number = 0
    try:
        for number, data in enumerate(lines, 1):
            if not data.isspace():
                yield number, data
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise TraceError([f"{name}, after line {number}: the compressed data is damaged or cut off ({error})"]) from error


def _object(data: bytes) -> Line:
    try:
        line: Any = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise FieldError(f"no JSON: {error}") from None
    if not isinstance(line, dict):
        raise FieldError(f"must be a JSON object, is {shown(line)}")
    return line


def _format(line: Line) -> ReadLine:
    if "timestamp" in line and "input_length" in line:
        return mooncake.read
    if "time_s" in line or "path" in line or "body" in line:
        return recorded.read
    raise FieldError(
        "unknown format: a Mooncake trace has timestamp, input_length, output_length and hash_ids, "
        f"recorded requests have {', '.join(recorded.MEMBERS)}"
    )
