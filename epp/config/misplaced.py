"""Where a key belongs that stands in the wrong mapping: the right word at the wrong level is a frequent mistake."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from epp.config.schema import Kind, Section, keys_of


def home_of_field(root: type[Section], name: str) -> str:
    """The path below ``root`` that ends in this key, such as ``dataLayer.discovery``; "" if there is none, or several.

    The same mapping under two keys, as ``data`` and ``dataLayer``, is one place: the key that comes last.
    """
    found = [(path, record) for path, record in _field_paths(root, "") if _last(path) == name]
    return found[-1][0] if len({record for _, record in found}) == 1 else ""


def home_of_parameter(root: type[BaseModel], name: str) -> str:
    """The only path in a model of parameters that ends in this key; "" if there is none, or several."""
    found = [path for path in _parameter_paths(root, "", ()) if _last(path) == name]
    return found[0] if len(found) == 1 else ""


def fields_of(model: type[BaseModel] | None) -> Iterator[tuple[str, FieldInfo]]:
    """YAML key and field of each parameter."""
    if model is not None:
        for name, info in model.model_fields.items():
            yield info.alias or name, info


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models within an annotation, such as that of ``list[X] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from models_in(part)


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _field_paths(record: type[Section], above: str) -> Iterator[tuple[str, type[Section]]]:
    for name, (_, key) in keys_of(record).items():
        yield above + name, record
        if key.record is not None:
            yield from _field_paths(key.record, f"{above}{name}{'[]' if key.kind is Kind.SECTIONS else ''}.")


def _parameter_paths(model: type[BaseModel], above: str, outer: tuple[type[BaseModel], ...]) -> Iterator[str]:
    for name, info in fields_of(model):
        yield above + name
        for inner in models_in(info.annotation):
            if inner not in outer:
                is_list = typing.get_origin(info.annotation) in (list, tuple)
                yield from _parameter_paths(inner, f"{above}{name}{'[]' if is_list else ''}.", (*outer, model))
