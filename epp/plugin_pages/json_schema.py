"""A JSON Schema of configuration documents, for editors: the records of the document, and the parameters of every plugin type.

It helps while typing; what ``epp check`` says is what counts. Older names are accepted and marked as deprecated.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from epp.config.header import ACCEPTED_VERSIONS, KIND, known_gates
from epp.config.schema import Document, Key, Kind, PluginSpec, Section, keys_of
from epp.framework.params import Deprecated, DurationS, GoDurationS, Ignored, Int, Quantity, former_names
from epp.framework.registry import PluginType, Registry
from epp.plugin_pages.parameters import marks

DIALECT = "http://json-schema.org/draft-07/schema#"
"""What editors understand best."""
_DURATION: dict[str, object] = {
    "type": "string",
    "pattern": r"^[-+]?(0|([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$",
    "description": "A duration such as 500ms, 30s or 1m30s.",
}
_QUANTITY: dict[str, object] = {
    "type": ["number", "string"],
    "pattern": r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][-+]?[0-9]+)?$",
    "description": "A quantity such as 10Mi or 1k.",
}
_BY_KIND: Mapping[Kind, dict[str, object]] = {
    Kind.STRING: {"type": "string"},
    Kind.INTEGER: {"type": "integer"},
    Kind.NUMBER: {"type": "number"},
    Kind.BOOLEAN: {"type": "boolean"},
    Kind.DURATION: _DURATION,
    Kind.QUANTITY: _QUANTITY,
    Kind.MAPPING: {"type": "object"},
    Kind.STRINGS: {"type": "array", "items": {"type": "string"}},
    Kind.INTEGERS: {"type": "array", "items": {"type": "integer"}},
    Kind.TEXTS: {"type": "object", "additionalProperties": {"type": "string"}},
    Kind.SECTIONS: {"type": "array"},
}
_PLAIN: Mapping[object, dict[str, object]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
}
_SCALARS: Sequence[tuple[object, dict[str, object]]] = [
    (typing.get_args(DurationS)[1], _DURATION),
    (typing.get_args(GoDurationS)[1], {"anyOf": [_DURATION, {"type": "integer"}]}),
    (typing.get_args(Quantity)[1], _QUANTITY),
    (typing.get_args(Int)[1], {"type": "integer"}),
]
"""What marks a scalar type of parameters → its schema."""


def document_schema(registry: Registry) -> dict[str, object]:
    """The schema of a whole document with the plugin types of a registry."""
    definitions: dict[str, object] = {}
    root = record_schema(Document, definitions)
    properties = typing.cast("dict[str, object]", root["properties"])
    properties["apiVersion"] = {"type": "string", "enum": list(ACCEPTED_VERSIONS)}
    properties["kind"] = {"const": KIND}
    properties["featureGates"] = {"type": "array", "items": {"type": "string", "anyOf": [_gates(), {"pattern": "="}]}}
    definitions["PluginSpec"] = _plugins(registry)
    return {"$schema": DIALECT, "title": KIND, **root, "definitions": definitions}


def _gates() -> dict[str, object]:
    return {"enum": sorted(known_gates())}


def record_schema(record: type[Section], definitions: dict[str, object]) -> dict[str, object]:
    """The schema of a record; records within it go to the definitions."""
    properties: dict[str, object] = {}
    required: list[str] = []
    for name, (_, key) in keys_of(record).items():
        properties[name] = _value(key, definitions)
        if key.required and not key.negative:
            required.append(name)
    schema: dict[str, object] = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        schema["required"] = required
    text = " ".join((record.__doc__ or "").split())
    return {**schema, "description": text.replace("``", "`")} if text else schema


def _value(key: Key, definitions: dict[str, object]) -> dict[str, object]:
    if key.record is None:
        schema = dict(_BY_KIND[key.kind])
        if key.negative and key.kind in (Kind.INTEGER, Kind.NUMBER):
            schema["minimum"] = 0
        return schema
    name = key.record.__name__
    if name not in definitions:
        definitions[name] = {}  # a record may contain itself
        definitions[name] = record_schema(key.record, definitions)
    reference: dict[str, object] = {"$ref": f"#/definitions/{name}"}
    return {"type": "array", "items": reference} if key.kind is Kind.SECTIONS else reference


def _plugins(registry: Registry) -> dict[str, object]:
    """An entry of ``plugins``: the parameters are those of its type."""
    schema = record_schema(PluginSpec, {})
    properties = typing.cast("dict[str, object]", schema["properties"])
    properties["type"] = {"type": "string", "oneOf": list(_names(registry))}
    properties["parameters"] = {"type": ["object", "null"]}
    schema["allOf"] = [_parameters_of(plugin_type, registry) for plugin_type in registry]
    return schema


def _names(registry: Registry) -> Iterator[dict[str, object]]:
    for plugin_type in registry:
        yield {"const": plugin_type.type, "description": plugin_type.summary}
        for alias in plugin_type.aliases:
            yield {"const": alias.name, "description": f"Another name of {plugin_type.type}.", "deprecated": alias.deprecated}
        for former in registry.former_names(plugin_type):
            yield {"const": former, "description": f"An older name of {plugin_type.type}.", "deprecated": True}


def _parameters_of(plugin_type: PluginType, registry: Registry) -> dict[str, object]:
    names = [*plugin_type.names, *registry.former_names(plugin_type)]
    then: dict[str, object] = {"properties": {"parameters": {"anyOf": [_model(plugin_type.params, ()), {"type": "null"}]}}}
    if any(info.is_required() for info in plugin_type.params.model_fields.values()):
        then["required"] = ["parameters"]
    return {"if": {"properties": {"type": {"enum": names}}, "required": ["type"]}, "then": then}


def _model(model: type[BaseModel], above: tuple[type[BaseModel], ...]) -> dict[str, object]:
    properties: dict[str, object] = {}
    required: list[str] = []
    for name, info in model.model_fields.items():
        key = info.alias or name
        schema = _field(info, (*above, model))
        properties[key] = schema
        for former in former_names(info):
            properties[former] = {**schema, "deprecated": True, "description": f"Older name of {key}."}
        if info.is_required() and not former_names(info):
            required.append(key)
    found: dict[str, object] = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**found, "required": required} if required else found


def _field(info: FieldInfo, above: tuple[type[BaseModel], ...]) -> dict[str, object]:
    schema = _type(info.annotation, info.metadata, above)
    text = " ".join((info.description or "").split())
    for mark in marks(info):
        if isinstance(mark, Ignored):
            schema["deprecated"], text = True, f"{text} No effect: {mark.reason}.".strip()
        elif isinstance(mark, Deprecated):
            schema["deprecated"], text = True, f"{text} Older form: {mark.advice.rstrip('.')}.".strip()
    if text:
        schema["description"] = text
    if not info.is_required():
        value = info.get_default(call_default_factory=True)
        if isinstance(value, (str, bool, int, float)) and _is_shown_as_written(schema):
            schema["default"] = value
    return schema


def _is_shown_as_written(schema: Mapping[str, object]) -> bool:
    """Durations and quantities are numbers once they are read."""
    return "pattern" not in schema and "anyOf" not in schema


def _type(annotation: Any, metadata: Sequence[object], above: tuple[type[BaseModel], ...]) -> dict[str, object]:
    scalar = next((schema for mark, schema in _SCALARS if mark in metadata), None)
    schema = dict(scalar) if scalar is not None else _unmarked(annotation, above)
    if "pattern" not in schema:
        for mark in metadata:
            schema.update(_constraint(mark, is_list=schema.get("type") == "array"))
    return schema


def _unmarked(annotation: Any, above: tuple[type[BaseModel], ...]) -> dict[str, object]:
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(parts[0], parts[1:], above)
    if origin in (typing.Union, types.UnionType):
        some = [_type(part, (), above) for part in parts if part is not type(None)]
        return {"anyOf": [*some, {"type": "null"}]} if len(some) > 1 or type(None) in parts else some[0]
    if origin is typing.Literal:
        return {"enum": list(parts)}
    if origin in (list, tuple, set, frozenset):
        return {"type": "array", "items": _type(parts[0], (), above)}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": _type(parts[1], (), above)}
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return {"enum": [member.value for member in annotation]}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {"type": "object"} if annotation in above else _model(annotation, above)
    return dict(_PLAIN.get(annotation, {}))


def _constraint(mark: object, *, is_list: bool) -> dict[str, object]:
    match mark:
        case annotated_types.Ge(ge=bound):
            return {"minimum": bound}
        case annotated_types.Gt(gt=bound):
            return {"exclusiveMinimum": bound}
        case annotated_types.Le(le=bound):
            return {"maximum": bound}
        case annotated_types.Lt(lt=bound):
            return {"exclusiveMaximum": bound}
        case annotated_types.MinLen(min_length=length):
            return {"minItems" if is_list else "minLength": length}
        case annotated_types.MaxLen(max_length=length):
            return {"maxItems" if is_list else "maxLength": length}
    return {}
