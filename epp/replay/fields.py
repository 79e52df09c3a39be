"""Reading the members of a trace's lines, with errors that name the member."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Line = Mapping[str, Any]

MAX_TOKENS = 100_000_000
"""Of one prompt or answer: no engine takes more, and a slip of the pen must not fill the memory."""


class FieldError(ValueError):
    """A line that cannot be used; the text says what and why."""


def tokens(line: Line, name: str, least: int) -> int:
    """A number of tokens.

    Raises:
        FieldError: it is missing, no whole number, or out of bounds.
    """
    value = required(line, name)
    if type(value) is not int or not least <= value <= MAX_TOKENS:
        raise FieldError(f"{name} must be a whole number from {least} to {MAX_TOKENS}, is {shown(value)}")
    return value


def seconds(line: Line, name: str, unit_s: float = 1.0) -> float:
    """A moment.

    Raises:
        FieldError: it is missing or no number.
    """
    value = required(line, name)
    if type(value) not in (int, float) or not abs(value) < 1e15:
        raise FieldError(f"{name} must be a number, is {shown(value)}")
    return float(value) * unit_s


def required(line: Line, name: str) -> Any:
    """A member that has to be there.

    Raises:
        FieldError: it is missing.
    """
    try:
        return line[name]
    except KeyError:
        raise FieldError(f"{name} is missing") from None


def shown(value: object) -> str:
    """A value for a message, not too long."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
