"""Nodes → records, strictly: every unknown key and every value of a wrong kind is reported, and the rest is still read."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from epp.config.misplaced import home_of_field
from epp.config.report import Report
from epp.config.schema import Document, Key, Kind, Reference, Section, keys_of
from epp.config.wording import describe, fix_kind, nearest, show, step, suggest
from epp.config.yaml_nodes import ListNode, MapNode, Node, ScalarNode, shallow
from epp.framework.params import parse_duration, parse_quantity

R = TypeVar("R", bound=Section)

DURATION_FIX = "use a string such as 30s, 200ms or 1m30s; days are 24h"
QUANTITY_FIX = "use a number, or one with a suffix such as 1G, 10Mi or 2k"

_KUBERNETES = "this is not a Kubernetes object"
_HINTS = {
    "metadata": f"{_KUBERNETES}; remove it",
    "status": f"{_KUBERNETES}; remove it",
    "spec": f"{_KUBERNETES}; move its fields to the top level",
    "profiles": "write schedulingProfiles",
    "scorers": "declare them in plugins and refer to them in schedulingProfiles",
    "filters": "declare them in plugins and refer to them in schedulingProfiles",
    "pickers": "declare them in plugins and refer to them in schedulingProfiles",
    "weights": "give each reference its weight: `schedulingProfiles[].plugins[].weight`",
    "config": "this looks like Helm values; pass only the content of `config`",
}
"""Keys at the top level that are common mistakes."""


def decode_document(node: MapNode, report: Report) -> Document:
    """The whole document as records; what could not be read is listed in ``broken`` of its record."""
    return decode(Document, node, report)


def decode(record: type[R], node: MapNode, report: Report) -> R:
    """A whole document of another kind, by the same rules."""
    return _Decoder(report, record).section(record, node, "")


class _WrongError(Exception):
    """A value was reported and has no meaning."""


class _Decoder:
    def __init__(self, report: Report, root: type[Section]) -> None:
        self._report = report
        self._root = root

    def section(self, record: type[R], node: MapNode, path: str) -> R:
        keys = keys_of(record)
        values: dict[str, Any] = {}
        broken: set[str] = set()
        self._unknown(record, node, path, keys)
        for name, (field_name, key) in keys.items():
            entry = node.entries.get(name)
            if entry is None or entry.node.is_null:
                self._missing(key, node, path, broken, keys)
                continue
            try:
                values[field_name] = self._value(key, entry.node, step(path, name))
            except _WrongError:
                broken.add(name)
        return record(path=path, node=node, broken=frozenset(broken), **values)

    def _unknown(self, record: type[Section], node: MapNode, path: str, keys: Mapping[str, object]) -> None:
        for name, entry in node.entries.items():
            if name in keys:
                continue
            fix = _unknown_fix(record, name, keys, self._root)
            self._report.error(
                "CFG031", step(path, name), f'unknown field "{name}"', fix, value=shallow(entry.node), at=entry.key_place
            )

    def _missing(self, key: Key, node: MapNode, path: str, broken: set[str], legal: Container[str]) -> None:
        if not key.required:
            return
        broken.add(key.name)
        if any(nearest(name, [key.name]) for name in node.entries if name not in legal):
            return  # misspelt, which was said
        named = node.entries.get("name")
        whose = f" in the entry named {show(named.node.text)}" if named and isinstance(named.node, ScalarNode) else ""
        message = f"{key.name} is missing{whose}"
        self._report.error(key.required, step(path, key.name), message, _required_fix(key), at=node.place)

    def _value(self, key: Key, node: Node, path: str) -> Any:
        if key.kind is Kind.MAPPING:
            return self._mapping(key, node, path)
        if key.kind is Kind.TEXTS:
            return self._texts(key, node, path)
        if key.kind in (Kind.SECTIONS, Kind.STRINGS, Kind.INTEGERS):
            return self._list(key, node, path)
        return self._scalar(key, node, path)

    def _mapping(self, key: Key, node: Node, path: str) -> Any:
        if not isinstance(node, MapNode):
            raise self._wrong_kind(key.kind, node, path, key.form)
        return self.section(key.record, node, path) if key.record is not None else node

    def _texts(self, key: Key, node: Node, path: str) -> dict[str, str]:
        if not isinstance(node, MapNode):
            raise self._wrong_kind(key.kind, node, path, key.form)
        found: dict[str, str] = {}
        for name, entry in node.entries.items():
            with suppress(_WrongError):
                found[name] = self._scalar(Key(name, Kind.STRING), entry.node, step(path, name))
        return found

    def _list(self, key: Key, node: Node, path: str) -> tuple[Any, ...]:
        if not isinstance(node, ListNode):
            raise self._wrong_kind(key.kind, node, path, key.form)
        found = []
        for index, item in enumerate(node.items):
            with suppress(_WrongError):
                found.append(self._item(key, item, step(path, index)))
        return tuple(found)

    def _item(self, key: Key, node: Node, path: str) -> Any:
        if key.record is None:
            return self._scalar(Key(key.name, _ITEM[key.kind]), node, path)
        if not isinstance(node, MapNode):
            raise self._wrong_kind(Kind.MAPPING, node, path, key.entry_form)
        return self.section(key.record, node, path)

    def _scalar(self, key: Key, node: Node, path: str) -> Any:
        if not isinstance(node, ScalarNode):
            raise self._wrong_kind(key.kind, node, path)
        value: Any = self._read(key, node, path)
        if key.required and value == "":
            self._report.error(key.required, path, f"{key.name} is empty", _required_fix(key), value=value, at=node.place)
            raise _WrongError
        if key.negative and value < 0:
            message = f"{key.name} must be non-negative, not {node.text}"
            self._report.error(key.negative, path, message, "use 0 for no limit", value=node.value, at=node.place)
            raise _WrongError
        return value

    def _read(self, key: Key, node: ScalarNode, path: str) -> object:
        value = node.value
        if key.kind is Kind.DURATION:
            return self._parsed(node, path, parse_duration, "a duration", DURATION_FIX)
        if key.kind is Kind.QUANTITY:
            return self._parsed(node, path, parse_quantity, "a quantity", QUANTITY_FIX)
        if isinstance(value, float) and not math.isfinite(value):
            message = f"{node.text} is not a finite number"
            self._report.error("CFG038", path, message, "use a number", value=node.text, at=node.place)
            raise _WrongError
        if key.kind is Kind.INTEGER and isinstance(value, float) and value.is_integer():
            return int(value)
        if not isinstance(value, _PYTHON[key.kind]) or (isinstance(value, bool) and key.kind is not Kind.BOOLEAN):
            raise self._wrong_kind(key.kind, node, path)
        return value

    def _parsed(self, node: ScalarNode, path: str, parse: Callable[[object], float], what: str, fix: str) -> float:
        try:
            return parse(node.value)
        except ValueError:
            message = f"{show(node.value)} is not {what}"
            self._report.error("CFG034", path, message, fix, value=node.value, at=node.place)
            raise _WrongError from None

    def _wrong_kind(self, kind: Kind, node: Node, path: str, form: str = "") -> _WrongError:
        value = shallow(node)
        message = f"expected {kind.value}, not {describe(value)}"
        fix = form.format(node.text if isinstance(node, ScalarNode) else "...") if form else fix_kind(kind.value, value)
        self._report.error("CFG032", path, message, fix, value=value, at=node.place)
        return _WrongError()


_ITEM: dict[Kind, Kind] = {Kind.STRINGS: Kind.STRING, Kind.INTEGERS: Kind.INTEGER}
_PYTHON: dict[Kind, tuple[type, ...]] = {
    Kind.STRING: (str,),
    Kind.INTEGER: (int,),
    Kind.NUMBER: (int, float),
    Kind.BOOLEAN: (bool,),
}


def _unknown_fix(record: type[Section], name: str, keys: Mapping[str, object], root: type[Section]) -> str:
    hint = _HINTS.get(name, "") if record is Document else ""
    if hint or nearest(name, keys):
        return hint or suggest(name, keys)
    home = home_of_field(root, name)
    if home:
        return f"its place is {home}"
    if issubclass(record, Reference):
        return f"parameters of a plugin stand in its entry of plugins; possible here: {', '.join(sorted(keys))}"
    return suggest(name, keys)


def _required_fix(key: Key) -> str:
    if key.name == "pluginRef":
        return "give the name of an entry of plugins"
    return f"give it a {key.name}" if key.kind is Kind.STRING else f"give {key.kind.value}"
