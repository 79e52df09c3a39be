"""What JSON values may be, as tables; and of a value that is wrong, where it is and what it may be.

A shape is looked up by the JSON type of a value, so that a valid document costs one look-up for each member that is read;
members that no table names may be anything. ``Shape.problem`` returns what is wrong behind the place of its value, such as
``[2].role must be a string, not a number``, or "".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from plugins.parsers.json_body import MAX_TOKEN_ID, all_token_ids, json_type

Check = Callable[[Any], str]
"""Looks into a value of one JSON type; returns the problem, or ""."""


class Shape:
    """What a value may be.

    Args:
        what: the same in words, with its article: ``a string or a list of parts``.
        checks: the types that it may have, and what is checked in a value of each.
    """

    __slots__ = ("checks", "refuse", "what")

    def __init__(self, what: str, checks: Mapping[type, Check | None]) -> None:
        self.what = what
        self.checks = checks
        self.refuse: Check = self._refuse
        """The check of values of all other types; a bound method that is made once."""

    def problem(self, value: object) -> str:
        """What is wrong with ``value``, "" if nothing is."""
        check = self.checks.get(type(value), self.refuse)
        return "" if check is None else check(value)

    def _refuse(self, value: object) -> str:
        return f" must be {self.what}, not {json_type(value)}"


def either(what: str, *shapes: Shape) -> Shape:
    """One of several shapes, which differ in their JSON types."""
    return Shape(what, {kind: check for shape in shapes for kind, check in shape.checks.items()})


def members(shapes: Mapping[str, Shape]) -> Shape:
    """An object; each named member is missing, null, or of its shape."""
    checks_of = {name: {type(None): None, **shape.checks} for name, shape in shapes.items()}.get
    """As ``problem`` of each, without a call for each member."""

    def look(value: Mapping[str, object]) -> str:
        for name, member in value.items():
            checks = checks_of(name)
            if checks is None:
                continue
            check = checks.get(type(member), _refused)
            if check is not None and (problem := shapes[name].refuse(member) if check is _refused else check(member)):
                return f".{name}{problem}"
        return ""

    return Shape("an object", {dict: look})


def list_of(item: Shape, what: str) -> Shape:
    """A list whose items all have one shape."""
    checks, refuse = item.checks, item.refuse

    def look(values: list[object]) -> str:
        for index, value in enumerate(values):
            check = checks.get(type(value), refuse)
            if check is not None and (problem := check(value)):
                return f"[{index}]{problem}"
        return ""

    return Shape(what, {list: look})


def _refused(value: object) -> str:
    """Stands for a type that is not among those of a shape."""
    raise AssertionError(value)


TEXT = Shape("a string", {str: None})
OBJECT = Shape("an object", {dict: None})
LIST = Shape("a list", {list: None})
_FLAG_WORDS = frozenset({"true", "false", "1", "0", "yes", "no", "on", "off", "t", "f", "y", "n"})


def _flag_number(value: float) -> str:
    return "" if value in (0, 1) else " must be true or false, not another number"


def _flag_word(value: str) -> str:
    return "" if value.lower() in _FLAG_WORDS else " must be true or false, not another string"


FLAG = Shape("true or false", {bool: None, int: _flag_number, float: _flag_number, str: _flag_word})
"""A boolean, or what engines read as one. Source: pydantic, conversion table of its lax mode."""


def _whole_number(value: float) -> str:
    return "" if value.is_integer() else " must be a whole number"


def _digits(value: str) -> str:
    return "" if value.strip().removeprefix("-").isdecimal() else " must be a whole number, not another string"


INTEGER = Shape("a whole number", {int: None, float: _whole_number, str: _digits})
"""An integer, or what engines read as one. Source: as for ``FLAG``."""


def _token_ids(values: list[object]) -> str:
    if not values:
        return " must not be empty"
    if all_token_ids(values):
        return ""
    index = next(index for index, value in enumerate(values) if not all_token_ids([value]))
    return f"[{index}] must be a token id, a whole number from 0 to {MAX_TOKEN_ID}"


TOKEN_IDS = Shape("a list of token ids", {list: _token_ids})


def _prompts(values: list[object]) -> str:
    """Texts, token ids, or lists of token ids; the first item says which."""
    if not values or (type(values[0]) is str and set(map(type, values)) == {str}) or all_token_ids(values):
        return ""
    if type(values[0]) is list:
        return _each(values, TOKEN_IDS)
    if type(values[0]) is str:
        return _each(values, TEXT)
    if type(values[0]) in (int, float):
        return _token_ids(values)
    return f"[0] must be a string, a token id or a list of token ids, not {json_type(values[0])}"


def _each(values: list[object], shape: Shape) -> str:
    checks, refuse = shape.checks, shape.refuse
    for index, value in enumerate(values):
        check = checks.get(type(value), refuse)
        if check is not None and (problem := check(value)):
            return f"[{index}]{problem}"
    return ""


PROMPTS = Shape(
    "a string, a list of strings, a list of token ids or a list of such lists",
    {str: None, list: _prompts},
)
"""One prompt or several."""
