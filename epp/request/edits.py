"""Changes of headers and bodies that plugins ask for, collected and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

from epp.framework import log
from epp.framework.types import Json
from epp.request.headers import SYSTEM_OWNED, clean_value
from epp.request.rewrite import Splices, member_splices, member_value
from epp.seam import Edits, Pairs

_logger = log.get("epp.request")


class EditList:
    """HeaderEdits of one message; the picker's own names are ignored, a value that cannot be sent is dropped and logged."""

    __slots__ = ("_remove", "_set", "metadata")

    def __init__(self) -> None:
        self._set: dict[str, str] | None = None
        self._remove: set[str] | None = None
        self.metadata: dict[str, dict[str, object]] | None = None

    def set(self, name: str, value: str) -> None:
        """Replace all values of ``name``; ignored for names that the picker owns."""
        name = name.lower()
        if _is_owned(name):
            return
        if not _can_be_sent(value):
            _logger.warning("header dropped: its value cannot be sent", header=name)
            return
        if self._set is None:
            self._set = {}
        self._set[name] = value

    def remove(self, name: str) -> None:
        """Remove ``name``; ignored for names that the picker owns."""
        name = name.lower()
        if _is_owned(name):
            return
        if self._set is not None:
            self._set.pop(name, None)
        if self._remove is None:
            self._remove = set()
        self._remove.add(name)

    def annotate(self, namespace: str, key: str, value: object) -> None:
        """Add dynamic metadata."""
        if self.metadata is None:
            self.metadata = {}
        self.metadata.setdefault(namespace, {})[key] = value

    def freeze(self, first: Pairs = ()) -> Edits:
        """The changes, behind ``first``."""
        changes = (*first, *self._set.items()) if self._set else first
        return Edits(changes, frozenset(self._remove) if self._remove else frozenset())


class BodyEditList:
    """BodyEdits of one JSON request body.

    Args:
        body: as it came.
        document: what a parser read from it.
    """

    __slots__ = ("_body", "_changes", "document")

    def __init__(self, body: memoryview, document: Mapping[str, Json]) -> None:
        self.document: dict[str, Json] = dict(document)
        """With all changes."""
        self._body = body
        self._changes: dict[str, bytes | None] = {}

    def set(self, member: str, value: Json) -> None:
        """Replace or add a member."""
        self._change(member, orjson.dumps(value))
        self.document[member] = value

    def remove(self, member: str) -> None:
        """Remove a member."""
        self._change(member, None)
        self.document.pop(member, None)

    def prepend(self, member: str, items: Sequence[Json]) -> None:
        """Put items before those of a list."""
        known = self.document.get(member)
        if not isinstance(known, list):
            raise ValueError(f"member {member!r} is no list, nothing can be put before its items")
        if not items:
            return
        text = self._changes[member] if member in self._changes else member_value(self._body, member)
        assert text is not None, "a member of the document is in the body"
        self._change(member, orjson.dumps(list(items))[:-1] + (b"," if known else b"") + text[1:])
        self.document[member] = [*items, *known]

    @property
    def has_changes(self) -> bool:
        """Something was asked for."""
        return bool(self._changes)

    def splices(self, model: str | None) -> Splices:
        """Where the body changes; () if it does not.

        Args:
            model: to be named in the body; None = the one that is there.
        """
        changes = self._changes if model is None else {**self._changes, "model": orjson.dumps(model)}
        return member_splices(self._body, changes) if changes else ()

    def _change(self, member: str, text: bytes | None) -> None:
        if member == "model":
            raise ValueError("a rewriter cannot change the model; an InferenceModelRewrite or its header does")
        self._changes[member] = text


def _is_owned(name: str) -> bool:
    return name in SYSTEM_OWNED or name.startswith(":")


def _can_be_sent(value: str) -> bool:
    """No character ends the value early, and every one has bytes (surrogates stand for bytes that are not UTF-8)."""
    if not clean_value(value):
        return False
    if value.isascii():
        return True
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True
