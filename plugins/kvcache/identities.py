"""Whose cache a block is in: the base model's or an adapter's. It seeds the keys, as tokens alone do not tell.

One plugin serves one base model, whatever its engines and their topics call it. Where a pool has several, ``aliases`` say which
names mean which model; then models are told apart by their names.
"""

from __future__ import annotations

from collections.abc import Mapping

BASE = ""
MAX_ADAPTERS = 10_000
"""Names of adapters that are remembered; more are an attack."""


class Identities:
    """Names identities.

    Args:
        aliases: name of a model in a topic or a request → the model; empty = there is one base model only.
    """

    def __init__(self, aliases: Mapping[str, str] | None = None) -> None:
        self._aliases = aliases or {}
        self._adapters: dict[str, None] = {}

    @property
    def adapters(self) -> int:
        """Adapters that were seen."""
        return len(self._adapters)

    def scope(self, topic_model: str) -> str:
        """Whose engine keys a publisher uses: engines of different base models give the same to the same tokens."""
        return self._aliases.get(topic_model, topic_model)

    def of_event(self, topic_model: str, lora_name: str) -> str:
        """Of an event's blocks."""
        return lora_name or (self.scope(topic_model) if self._aliases else BASE)

    def of_request(self, target_model: str, *, is_adapter: bool) -> str:
        """Of a prompt's blocks.

        Args:
            target_model: name that is sent to the model server.
            is_adapter: that is known otherwise, such as from metrics.
        """
        if is_adapter or target_model in self._adapters:
            return target_model
        return self.scope(target_model) if self._aliases else BASE

    def saw_adapter(self, name: str) -> None:
        """An engine has an adapter of this name."""
        if name not in self._adapters and len(self._adapters) < MAX_ADAPTERS:
            self._adapters[name] = None
