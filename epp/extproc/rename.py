"""Replace a string member of JSON objects in a response body while it is forwarded.

The model server answers with the name it knows; the client shall read the name it asked for.

Only a whole member counts, key and value. Inside a JSON string quotes are escaped, so text that merely quotes such a member
is never changed, and a quote behind a backslash never opens one. At most the tail that may begin the member is held back; in
an event stream no line end can be part of it, so a complete event is never delayed.
"""

from __future__ import annotations

import json
import re
from codecs import getincrementaldecoder
from typing import NamedTuple

from epp.extproc.media import is_encoded, is_event_stream, is_json, media_type
from epp.seam import Rename, ResponseHead

_MAX_BLANKS = 256
"""White space accepted on each side of the colon: bounds what is held back. No writer of JSON indents within a member."""


class _Grammar(NamedTuple):
    """The patterns for one member; group 1 is the text between the value's quotes."""

    whole: re.Pattern[bytes]
    beginning: re.Pattern[bytes]


class Renamer:
    """The rename of one body.

    Args:
        rename: member, old and new value; not empty.
        grammar: how the member looks in this kind of body.
    """

    __slots__ = ("_beginning", "_escaped", "_held", "_key", "_new", "_old", "_old_raw", "_whole")

    def __init__(self, rename: Rename, grammar: _Grammar) -> None:
        self._key = _quoted(rename.member)
        self._old = rename.old
        self._old_raw = _quoted(rename.old)[1:-1]
        self._new = _quoted(rename.new)[1:-1]
        self._whole, self._beginning = grammar
        self._held = b""
        self._escaped = False

    def feed(self, data: bytes, end: bool) -> bytes:
        """Take the next bytes of the body.

        Args:
            data: the bytes; may be empty.
            end: the body ends with them.

        Returns:
            What is to be forwarded now: everything, except a tail that may begin the member.
        """
        if self._held:
            data = self._held + data
            self._held = b""
        position = data.find(self._key)
        if position < 0:
            return data if end or not data else self._release(data, 0)
        return self._replace(data, position, end)

    def _replace(self, data: bytes, position: int, end: bool) -> bytes:
        pieces: list[bytes] = []
        done = 0
        while position >= 0:
            following = position + len(self._key)
            match = self._whole.match(data, following) if self._is_token(data, position) else None
            if match is not None and self._is_old(match[1]):
                pieces += (data[done : match.start(1)], self._new)
                done = following = match.end(1)
            elif match is None and not end and self._is_token(data, position) and self._may_begin(data, following):
                self._held = data[position:]
                pieces.append(data[done:position])
                self._escaped = False
                return b"".join(pieces)
            position = data.find(self._key, following)
        pieces.append(data[done:] if end else self._release(data, done))
        return b"".join(pieces)

    def _release(self, data: bytes, done: int) -> bytes:
        """All from ``done`` on, except the beginning of a key at the very end."""
        cut = self._key_start(data, done)
        self._held = data[cut:]
        self._escaped = not self._held and data.endswith(b"\\")
        return data[done:cut]

    def _key_start(self, data: bytes, done: int) -> int:
        if data.endswith(b"\n"):
            return len(data)
        for length in range(min(len(self._key) - 1, len(data) - done), 0, -1):
            position = len(data) - length
            if data.endswith(self._key[:length]) and self._is_token(data, position):
                return position
        return len(data)

    def _is_token(self, data: bytes, position: int) -> bool:
        """Whether the quote at ``position`` opens a string, which an escaped one does not."""
        return data[position - 1] != 0x5C if position else not self._escaped

    def _is_old(self, raw: bytes) -> bool:
        return raw == self._old_raw or _decoded(raw) == self._old

    def _may_begin(self, data: bytes, following: int) -> bool:
        match = self._beginning.fullmatch(data, following)
        if match is None:
            return False
        raw = match[1]
        if not raw:
            return True
        decoded = _decoded_beginning(raw)
        return decoded is not None and self._old.startswith(decoded)


def make_renamer(head: ResponseHead, rename: Rename) -> Renamer | None:
    """The renamer for a body with these headers, or None if its bytes stay as they are.

    Nothing is replaced in compressed bodies, in bodies that are neither JSON nor an event stream, or if one of the names is
    empty or both are equal.
    """
    if not rename.old or not rename.new or rename.old == rename.new or is_encoded(head):
        return None
    media = media_type(head)
    if is_event_stream(media):
        return Renamer(rename, _IN_EVENTS)
    return Renamer(rename, _IN_JSON) if is_json(media) else None


def _grammar(blank: bytes) -> _Grammar:
    space = rb"[%b]{0,%d}" % (blank, _MAX_BLANKS)
    text = rb'[^"\\\r\n]*+(?:\\[^\r\n][^"\\\r\n]*+)*+'
    return _Grammar(
        whole=re.compile(rb'%b:%b"(%b)"' % (space, space, text)),
        beginning=re.compile(rb'%b(?::%b(?:"(%b\\?))?)?' % (space, space, text)),
    )


_IN_JSON = _grammar(rb" \t\r\n")
_IN_EVENTS = _grammar(rb" \t")

_CHARACTERS = re.compile(rb"(?:[^\\]|\\(?:u[0-9a-f]{4}|[^u]))*+", re.IGNORECASE)
_CUT_ESCAPE = re.compile(rb"(?:\\(?:u[0-9a-f]{0,3})?)?", re.IGNORECASE)


def _quoted(text: str) -> bytes:
    return json.dumps(text).encode("ascii")


def _decoded(raw: bytes) -> str | None:
    """The string between the quotes, or None if it is none."""
    try:
        return str(json.loads(f'"{raw.decode()}"'))
    except ValueError:
        return None


def _decoded_beginning(raw: bytes) -> str | None:
    """The whole characters of a value that may be cut anywhere, or None if it cannot be the beginning of a string."""
    characters = _CHARACTERS.match(raw)
    if characters is None or _CUT_ESCAPE.fullmatch(raw, characters.end()) is None:
        return None
    try:
        text = getincrementaldecoder("utf-8")().decode(characters[0])
        decoded = str(json.loads(f'"{text}"'))
    except ValueError:
        return None
    return decoded[:-1] if "\ud800" <= decoded[-1:] <= "\udbff" else decoded
