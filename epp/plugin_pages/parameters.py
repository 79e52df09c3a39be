"""The parameters of a plugin type as a table: what a reader of its model would see, in YAML's words."""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from epp.framework.params import (
    Deprecated,
    DurationS,
    Former,
    GoDurationS,
    Ignored,
    Params,
    PluginReference,
    ProfileReference,
    Quantity,
    format_duration,
)

REQUIRED = "required"
_DURATION = "duration"
_WORDS = {str: "string", int: "integer", float: "number", bool: "boolean", dict: "mapping", list: "list"}
_SCALARS = [
    (typing.get_args(DurationS)[1], _DURATION),
    (typing.get_args(GoDurationS)[1], _DURATION),
    (typing.get_args(Quantity)[1], "quantity"),
]
"""What marks a scalar type of configuration documents → its name."""
_UNITS = {"_ms": "ms", "_bytes": "bytes", "_tokens": "tokens", "_blocks": "blocks", "_requests": "requests"}
"""End of a field's name → unit."""
_PLAIN = re.compile(r"[A-Za-z][\w-]*")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One row of the table."""

    name: str
    """With its path: ``storeConfig.ttl``, ``conditions[].metric``."""
    type: str
    unit: str
    """"" if the type tells, or there is none."""
    default: str
    """``required``, or the default as YAML; "" for an object whose fields have defaults of their own."""
    constraints: str
    description: str


def parameters(model: type[Params]) -> list[Parameter]:
    """The parameters of a model, fields of nested objects behind them."""
    return list(_rows(model, "", ()))


def _rows(model: type[BaseModel], path: str, above: tuple[type[BaseModel], ...]) -> Iterator[Parameter]:
    for name, info in model.model_fields.items():
        key = path + (info.alias or name)
        inner, suffix = _object_in(info.annotation)
        yield Parameter(
            key, _type(info), _unit(name, info), _default(info, inner), "; ".join(_constraints(info)), _description(info)
        )
        if inner is not None and inner not in above:
            yield from _rows(inner, f"{key}{suffix}.", (*above, model))


def _object_in(annotation: object) -> tuple[type[BaseModel] | None, str]:
    """The model of a nested object, and how a path enters it: ``[]`` for the items of a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, ""
    origin = typing.get_origin(annotation)
    for part in typing.get_args(annotation):
        found, suffix = _object_in(part)
        if found is not None:
            return found, "[]" + suffix if origin in (list, tuple) else suffix
    return None, ""


def _type(info: FieldInfo) -> str:
    if any(isinstance(mark, PluginReference) for mark in marks(info)):
        return "name of a plugin"
    if any(isinstance(mark, ProfileReference) for mark in marks(info)):
        return "name of a profile"
    return _word(info.annotation, info.metadata)


def _word(annotation: Any, metadata: Sequence[object] = ()) -> str:
    """The type in YAML's words."""
    scalar = next((word for mark, word in _SCALARS if mark in metadata), "")
    if scalar:
        return scalar
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _word(parts[0], parts[1:])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_word(part) for part in parts if part is not type(None))
    if origin is typing.Literal:
        return "one of " + ", ".join(_yaml(value) for value in parts)
    if origin in (list, tuple, set, frozenset):
        return f"list of {_plural(_word(parts[0]))}"
    if origin in (dict, Mapping):
        return f"mapping of {_plural(_word(parts[0]))} to {_plural(_word(parts[1]))}"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return "one of " + ", ".join(_yaml(member.value) for member in annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "object"
    return _WORDS.get(annotation, "any value")


def _plural(word: str) -> str:
    return word if " " in word else f"{word}s"


def _unit(name: str, info: FieldInfo) -> str:
    if _word(info.annotation, info.metadata) not in ("integer", "number", "quantity"):
        return ""
    return next((unit for end, unit in _UNITS.items() if name.endswith(end)), "")


def _default(info: FieldInfo, inner: type[BaseModel] | None) -> str:
    if info.is_required():
        return REQUIRED
    value = info.get_default(call_default_factory=True)
    if value is PydanticUndefined or isinstance(value, BaseModel):
        return ""
    if value is None:
        return "absent"
    if _word(info.annotation, info.metadata) == _DURATION:
        return format_duration(value)
    return _yaml(value) if inner is None or value in ([], ()) else _yaml([item.model_dump(by_alias=True) for item in value])


def _yaml(value: object) -> str:
    """A value as it can be written in a document."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    if isinstance(value, (set, frozenset)):
        value = sorted(value)
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value not in ("true", "false", "null", "yes", "no", "on", "off"):
        return value
    return json.dumps(value, ensure_ascii=False)


def _constraints(info: FieldInfo) -> Iterator[str]:
    is_duration = _word(info.annotation, info.metadata) == _DURATION
    counts_items = typing.get_origin(info.annotation) in (list, tuple)
    for mark in info.metadata:
        match mark:
            case annotated_types.Ge(ge=bound):
                yield f"at least {_bound(bound, is_duration)}"
            case annotated_types.Gt(gt=bound):
                yield f"more than {_bound(bound, is_duration)}"
            case annotated_types.Le(le=bound):
                yield f"at most {_bound(bound, is_duration)}"
            case annotated_types.Lt(lt=bound):
                yield f"less than {_bound(bound, is_duration)}"
            case annotated_types.MinLen(min_length=1):
                yield "not empty"
            case annotated_types.MinLen(min_length=length):
                yield f"at least {length} {'entries' if counts_items else 'characters'}"
            case annotated_types.MaxLen(max_length=length):
                yield f"at most {length} {'entries' if counts_items else 'characters'}"
            case _:
                pass


def _bound(value: Any, is_duration: bool) -> str:
    return format_duration(value) if is_duration else _yaml(value)


def _description(info: FieldInfo) -> str:
    text = " ".join((info.description or "").split())
    for mark in marks(info):
        if isinstance(mark, Ignored):
            text = f"{text} No effect: {mark.reason}."
        elif isinstance(mark, Deprecated):
            text = f"{text} Older form: {mark.advice.rstrip('.')}."
        elif isinstance(mark, Former):
            text = f"{text} Older name: `{mark.name}`."
    return text


def marks(info: FieldInfo) -> Iterator[object]:
    """Annotations of a field, also those within ``X | None``."""
    yield from info.metadata
    for part in typing.get_args(info.annotation):
        yield from getattr(part, "__metadata__", ())
