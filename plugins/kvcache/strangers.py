"""Publishers that no endpoint is known of yet: an engine often speaks before discovery has found it."""

from __future__ import annotations

MAX_STRANGERS = 1_000
PATIENCE_S = 60.0
"""How long events of a stranger are kept."""
_REMEMBERED_S = 3_600.0
"""How long one that stayed a stranger is not listened to."""


class Strangers:
    """Who they are, and since when."""

    def __init__(self) -> None:
        self._since_s: dict[str, float] = {}
        self._refused_s: dict[str, float] = {}

    def admits(self, name: str, now_s: float) -> bool:
        """Whether events under this name are kept."""
        if name in self._since_s:
            return True
        if name in self._refused_s or len(self._since_s) + len(self._refused_s) >= MAX_STRANGERS:
            return False
        self._since_s[name] = now_s
        return True

    def known(self) -> list[str]:
        """All whose events are kept."""
        return list(self._since_s)

    def met(self, name: str) -> None:
        """It is an endpoint's name now."""
        self._since_s.pop(name, None)
        self._refused_s.pop(name, None)

    def expired(self, now_s: float) -> list[str]:
        """Those who are given up now."""
        for name in [name for name, since_s in self._refused_s.items() if now_s - since_s >= _REMEMBERED_S]:
            del self._refused_s[name]
        found = [name for name, since_s in self._since_s.items() if now_s - since_s >= PATIENCE_S]
        for name in found:
            del self._since_s[name]
            self._refused_s[name] = now_s
        return found
