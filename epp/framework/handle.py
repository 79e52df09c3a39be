"""What a plugin factory receives besides its parameters."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MetricsFlags:
    """Process flags that give defaults to data sources and extractors (parameters win)."""

    scheme: str = "http"
    path: str = "/metrics"
    port: int = 0
    """0 = the endpoint's own."""
    insecure_skip_verify: bool = True
    refresh_interval_s: float = 0.05
    specs: Mapping[str, str] = field(default_factory=dict)
    """The five metric-name flags that were given: ``queued``, ``running``, ``kv_usage``, ``lora``, ``cache_info``."""


class Counter(Protocol):
    """A counter of the picker's own metrics."""

    def inc(self, amount: float = 1.0) -> None: ...


class Runtime(Protocol):
    """Services of the process for plugins that work in the background; implemented by the app."""

    def spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        """Run on the event loop; a failure is logged and counted under the plugin's name."""
        ...

    def offload(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        """Run in a bounded pool of threads."""
        ...


@dataclass(slots=True)
class PluginContext:
    """What a factory receives: its name, clocks and randomness that tests control, and other plugins.

    ``plugin(name)`` gives an instance that the parameters refer to; the loader creates it first.
    """

    name: str
    type: str
    clock: Callable[[], float] = time.monotonic
    """Seconds, monotonic."""
    rng: random.Random = field(default_factory=random.Random)
    plugins: Mapping[str, object] = field(default_factory=dict)
    profiles: tuple[str, ...] = ()
    """Names of the scheduling profiles, in document order."""
    metrics_flags: MetricsFlags = field(default_factory=MetricsFlags)
    runtime: Runtime | None = None
    """None while a configuration is only checked."""
    warnings: list[tuple[str, str]] = field(default_factory=list)
    """What ``warn`` collected: (parameter, sentence)."""

    def plugin(self, name: str) -> object:
        """The plugin instance of this name.

        Raises:
            KeyError: the name is not a reference of this plugin's parameters.
        """
        return self.plugins[name]

    def warn(self, parameter: str, message: str) -> None:
        """Report a parameter value that is accepted but not used as written; shown once, at load time.

        Args:
            parameter: camelCase name.
            message: what happens instead, and why.
        """
        self.warnings.append((parameter, message))
