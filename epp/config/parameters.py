"""Plugin parameters: the mapping of a document → the plugin's model, and pydantic's errors → findings.

Every error is placed at the key or value it is about and says in YAML's words what was expected.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence
from typing import Protocol

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from epp.config.decode import DURATION_FIX, QUANTITY_FIX
from epp.config.misplaced import fields_of, home_of_parameter, models_in
from epp.config.report import Report
from epp.config.schema import PluginSpec
from epp.config.wording import MASK, describe, fix_kind, is_secret_path, nearest, show, step, suggest, with_page
from epp.config.yaml_nodes import ListNode, MapNode, Node, Place, plain
from epp.errors import Edit
from epp.framework.params import Deprecated, Former, Ignored, Params, former_names
from epp.framework.registry import PluginType

Location = tuple[str | int, ...]

_KINDS = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "int_parsing": "an integer",
    "float_type": "a number",
    "bool_type": "a boolean (true or false)",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
"""Error of pydantic → what was expected."""
_CODES = {"exclusive": "CFG037", "mixed_forms": "CFG070", "no_producer": "CFG110"}
_RANGES = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}
_EMPTY = MapNode({}, Place(0, 0))


def decode_parameters(spec: PluginSpec, plugin_type: PluginType, report: Report) -> Params | None:
    """The parameters of one plugin; None after an error.

    A key without a value counts as absent.
    """
    node = spec.parameters if spec.parameters is not None else _EMPTY
    document = plain(node)
    assert isinstance(document, dict)
    try:
        params = plugin_type.params.decode(document)
    except ValidationError as failure:
        parameters = _Parameters(spec, plugin_type, node, report)
        for error in failure.errors(include_url=False):
            parameters.report_error(error)
        return None
    _warn_of_old_forms(spec, params, node, report)
    return params


def default_parameters(plugin_type: PluginType) -> Params:
    """The parameters of a plugin that nobody configured.

    Raises:
        ValueError: it has a parameter without a default.
    """
    return plugin_type.params.decode({})


class _Parameters:
    """Reports errors in the parameters of one plugin."""

    def __init__(self, spec: PluginSpec, plugin_type: PluginType, node: MapNode, report: Report) -> None:
        self._spec = spec
        self._type = plugin_type
        self._node = node
        self._report = report

    def report_error(self, error: ErrorDetails) -> None:
        kind, location = error["type"], error["loc"]
        if kind == "extra_forbidden":
            self._unknown(location)
            return
        location = _as_written(self._type.params, location, self._node)
        known, path, node = _follow(self._node, location, self._spec.child("parameters"))
        value = error["input"] if known == len(location) else None
        if value not in (None, "", [], {}) and is_secret_path(path):
            value = MASK
        code, message, fix = self._judge(error, value)
        if code == "CFG056":
            message = self._refused(self._name(location), message)
        place = node.place if node is not _EMPTY else self._spec.place("type")
        self._report.error(code, path, message, with_page(fix, self._type.type), value=_shown(value), at=place)

    def _judge(self, error: ErrorDetails, value: object) -> tuple[str, str, str]:
        kind, context = error["type"], error.get("ctx", {})
        if kind in ("duration", "quantity"):
            fix = DURATION_FIX if kind == "duration" else QUANTITY_FIX
            return "CFG034", f"{show(value)} is not a {kind}", fix
        if kind == "finite_number":
            return "CFG038", "expected a finite number", "use a number"
        if kind in _KINDS:
            return "CFG054", f"expected {_KINDS[kind]}, not {describe(value)}", fix_kind(_KINDS[kind], value)
        if kind in ("literal_error", "enum") and not isinstance(value, str):
            return "CFG054", f"expected {context['expected']}, not {describe(value)}", "write one of these"
        if kind in _CODES:
            code = _CODES[kind]
            message, fix = _sentence(error["msg"]), ""
        else:
            code = "CFG056"
            message, fix = self._reason(error, value)
        if not fix and ";" in message:
            message, _, fix = message.rpartition("; ")
        return code, message, fix or f"see `epp plugins {self._type.type}`"

    @staticmethod
    def _reason(error: ErrorDetails, value: object) -> tuple[str, str]:
        """What is wrong with a value of the right kind, and what is possible."""
        kind, context = error["type"], error.get("ctx", {})
        if kind == "missing":
            return "is required", "add it"
        if kind in _RANGES:
            words, name = _RANGES[kind]
            return f"must be {words} {show(context[name])}, not {show(value)}", f"use {words} {show(context[name])}"
        if kind in ("literal_error", "enum"):
            legal = [word.strip("'") for word in context["expected"].replace(" or ", ", ").split(", ")]
            close = nearest(str(value), legal)
            return f"cannot be {show(value)}: it is one of {', '.join(legal)}", f'did you mean "{close}"?' if close else ""
        if kind in ("string_too_short", "too_short") and context.get("min_length") == 1:
            return "must not be empty", ""
        return _sentence(error["msg"]), ""

    def _refused(self, name: str, cause: str) -> str:
        about = name if name and not cause.startswith(name) and cause.startswith(("is ", "must ", "cannot ")) else ""
        text = f"{about} {cause}" if about else f"{name}: {cause}" if name and name not in cause else cause
        return f"failed to create plugin '{self._spec.name or self._type.type}' (type: {self._spec.type}): {text}"

    def _unknown(self, location: Location) -> None:
        key = str(location[-1])
        model = _model_at(self._type.params, location[:-1])
        location = _as_written(self._type.params, location, self._node)
        known, parent, node = _follow(self._node, location[:-1], self._spec.child("parameters"))
        entry = node.entries.get(key) if isinstance(node, MapNode) and known == len(location) - 1 else None
        place = entry.key_place if entry is not None else node.place
        owner = f"{self._spec.type}" + (f" ({show(self._spec.name)})" if self._spec.name not in ("", self._spec.type) else "")
        if not self._type.params.model_fields:
            message, fix = f"unknown parameter {show(key)}: {owner} takes no parameters", "remove it"
        else:
            message, fix = f"unknown parameter {show(key)} of {owner}", self._instead(key, model)
        self._report.error("CFG053", step(parent, key), message, with_page(fix, self._type.type), value=key, at=place)

    def _instead(self, key: str, model: type[BaseModel] | None) -> str:
        """What to do about an unknown key of a model."""
        for name, info in fields_of(model):
            if key in former_names(info):
                return f"it is an older name of {name}, which is given too; remove it"
        gone = model.gone.get(key, "") if model is not None and issubclass(model, Params) else ""
        home = home_of_parameter(self._type.params, key)
        if gone or home:
            return gone or f"its place is {home}"
        legal = [name for name, _ in fields_of(model)]
        return suggest(key, legal, f"see `epp plugins {self._type.type}`")

    @staticmethod
    def _name(location: Location) -> str:
        path = ""
        for part in location:
            path = step(path, part)
        return path


class Declared(Protocol):
    """A plugin that may have an entry in the document."""

    @property
    def name(self) -> str: ...
    @property
    def spec(self) -> PluginSpec | None: ...


def locate(plugin: Declared, keys: Sequence[str]) -> tuple[str, Place]:
    """Path and place of a parameter; the place of the plugin's type if it is not given."""
    spec = plugin.spec
    if spec is None:
        return f"{plugin.name}.parameters.{'.'.join(keys)}", Place(0, 0)
    node = spec.parameters if spec.parameters is not None else _EMPTY
    location = [int(key) if key.isdigit() else key for key in keys]
    known, path, found = _follow(node, location, spec.child("parameters"))
    return path, found.place if known == len(location) else spec.place("type")


