"""Header changes that plugins ask for, collected and checked."""

from __future__ import annotations

from epp.extproc.handler import Edits, Pairs
from epp.request.headers import SYSTEM_OWNED, clean_value
from epp.telemetry import log

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
