"""Bytes → nodes.

PyYAML gives the events; composing is done here, because its composer keeps the last of duplicate keys, stops after the first
document, hides merges, and forgets where things are. All limits hold while reading.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from epp.config.report import Report, UnreadableError
from epp.config.wording import MASK, describe, is_secret, is_secret_path, step
from epp.config.yaml_nodes import Entry, ListNode, MapNode, Node, Place, ScalarNode, Value, shallow
from epp.config.yaml_scalars import resolve
from epp.errors import Edit

MAX_BYTES = 1024 * 1024
"""A ConfigMap holds no more."""
MAX_NODES = 100_000
"""After expanding aliases; far above any real document, far below what hurts."""
MAX_DEPTH = 64
_INT64 = range(-(2**63), 2**63)
_TEMPLATE = "this is an unrendered template; render it (`helm template`) or quote it"

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_SCALAR_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null")}
_MAP_TAGS = {None, "!", "tag:yaml.org,2002:map"}
_LIST_TAGS = {None, "!", "tag:yaml.org,2002:seq"}


def read_nodes(data: bytes, report: Report) -> MapNode:
    """The document as a tree.

    Args:
        data: not empty.
        report: receives what is wrong; errors that leave a usable tree do not raise.

    Raises:
        UnreadableError: the document cannot be read.
    """
    text = _decode(data, report)
    lines = text.splitlines()
    try:
        events = yaml.parse(text, Loader=_Loader)
        return _Composer(iter(events), lines, report).document()
    except yaml.MarkedYAMLError as error:
        raise _syntax(error, lines, report) from None
    except yaml.reader.ReaderError as error:
        problem = f"not valid YAML: {error.reason}: character {error.character!r} at offset {error.position}"
        raise report.stop("CFG005", "", problem, "remove it", at=_place_of(data, error.position)) from None


def _decode(data: bytes, report: Report) -> str:
    if len(data) > MAX_BYTES:
        raise report.stop(
            "CFG002",
            "",
            f"the document has {len(data)} bytes; the limit is {MAX_BYTES}",
            "a ConfigMap holds no more than 1 MiB",
        )
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise report.stop("CFG003", "", "not UTF-8: the file begins like UTF-16, at byte offset 0", "save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = f"not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}"
        raise report.stop("CFG003", "", problem, "save the file as UTF-8", at=_place_of(data, error.start)) from None


def _place_of(data: bytes, offset: int) -> Place:
    return Place(data.count(b"\n", 0, offset) + 1, offset - data.rfind(b"\n", 0, offset))


def _syntax(error: yaml.MarkedYAMLError, lines: list[str], report: Report) -> UnreadableError:
    mark = error.problem_mark or error.context_mark
    place = Place(mark.line + 1, mark.column + 1) if mark is not None else Place(0, 0)
    line = lines[mark.line] if mark is not None and mark.line < len(lines) else ""
    problem = f"not valid YAML: {error.problem or error.context}"
    if error.context and error.problem:
        problem += f" {error.context}"
    if line.strip() and not is_secret(line.partition(":")[0].strip(" -{\"'")):
        problem += f", in the line `{line.strip()[:100]}`"
    fix = "check the indentation, quotes and brackets here and in the lines above"
    if "{{" in line:
        fix = _TEMPLATE
    elif "\t" in line:
        fix = "indent with spaces; YAML does not allow tabs"
    return report.stop("CFG005", "", problem, fix, at=place)


@dataclass(slots=True)
class _Anchor:
    """A node that can be referred to; None while it is being read."""

    node: Node | None = None
    nodes: int = 1
    """Of the tree below it, itself included, aliases written out."""
    height: int = 0
    """Levels below it."""


def _place(event: yaml.Event) -> Place:
    mark = event.start_mark
    return Place(mark.line + 1, mark.column + 1) if mark is not None else Place(0, 0)


_Content = yaml.ScalarEvent | yaml.CollectionStartEvent


class _Composer:
    """Builds nodes from events. ``_nodes`` counts them as if every alias were written out."""

    def __init__(self, events: Iterator[yaml.Event], lines: list[str], report: Report) -> None:
        self._events = events
        self._lines = lines
        self._report = report
        self._anchors: dict[str, _Anchor] = {}
        self._nodes = 0
        self._deepest = 0

    def document(self) -> MapNode:
        """The first document; a second one is an error.

        Raises:
            UnreadableError: there is no document, or it is no mapping, or a limit is exceeded.
        """
        next(self._events)
        event = next(self._events)
        if isinstance(event, yaml.StreamEndEvent):
            raise self._empty()
        root = self._node(next(self._events), "", 1)
        next(self._events)
        self._rest()
        if root.is_null:
            raise self._empty()
        if not isinstance(root, MapNode):
            message = f"the document must be a mapping, not {describe(shallow(root))}"
            raise self._report.stop("CFG011", "", message, "begin with `apiVersion:` and `kind:`", at=root.place)
        return root

    def _empty(self) -> UnreadableError:
        return self._report.stop(
            "CFG010", "", "the document is empty", "give a configuration, or a file of zero bytes for the built-in default"
        )

    def _rest(self) -> None:
        for event in self._events:
            if isinstance(event, yaml.StreamEndEvent):
                return
            place = _place(event)
            content = next(self._events)
            next_event = next(self._events)
            empty = isinstance(content, yaml.ScalarEvent) and not content.value and content.implicit[0]
            if not (empty and isinstance(next_event, yaml.DocumentEndEvent)):
                message = f"a second document begins in line {place.line}"
                raise self._report.stop("CFG009", "", message, "keep one document; remove the `---` and what follows", at=place)

    def _node(self, event: yaml.Event, path: str, depth: int) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path, depth)
        assert isinstance(event, _Content)  # what the parser gives here, by YAML's grammar
        before, deepest_around = self._nodes, self._deepest
        self._deepest = depth
        self._count(1, depth, path, _place(event))
        anchor = _Anchor()
        if event.anchor is not None:
            self._anchors[event.anchor] = anchor
        node = self._fresh(event, path, depth)
        anchor.node, anchor.nodes, anchor.height = node, self._nodes - before, self._deepest - depth
        self._deepest = max(self._deepest, deepest_around)
        return node

    def _fresh(self, event: _Content, path: str, depth: int) -> Node:
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._list(event, path, depth)
        return self._map(event, path, depth)

    def _count(self, nodes: int, depth: int, path: str, place: Place) -> None:
        self._nodes += nodes
        self._deepest = max(self._deepest, depth)
        if self._nodes > MAX_NODES:
            message = f"the document has more than {MAX_NODES} nodes with its aliases written out"
            raise self._report.stop("CFG007", path, message, "use fewer aliases", at=place)
        if depth > MAX_DEPTH:
            message = f"nested deeper than {MAX_DEPTH} levels"
            raise self._report.stop("CFG007", path, message, "flatten it", at=place)

    def _alias(self, event: yaml.AliasEvent, path: str, depth: int) -> Node:
        place = _place(event)
        anchor = self._anchors.get(event.anchor or "")
        if anchor is None:
            message = f"alias *{event.anchor} has no anchor &{event.anchor} before it"
            raise self._report.stop("CFG005", path, message, f"define &{event.anchor} first, or quote the text", at=place)
        if anchor.node is None:
            message = f"alias *{event.anchor} stands inside its own anchor &{event.anchor}"
            raise self._report.stop("CFG007", path, message, "write the value out", at=place)
        self._count(anchor.nodes, depth + anchor.height, path, place)
        return anchor.node

    def _list(self, event: yaml.SequenceStartEvent, path: str, depth: int) -> ListNode:
        self._check_tag(event, _LIST_TAGS, path)
        items: list[Node] = []
        while not isinstance(following := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(following, step(path, len(items)), depth + 1))
        return ListNode(tuple(items), _place(event))

    def _map(self, event: yaml.CollectionStartEvent, path: str, depth: int) -> MapNode:
        self._check_tag(event, _MAP_TAGS, path)
        entries: dict[str, Entry] = {}
        merged: list[MapNode] = []
        while not isinstance(key_event := next(self._events), yaml.MappingEndEvent):
            if self._is_merge(key_event):
                merged += self._merged(self._node(next(self._events), step(path, "<<"), depth + 1), path)
                continue
            key, key_place = self._key(key_event, path, depth)
            node = self._node(next(self._events), step(path, key), depth + 1)
            if key in entries:
                self._duplicate(key, path, entries[key].key_place, key_place)
            entries[key] = Entry(key_place, node)
        for other in merged:
            for key, entry in other.entries.items():
                entries.setdefault(key, entry)
        return MapNode(entries, _place(event))

    @staticmethod
    def _is_merge(event: yaml.Event) -> bool:
        return isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0] and event.tag is None

    def _merged(self, node: Node, path: str) -> list[MapNode]:
        found = node.items if isinstance(node, ListNode) else (node,)
        for item in found:
            if not isinstance(item, MapNode):
                message = f"the merge key << needs a mapping, not {describe(shallow(item))}"
                self._report.error("CFG032", step(path, "<<"), message, "refer to a mapping: `<<: *anchor`", at=node.place)
        return [item for item in found if isinstance(item, MapNode)]

    def _key(self, event: yaml.Event, path: str, depth: int) -> tuple[str, Place]:
        place = _place(event)
        node = self._node(event, path, depth + 1)
        if isinstance(node, ScalarNode) and isinstance(node.value, str):
            return node.value, place
        text = node.text if isinstance(node, ScalarNode) else "?"
        line = self._lines[place.line - 1] if place.line <= len(self._lines) else ""
        fix = _TEMPLATE if "{{" in line else f'quote it: "{text}"'
        message = f"a key must be a string, not {describe(shallow(node))}"
        self._report.error("CFG012", step(path, text) if text != "?" else path, message, fix, value=shallow(node), at=place)
        return text, place

    def _duplicate(self, key: str, path: str, first: Place, second: Place) -> None:
        message = f'duplicate key "{key}": it stands in line {first.line} and again in line {second.line}'
        self._report.error("CFG006", step(path, key), message, "keep one of them", value=key, at=second)

    def _check_tag(self, event: _Content, allowed: set[str | None], path: str) -> None:
        if event.tag not in allowed:
            raise self._tag(event, path)

    def _tag(self, event: _Content, path: str) -> UnreadableError:
        tag = str(event.tag).replace("tag:yaml.org,2002:", "!!")
        return self._report.stop("CFG008", path, f"the tag {tag} is not allowed", "remove it", value=tag, at=_place(event))

    def _scalar(self, event: yaml.ScalarEvent, path: str) -> ScalarNode:
        place = _place(event)
        text, tag = event.value, event.tag
        if tag is not None and tag != "!":
            if tag not in _SCALAR_TAGS:
                raise self._tag(event, path)
            return ScalarNode(self._tagged(tag.rsplit(":", 1)[1], text, path, place), text, place)
        if tag == "!" or not event.implicit[0]:
            return ScalarNode(text, text, place)
        value, advice = resolve(text)
        secret = is_secret_path(path)
        if advice and not secret:
            plainly = json.dumps(value) if isinstance(value, (bool, int, float)) else text
            self._report.warn("WRN016", path, advice, value=text, at=place, edit=(Edit.REPLACE, plainly))
        if isinstance(value, int) and not isinstance(value, bool) and value not in _INT64:
            shown = MASK if secret else text[:40]
            self._report.error(
                "CFG035", path, f"{shown} does not fit into 64 bits", f"at most {_INT64[-1]}", value=text, at=place
            )
        return ScalarNode(value, text, place)

    def _tagged(self, kind: str, text: str, path: str, place: Place) -> Value:
        if kind == "str":
            return text
        value, _ = resolve(text)
        if kind == "float" and type(value) is int:
            return float(value)
        if type(value) is not _TAGGED[kind]:
            message = f"!!{kind} does not fit {describe(value)}"
            self._report.error("CFG032", path, message, "remove the tag", value=text, at=place)
        return value


_TAGGED: dict[str, type] = {"int": int, "float": float, "bool": bool, "null": type(None)}
