"""YAML text → a tree of nodes that know their place.

PyYAML gives the events; composing is done here, because its composer keeps the last of duplicate keys, stops after the first
document, hides merges, and resolves scalars in ways that operators do not expect. All limits hold while reading.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Place(NamedTuple):
    """Line and column, from 1; 0 = unknown."""

    line: int
    column: int


Value = str | int | float | bool | None
"""What a scalar can be."""


@dataclass(frozen=True, slots=True, eq=False)
class ScalarNode:
    """A string, number, boolean or null."""

    value: Value
    text: str
    """As written."""
    place: Place

    @property
    def is_null(self) -> bool:
        """Nothing, or null, is written here."""
        return self.value is None


@dataclass(frozen=True, slots=True, eq=False)
class ListNode:
    """A sequence."""

    items: tuple[Node, ...]
    place: Place
    is_null: bool = False


class Entry(NamedTuple):
    """The value of a key in a mapping."""

    key_place: Place
    node: Node


@dataclass(frozen=True, slots=True, eq=False)
class MapNode:
    """A mapping, merge keys applied; keys in document order."""

    entries: dict[str, Entry]
    place: Place
    is_null: bool = False


Node = ScalarNode | ListNode | MapNode
