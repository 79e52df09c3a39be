"""What a plain YAML scalar means.

The rules are those of YAML 1.2's core schema, with what operators write besides: octal and underscore numbers and
``yes``/``no`` are understood and warned about; ``y``/``n``, dates and ``12:30`` are text; ``1e8`` is a number.
Source: kubernetes-sigs/yaml (goyaml.v2/resolve.go) and PyYAML (lib/yaml/resolver.py), which differ in most of these.
"""

from __future__ import annotations

import math
import re

from epp.config.yaml_nodes import Value

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEAN = {spelling: word == "true" for word in ("true", "false") for spelling in (word, word.title(), word.upper())}
_OLD_BOOLEAN = {
    spelling: word in ("yes", "on") for word in ("yes", "no", "on", "off") for spelling in (word, word.title(), word.upper())
}
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_OCTAL = re.compile(r"([-+]?)0([0-7]+)")
_BASED = re.compile(r"([-+]?)0([xob])([0-9A-Fa-f]+)")
_FLOAT = re.compile(r"(?=.*[.eE])[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"([-+]?)\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_BASE = {"x": 16, "o": 8, "b": 2}
_MOST_DIGITS = 40
"""More are out of every range; Python refuses to convert thousands."""


def resolve(text: str) -> tuple[Value, str]:
    """The value of a plain scalar.

    Returns:
        The value, and a sentence if another way to write it is better ("" if not).
    """
    if text in _NULL:
        return None, ""
    if text in _BOOLEAN:
        return _BOOLEAN[text], ""
    if text in _OLD_BOOLEAN:
        value = _OLD_BOOLEAN[text]
        return value, f"{text} is read as {str(value).lower()}; write true or false, or quote it"
    if text[0] in "+-.0123456789":
        return _number(text)
    return text, ""


def _number(text: str) -> tuple[Value, str]:
    if "_" in text and text[-1] != "_" and "__" not in text and text.lstrip("+-")[0] != "_":
        value, _ = _number(text.replace("_", ""))
        if not isinstance(value, str):
            return value, f"{text} is read as {value}; write the number without underscores"
        return text, ""
    if _INTEGER.fullmatch(text):
        return int(text[:_MOST_DIGITS]), ""
    if match := _OCTAL.fullmatch(text):
        value = int(match[1] + match[2], 8)
        return value, f"{text} is read as an octal number, {value}; write {int(text)} or 0o{match[2]}"
    if match := _BASED.fullmatch(text):
        return _based(text, match), ""
    if match := _SPECIAL.fullmatch(text):
        return (math.nan if match[1] is None else float(f"{match[1]}inf")), ""
    if _FLOAT.fullmatch(text):
        return float(text), ""
    return text, ""


def _based(text: str, match: re.Match[str]) -> Value:
    try:
        return int(match[1] + match[3], _BASE[match[2]])
    except ValueError:
        return text
