"""Syntax of Kubernetes label selectors, as written on command lines and in a pools file."""

from __future__ import annotations

import re

_KEY = r"(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?"
_REQUIREMENT = re.compile(
    rf"\s*(?:!\s*{_KEY}|{_KEY}\s*(?:==|=|!=)\s*{_VALUE}|{_KEY}\s*[<>]\s*-?[0-9]+"
    rf"|{_KEY}\s+(?:in|notin)\s*\(\s*{_VALUE}(?:\s*,\s*{_VALUE})*\s*\)|{_KEY})\s*"
)
_SPLIT = re.compile(r",(?![^(]*\))")


def check_selector(text: str) -> list[str]:
    """What is wrong with a label selector; nothing if it can be used."""
    return [
        f"{part.strip()!r} is not a label requirement; use key=value, key!=value, key in (a,b), key notin (a,b), key or !key"
        for part in _SPLIT.split(text)
        if not _REQUIREMENT.fullmatch(part)
    ]
