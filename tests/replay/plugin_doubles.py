"""Plugins that write down when they are called, and clocks that they are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import plugins
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Role
from epp.framework.registry import Registry
from tests.config.doubles import plugin_type

Call = tuple[str, float]


class Diary:
    """A plugin with every hook; writes (what, when)."""

    def __init__(self, context: PluginContext, calls: list[Call]) -> None:
        self._clock: Callable[[], float] = context.clock
        self._calls = calls
        self.completions: list[Any] = []

    def _note(self, what: str) -> None:
        self._calls.append((what, self._clock()))

    def produce(self, request: Any, candidates: Any) -> None:
        self._note("produce")

    def admit(self, request: Any, candidates: Any) -> None:
        self._note("admit")

    def pre_request(self, request: Any, result: Any, edits: Any) -> None:
        self._note("pre_request")

    def response_received(self, request: Any, result: Any, response: Any, edits: Any) -> None:
        self._note(f"received {response.status}")

    def response_streaming(self, request: Any, result: Any, chunk: Any) -> None:
        self._note("streaming")

    def response_complete(self, request: Any, result: Any, completion: Any) -> None:
        self._note("complete")
        self._calls.append((str(completion.usage), completion.ttft_s or 0.0))


def registry_with(calls: list[Call], roles: Sequence[Role], **more: Any) -> Registry:
    """All types, and ``diary``, which writes into ``calls``."""
    found = Registry()
    plugins.register_all(found)
    found.register(plugin_type("diary", *roles, factory=lambda context, params: Diary(context, calls), **more))
    return found
