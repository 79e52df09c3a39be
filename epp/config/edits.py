"""Edits of a document's text at the places of its nodes: everything else stays, comments and order included.

Each function gives the replacement of one span, or None where the text is written in a way that it does not touch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import yaml

from epp.config.yaml_nodes import Place

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Span(NamedTuple):
    """A piece of the text and what takes its place."""

    begin: int
    end: int
    text: str


class Text:
    """A document's text with its nodes.

    Args:
        text: valid YAML.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        root = yaml.compose(text, Loader=_Loader)
        self._scalars: dict[Place, yaml.ScalarNode] = {}
        self._entries: dict[Place, _Entry] = {}
        self._lists: dict[Place, yaml.SequenceNode] = {}
        self.root_begin = root.start_mark.index if root is not None else 0
        if root is not None:
            self._index(root)

    def replaced(self, place: Place, old: str, new: str) -> Span | None:
        """The scalar at a place, which reads ``old``, becomes ``new`` in the same quotes."""
        node = self._scalars.get(place)
        if node is None:
            return None
        begin, end = node.start_mark.index, node.end_mark.index
        quote = node.style if node.style in ("'", '"') else ""
        written = f"{quote}{old}{quote}"
        if not self.text[begin:end].endswith(written):
            return None
        return Span(end - len(written), end, f"{quote}{new}{quote}")

    def values_replaced(self, old: str, new: str) -> list[Span]:
        """Every value that reads ``old`` becomes ``new``; keys stay."""
        keys = {_place(entry.key) for entry in self._entries.values()}
        places = [place for place, node in self._scalars.items() if node.value == old and place not in keys]
        return [span for place in places if (span := self.replaced(place, old, new)) is not None]

    def key_replaced(self, place: Place, new: str) -> Span | None:
        """The key at a place becomes ``new``."""
        entry = self._entries.get(place)
        return None if entry is None else self.replaced(place, entry.key.value, new)

    def item_dropped(self, place: Place) -> Span | None:
        """The entry of a list at a place goes away; the list with it, if it is the only one of a block."""
        parent = self._lists.get(place)
        if parent is None:
            return None
        items = list(parent.value)
        index = next(i for i, item in enumerate(items) if _place(item) == place)
        if not parent.flow_style:
            if len(items) == 1:
                return None
            begin, end = self._lines_of(items[index])
            return Span(begin, end, "")
        if index + 1 < len(items):
            return Span(items[index].start_mark.index, items[index + 1].start_mark.index, "")
        begin = items[index - 1].end_mark.index if index else items[index].start_mark.index
        return Span(begin, items[index].end_mark.index, "")

    def parser_listed(self, place: Place, *, is_top: bool) -> list[Span] | None:
        """``parser: {pluginRef: x}`` becomes the one entry of ``requestHandler.parsers``.

        Args:
            place: of the key.
            is_top: the key stands at the top, not within ``requestHandler``.
        """
        entry = self._entries.get(place)
        if entry is None or not isinstance(entry.value, yaml.MappingNode):
            return None
        name = self.key_replaced(place, "requestHandler" if is_top else "parsers")
        value = entry.value
        begin, end = value.start_mark.index, value.end_mark.index
        if name is None:
            return None
        if value.flow_style:
            opening, closing = ("{parsers: [", "]}") if is_top else ("[", "]")
            return [name, Span(begin, begin, opening), Span(end, end, closing)]
        if len(value.value) != 1:
            return None
        indent = " " * value.start_mark.column
        return [name, Span(begin, begin, f"parsers:\n{indent}- " if is_top else "- ")]

    def moved(self, moves: Mapping[Place, tuple[str, str]]) -> list[Span] | None:
        """Entries of one mapping that go into mappings of their own: place of the key → (mapping, key there).

        The first of each mapping keeps its line, the others follow it.
        """
        entries = [(self._entries[place], *target) for place, target in sorted(moves.items()) if place in self._entries]
        if len(entries) != len(moves) or any(not isinstance(entry.value, yaml.ScalarNode) for entry, _, _ in entries):
            return None
        if entries[0][0].parent.flow_style:
            return self._moved_in_flow(entries)
        return self._moved_in_block(entries)

    def _moved_in_flow(self, entries: list[tuple[_Entry, str, str]]) -> list[Span]:
        spans: list[Span] = []
        siblings = entries[0][0].parent.value
        for section in dict.fromkeys(section for _, section, _ in entries):
            group = [(entry, key) for entry, name, key in entries if name == section]
            inner = ", ".join(f"{key}: {self._written(entry.value)}" for entry, key in group)
            first = group[0][0]
            spans.append(Span(first.key.start_mark.index, first.value.end_mark.index, f"{section}: {{{inner}}}"))
            for entry, _ in group[1:]:
                index = next(i for i, (key, _) in enumerate(siblings) if key is entry.key)
                spans.append(Span(siblings[index - 1][1].end_mark.index, entry.value.end_mark.index, ""))
        return spans

    def _moved_in_block(self, entries: list[tuple[_Entry, str, str]]) -> list[Span] | None:
        spans: list[Span] = []
        for section in dict.fromkeys(section for _, section, _ in entries):
            group = [(entry, key) for entry, name, key in entries if name == section]
            if any(entry.key.start_mark.line != entry.value.end_mark.line for entry, _ in group):
                return None
            first = group[0][0]
            indent = " " * first.key.start_mark.column
            following = "".join(f"{indent}  {key}{self._rest_of_line(entry)}" for entry, key in group[1:])
            key_begin, key_end = first.key.start_mark.index, first.key.end_mark.index
            line_end = self._line_end(key_begin)
            if following and not self.text[:line_end].endswith("\n"):
                following = "\n" + following
            spans.append(Span(key_begin, key_end, f"{section}:\n{indent}  {group[0][1]}"))
            if following:
                spans.append(Span(line_end, line_end, following))
            for entry, _ in group[1:]:
                if self.text[self._line_begin(entry.key.start_mark.index) : entry.key.start_mark.index].strip():
                    return None
                begin, end = self._lines_of(entry.key)
                spans.append(Span(begin, end, ""))
        return spans

    def _rest_of_line(self, entry: _Entry) -> str:
        """From behind the key to the end of the line, the comment included."""
        rest = self.text[entry.key.end_mark.index : self._line_end(entry.key.start_mark.index)]
        return rest if rest.endswith("\n") else rest + "\n"

    def _written(self, node: yaml.Node) -> str:
        return self.text[node.start_mark.index : node.end_mark.index]

    def _lines_of(self, node: yaml.Node) -> tuple[int, int]:
        """The whole lines of a node that stands alone on them."""
        return self._line_begin(node.start_mark.index), self._line_end(node.end_mark.index)

    def _line_begin(self, index: int) -> int:
        return self.text.rfind("\n", 0, index) + 1

    def _line_end(self, index: int) -> int:
        """Behind the line's end."""
        end = self.text.find("\n", index)
        return len(self.text) if end < 0 else end + 1

    def _index(self, root: yaml.Node) -> None:
        seen: set[int] = set()
        pending = [root]
        while pending:
            node = pending.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            if isinstance(node, yaml.ScalarNode):
                self._scalars[_place(node)] = node
            elif isinstance(node, yaml.SequenceNode):
                for item in node.value:
                    self._lists[_place(item)] = node
                pending += node.value
            elif isinstance(node, yaml.MappingNode):
                for key, value in node.value:
                    if isinstance(key, yaml.ScalarNode):
                        self._entries[_place(key)] = _Entry(key, value, node)
                    pending += (key, value)


class _Entry(NamedTuple):
    key: yaml.ScalarNode
    value: yaml.Node
    parent: yaml.MappingNode


def applied(text: str, spans: list[Span]) -> str:
    """The text with its spans replaced; of equal ones, one.

    Raises:
        ValueError: two of them overlap.
    """
    pieces: list[str] = []
    at = 0
    for span in sorted(set(spans), key=lambda span: (span.begin, span.end)):
        if span.begin < at:
            msg = f"two edits overlap at offset {span.begin}"
            raise ValueError(msg)
        pieces += (text[at : span.begin], span.text)
        at = span.end
    return "".join([*pieces, text[at:]])


def lines_added(text: Text, lines: Iterator[str] | list[str]) -> Span:
    """Lines before the first key of the document, behind the comments at its head."""
    return Span(text.root_begin, text.root_begin, "".join(f"{line}\n" for line in lines))


def _place(node: yaml.Node) -> Place:
    return Place(node.start_mark.line + 1, node.start_mark.column + 1)
