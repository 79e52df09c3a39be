"""Set the model, or other members, of a JSON request by replacing only the bytes that say so.

All other bytes stay: re-serialising would change numbers and key order, hence what the model server hashes for its prefix
cache (protocol decision D10).

Instead of tokenising the document, candidates for the key are searched as bytes, and only their depth is established: in
valid JSON, ``"model"`` not behind a backslash is always a whole string, and depth follows from counting the brackets outside
strings. All of this runs at the speed of ``bytes`` methods, without recursion.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import NamedTuple

Splices = tuple[tuple[int, int, bytes], ...]
"""Spans ``(start, end, replacement)``, ascending, not overlapping; as ``Route.splices``."""

_KEY = b'"model"'
_ESCAPED_LETTER = b"\\u006"
"""How the escape of each letter of ``model`` begins."""
_ESCAPED_KEY = re.compile(rb'"(?:m|\\u006[dD])(?:o|\\u006[fF])(?:d|\\u0064)(?:e|\\u0065)(?:l|\\u006[cC])"')
_ROOT = re.compile(rb"[ \t\r\n]*\{[ \t\r\n]*")
_COLON = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*")
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_KEY_AND_COLON = re.compile(rb"(%b)[ \t\r\n]*:[ \t\r\n]*" % _STRING, re.DOTALL)
_SEPARATOR = re.compile(rb"[ \t\r\n]*,?[ \t\r\n]*")
_PLAIN_VALUE = re.compile(rb'%b|[^"{}\[\],\s]+' % _STRING, re.DOTALL)
_BRACKET = re.compile(rb'[^"{}\[\]]*+(?:%b[^"{}\[\]]*+)*+([{}\[\]])' % _STRING, re.DOTALL)
_ONE_KIND = bytes.maketrans(b"[]", b"{}")
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'"{}[]'))


def model_splices(body: bytes | memoryview, new_model: str) -> Splices:
    """The splices that make ``new_model`` the model of a request.

    The value of the top-level member ``model`` is replaced, of every one if it occurs twice; if there is none, it becomes the
    first member.

    Args:
        body: a JSON object that a parser has accepted; bytes that are not UTF-8 may occur in its strings.
        new_model: any text.

    Returns:
        At least one splice.

    Raises:
        ValueError: the body is not a JSON object. Not every malformed document is noticed.
    """
    data = bytes(body)
    root = _ROOT.match(data)
    if root is None:
        raise ValueError("the request body is not a JSON object: it does not begin with '{'")
    value = json.dumps(new_model).encode("ascii")
    splices = tuple((start, end, value) for start, end in _models(data, root.end()))
    if splices:
        return splices
    first = data.index(b"{") + 1
    comma = b"" if data.startswith(b"}", root.end()) else b","
    return ((first, first, _KEY + b":" + value + comma),)


def member_splices(body: bytes | memoryview, changes: Mapping[str, bytes | None]) -> Splices:
    """The splices that change members of the top level: several at once, others than the model too.

    A member that occurs twice is changed in both places; one that is missing becomes the first.

    Args:
        body: a JSON object that a parser has accepted; bytes that are not UTF-8 may occur in its strings.
        changes: member → its JSON text, or None to remove it.

    Raises:
        ValueError: the body is not a JSON object. Not every malformed document is noticed.
    """
    data = bytes(body)
    members = list(_members(data))
    splices = [(m.value, m.end, new) for m in members if (new := changes.get(m.key)) is not None]
    splices += _removals(members, {key for key, new in changes.items() if new is None})
    known = {member.key for member in members}
    added = [json.dumps(k).encode() + b":" + new for k, new in changes.items() if new is not None and k not in known]
    if added:
        first = data.index(b"{") + 1
        stays = any(changes.get(key, b"") is not None for key in known)
        splices.append((first, first, b",".join(added) + (b"," if stays else b"")))
    return tuple(sorted(splices, key=lambda splice: splice[:2]))


def spliced(body: bytes | memoryview, splices: Splices) -> bytes:
    """The body with its spans replaced."""
    view = memoryview(body)
    pieces: list[bytes | memoryview] = []
    done = 0
    for start, end, new in splices:
        pieces += (view[done:start], new)
        done = end
    return b"".join((*pieces, view[done:]))


def growth(splices: Splices) -> int:
    """How many bytes longer a body gets; negative if it gets shorter."""
    return sum(len(new) - (end - start) for start, end, new in splices)


def member_value(body: bytes | memoryview, name: str) -> bytes | None:
    """The JSON text of a top-level member, the last one if there are several; None if there is none.

    Raises:
        ValueError: as for ``member_splices``.
    """
    data = bytes(body)
    found = [member for member in _members(data) if member.key == name]
    return data[found[-1].value : found[-1].end] if found else None


class _Member(NamedTuple):
    """Where a member of the top level lies."""

    key: str
    start: int
    """Of its key."""
    value: int
    """Where its value begins."""
    end: int
    """Behind its value."""


def _members(data: bytes) -> Iterator[_Member]:
    """The members of the top level, in their order."""
    root = _ROOT.match(data)
    if root is None:
        raise ValueError("the request body is not a JSON object: it does not begin with '{'")
    position = root.end()
    while key := _KEY_AND_COLON.match(data, position):
        name = json.loads(key[1].decode("utf-8", "replace"), strict=False)
        end = _value_end(data, key.end(), name)
        yield _Member(name, position, key.end(), end)
        position = _SEPARATOR.match(data, end).end()  # type: ignore[union-attr]  # matches the empty string, too


def _removals(members: list[_Member], names: set[str]) -> Iterator[tuple[int, int, bytes]]:
    """Spans that take members out, each run of them with a comma where something stays beside it."""
    run_start: int | None = None
    stayed: _Member | None = None
    for member in members:
        if member.key in names:
            run_start = member.start if run_start is None else run_start
            continue
        if run_start is not None:
            yield run_start, member.start, b""
            run_start = None
        stayed = member
    if run_start is not None:
        yield (run_start if stayed is None else stayed.end), members[-1].end, b""


def _models(data: bytes, begin: int) -> Iterator[tuple[int, int]]:
    """The spans of the values of ``model`` on the top level."""
    keys, values = [], []
    for position, end in _keys(data, begin):
        colon = _COLON.match(data, end)
        if colon is not None:
            keys.append(position)
            values.append(colon.end())
    for depth, start in zip(_depths(data, begin, keys), values, strict=True):
        if depth == 0:
            yield start, _value_end(data, start)


def _depths(data: bytes, begin: int, positions: list[int]) -> list[int]:
    """How deep each position lies, relative to ``begin``.

    Counted from both ends, so that the longest piece (mostly the prompt) is never looked at.
    """
    borders = [begin, *positions, len(data)]
    changes = [0] * (len(borders) - 1)
    longest = max(range(len(changes)), key=lambda i: borders[i + 1] - borders[i])
    for i in range(len(changes)):
        if i != longest:
            changes[i] = _depth_change(data[borders[i] : borders[i + 1]])
    changes[longest] = -1 - sum(changes)  # the last brace closes what lies before ``begin``
    return list(accumulate(changes[:-1]))


def _keys(data: bytes, begin: int) -> Iterator[tuple[int, int]]:
    """The spans of all strings that read ``model``."""
    if _ESCAPED_LETTER in data:
        for match in _ESCAPED_KEY.finditer(data, begin):
            if data[match.start() - 1] != 0x5C:
                yield match.span()
        return
    position = data.find(_KEY, begin)
    while position >= 0:
        end = position + len(_KEY)
        if data[position - 1] != 0x5C:
            yield position, end
        position = data.find(_KEY, end)


def _depth_change(text: bytes) -> int:
    """How much deeper the end of ``text`` lies than its beginning; both are outside strings."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = b"".join(text.translate(_ONE_KIND, _NOT_STRUCTURE).split(b'"')[::2])
    return outside.count(b"{") - outside.count(b"}")


def _value_end(data: bytes, start: int, name: str = "model") -> int:
    plain = _PLAIN_VALUE.match(data, start)
    if plain is not None:
        return plain.end()
    depth = 0
    position = start
    while bracket := _BRACKET.match(data, position):
        position = bracket.end()
        depth += 1 if bracket[1] in b"{[" else -1
        if depth <= 0:
            return position
    raise ValueError(f"the request body is not a JSON object: the value of {name!r} does not end")
