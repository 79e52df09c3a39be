"""Bounds on label values that clients choose: how many, how long, and valid UTF-8."""

from __future__ import annotations

import re
from collections.abc import Iterable

OTHER = "other"
"""What values above a cap become."""
MAX_VALUE_BYTES = 256
_ALWAYS_SHORT = MAX_VALUE_BYTES // 4
"""No string of this many characters is longer than the limit in UTF-8."""
_SURROGATES = re.compile("[\ud800-\udfff]")


def clean(value: str) -> str:
    """``value`` as a label value: undecodable bytes replaced by U+FFFD, at most 256 bytes of UTF-8."""
    if value.isascii():
        return value[:MAX_VALUE_BYTES]
    value = _SURROGATES.sub("\ufffd", value)
    if len(value) <= _ALWAYS_SHORT:
        return value
    return value.encode()[:MAX_VALUE_BYTES].decode(errors="ignore")


class Cap:
    """Lets the first ``limit`` distinct values pass, for the life of the process; later ones become ``other``.

    Args:
        limit: 0 lets none pass.
    """

    def __init__(self, limit: int) -> None:
        self._room = limit
        self._admitted: set[str] = set()

    def admit(self, values: Iterable[str]) -> None:
        """Let these values pass always, without counting them."""
        self._admitted.update(map(clean, values))

    def fold(self, value: str) -> str:
        """``value`` cleaned, or ``other``."""
        value = clean(value)
        if value in self._admitted:
            return value
        if self._room <= 0:
            return OTHER
        self._room -= 1
        self._admitted.add(value)
        return value
