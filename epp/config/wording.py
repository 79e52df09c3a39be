"""Words for findings: values as YAML shows them, the nearest legal name, lists of names."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable

MASK = "***"
_SECRET = re.compile(
    r"password|passwd|secret|credential|^(?:proxy-)?authorization$|^cookie$|(?:token|api[-_]?key)$", re.IGNORECASE
)
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?")
_MOST_NAMES = 12
"""A longer list of legal names hides more than it tells."""
_LONGEST_VALUE = 80


def is_secret(key: str) -> bool:
    """Whether values under this key are never shown."""
    return _SECRET.search(key) is not None


def is_secret_path(path: str) -> bool:
    """Whether the last key of a YAML path is that of a secret."""
    return is_secret(path.rsplit(".", 1)[-1])


def show(value: object) -> str:
    """A value as YAML writes it, cut if it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def kind_of(value: object) -> str:
    """What YAML calls the kind of a value, with an article."""
    if value is None:
        return "null"
    names: list[tuple[type, str]] = [
        (bool, "a boolean"), (int, "an integer"), (float, "a number"), (str, "a string"), (dict, "a mapping"), (list, "a list"),
    ]  # fmt: skip
    return next((name for kind, name in names if isinstance(value, kind)), type(value).__name__)


def describe(value: object) -> str:
    """Kind and value: ``the string "two"``, ``a mapping``."""
    if value == MASK:
        return MASK
    kind = kind_of(value)
    if value is None or isinstance(value, (dict, list)):
        return kind
    return f"the {kind.split(' ', 1)[1]} {show(value)}"


def fix_kind(expected: str, value: object) -> str:
    """What to do about a value of another kind than expected."""
    if expected == "a string" and isinstance(value, (int, float)):
        return f'quote it: "{show(value)}"'
    looks_right = isinstance(value, str) and (
        _NUMBER.fullmatch(value)
        if expected in ("a number", "an integer")
        else value in ("true", "false") and "boolean" in expected
    )
    return f"remove the quotes: {value}" if looks_right else f"write {expected}"


def join(names: Iterable[str]) -> str:
    """``"a", "b" and "c"``."""
    quoted = [f'"{name}"' for name in names]
    if len(quoted) < 2:
        return "".join(quoted)
    return f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def _plain(name: str) -> str:
    return name.casefold().replace("-", "").replace("_", "")


def nearest(name: str, legal: Iterable[str]) -> str:
    """The legal name that ``name`` most likely means, or ""."""
    by_plain: dict[str, str] = {}
    for candidate in sorted(legal):
        by_plain.setdefault(_plain(candidate), candidate)
    found = difflib.get_close_matches(_plain(name), by_plain, n=1, cutoff=0.6)
    return by_plain[found[0]] if found else ""


def with_page(fix: str, type_name: str) -> str:
    """The fix, and where all parameters of the plugin type are described."""
    page = f"`epp plugins {type_name}`"
    return fix if page in fix else f"{fix} (see {page})"


def suggest(name: str, legal: Iterable[str], otherwise: str = "") -> str:
    """A fix for an unknown name: the nearest legal one, else all of them if they are few.

    Args:
        name: as written.
        legal: the names that are possible there.
        otherwise: the fix if there are too many, or none.
    """
    names = sorted(set(legal))
    close = nearest(name, names)
    if close:
        return f'did you mean "{close}"?'
    if names and len(names) <= _MOST_NAMES:
        return f"use one of {', '.join(names)}" if len(names) > 1 else f"use {names[0]}"
    return otherwise


def step(path: str, key: str | int) -> str:
    """A YAML path, one step further."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    if re.fullmatch(r"[\w$-]+", key) is None:
        return f'{path}["{key}"]'
    return f"{path}.{key}" if path else key
