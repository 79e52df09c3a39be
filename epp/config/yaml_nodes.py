"""A tree of YAML nodes that know their place."""

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


def plain(node: Node) -> object:
    """The value as dicts, lists and scalars, without the keys whose value is null."""
    if isinstance(node, ScalarNode):
        return node.value
    if isinstance(node, ListNode):
        return [plain(item) for item in node.items]
    return {key: plain(entry.node) for key, entry in node.entries.items() if not entry.node.is_null}


def shallow(node: Node) -> object:
    """The value for a finding: mappings and lists are only named, never shown."""
    if isinstance(node, ScalarNode):
        return node.value
    return [] if isinstance(node, ListNode) else {}
