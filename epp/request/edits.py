"""Header changes that plugins ask for, collected and checked."""

from __future__ import annotations

from epp.extproc.handler import Edits, Pairs
from epp.request.headers import SYSTEM_OWNED

_FORBIDDEN = ("\r", "\n", "\0")


class EditList:
    """HeaderEdits of one message; the picker's own names are refused.

    ``dropped`` holds the names whose value could not be sent, for the log.
    """

    __slots__ = ("_remove", "_set", "dropped", "metadata")

    def __init__(self) -> None:
        self._set: dict[str, str] | None = None
        self._remove: set[str] | None = None
        self.metadata: dict[str, dict[str, object]] | None = None
        self.dropped: list[str] = []

    def set(self, name: str, value: str) -> None:
        """Replace all values of ``name``; ignored for names that the picker owns."""
        name = name.lower()
        if name in SYSTEM_OWNED or name.startswith(":"):
            return
        if any(character in value for character in _FORBIDDEN):
            self.dropped.append(name)
            return
        if self._set is None:
            self._set = {}
        self._set[name] = value

    def remove(self, name: str) -> None:
        """Remove ``name``; ignored for names that the picker owns."""
        name = name.lower()
        if name in SYSTEM_OWNED or name.startswith(":"):
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