def _shown(value: object) -> object:
    return value if value is None or isinstance(value, (str, int, float, bool)) else type(value)()


def _sentence(text: str) -> str:
    """A message of pydantic as part of a sentence."""
    text = text.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return text.replace("Input should", "must").replace("String should", "must").replace("List should", "must")


def _follow(node: Node, location: Sequence[str | int], path: str) -> tuple[int, str, Node]:
    """How many steps of a location exist below ``node``; the path of the whole location; the last node that exists."""
    known = 0
    alive = True
    for part in location:
        following: Node | None = None
        if isinstance(node, MapNode) and part in node.entries:
            following = node.entries[str(part)].node
        elif isinstance(node, ListNode) and isinstance(part, int) and part < len(node.items):
            following = node.items[part]
        alive = alive and following is not None
        if alive and following is not None:
            node = following
            known += 1
        path = step(path, part)
    return known, path, node


def _model_at(model: type[BaseModel], location: Location) -> type[BaseModel] | None:
    """The model of the mapping at a location, or None if it has none."""
    found: type[BaseModel] | None = model
    for part in location:
        if isinstance(part, int) or found is None:
            continue
        info = dict(fields_of(found)).get(part)
        found = next(models_in(info.annotation), None) if info is not None else found
    return found


def _as_written(model: type[BaseModel], location: Location, node: Node) -> Location:
    """The location with the older names of parameters where the document has these."""
    written: list[str | int] = []
    found: type[BaseModel] | None = model
    for index, part in enumerate(location):
        info = dict(fields_of(found)).get(str(part))
        _, _, here = _follow(node, written, "")
        former = former_names(info) if info is not None and isinstance(here, MapNode) and part not in here.entries else ()
        written.append(next((name for name in former if isinstance(here, MapNode) and name in here.entries), part))
        found = _model_at(model, location[: index + 1])
    return tuple(written)


def _warn_of_old_forms(spec: PluginSpec, params: BaseModel, node: MapNode, report: Report, path: str = "") -> None:
    path = path or spec.child("parameters")
    for present, info in fields_of(type(params)):
        name = next((name for name in (present, *former_names(info)) if name in node.entries), present)
        entry = node.entries.get(name)
        if entry is None or entry.node.is_null:
            continue
        where = step(path, name)
        value = getattr(params, _attribute(params, present))
        for mark in _marks(info):
            if isinstance(mark, Ignored):
                report.warn(
                    "WRN007", where, f"{name} has no effect: {mark.reason}", "remove it", value=None, at=entry.key_place
                )
            elif isinstance(mark, Deprecated) and name == present:
                edit = (Edit.MOVE, mark.moves_to) if mark.moves_to else None
                report.warn(
                    mark.code, where, f"{name} is an older form", mark.advice, value=None, at=entry.key_place, edit=edit
                )
            elif isinstance(mark, Former) and mark.name == name:
                advice = next((other.advice for other in _marks(info) if isinstance(other, Deprecated)), f"write {present}")
                message = f"{name} is an older name of {present}"
                edit = (Edit.REPLACE, present) if advice == f"write {present}" else None
                report.warn("WRN007", where, message, advice, value=None, at=entry.key_place, edit=edit)
        if isinstance(value, BaseModel) and isinstance(entry.node, MapNode):
            _warn_of_old_forms(spec, value, entry.node, report, where)


def _attribute(params: BaseModel, key: str) -> str:
    return next(name for name, info in type(params).model_fields.items() if (info.alias or name) == key)


def _marks(info: FieldInfo) -> Iterator[object]:
    yield from info.metadata
    for part in typing.get_args(info.annotation):
        yield from getattr(part, "__metadata__", ())
