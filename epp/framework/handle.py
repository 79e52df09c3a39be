"""What a plugin factory receives besides its parameters."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import ParamSpec, Protocol, TypeVar

from epp.framework.data import DataKey

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
    refresh_interval_is_given: bool = False
    """False: the default, which is meant for metrics; what changes rarely has its own."""
    specs: Mapping[str, str] = field(default_factory=dict)
    """The five metric-name flags that were given: ``queued``, ``running``, ``kv_usage``, ``lora``, ``cache_info``."""


class Counter(Protocol):
    """A counter of the picker's own metrics."""

    def inc(self, amount: float = 1.0) -> None: ...


class Gauge(Protocol):
    """A gauge of the picker's own metrics."""

    def set(self, value: float) -> None: ...


class Histogram(Protocol):
    """A histogram of the picker's own metrics."""

    def observe(self, value: float) -> None: ...


class PluginMetrics(Protocol):
    """The picker's own metrics, as far as plugins write them; implemented by ``telemetry.metrics.Metrics``."""

    def counter(self, name: str, /, **labels: str) -> Counter:
        """The child of a counter family. Bind it once where the label values repeat.

        Args:
            name: in full, such as ``llm_d_epp_disagg_decision_total``.

        Raises:
            ValueError: no such family, or other labels than its own.
        """
        ...

    def gauge(self, name: str, /, **labels: str) -> Gauge:
        """The child of a gauge family, as for ``counter``."""
        ...

    def histogram(self, name: str, /, **labels: str) -> Histogram:
        """The child of a histogram family, as for ``counter``."""
        ...


class NoMetrics:
    """For plugins that nobody watches: while a configuration is only checked, and in tests."""

    def counter(self, name: str, /, **labels: str) -> Counter:  # noqa: ARG002 — nothing is counted
        """A counter that forgets."""
        return _NOWHERE

    def gauge(self, name: str, /, **labels: str) -> Gauge:  # noqa: ARG002
        """A gauge that forgets."""
        return _NOWHERE

    def histogram(self, name: str, /, **labels: str) -> Histogram:  # noqa: ARG002
        """A histogram that forgets."""
        return _NOWHERE


class _Nowhere:
    def inc(self, amount: float = 1.0) -> None:
        pass

    def set(self, value: float) -> None:
        pass

    def observe(self, value: float) -> None:
        pass


_NOWHERE = _Nowhere()


class Runtime(Protocol):
    """Services of the process for plugins that work in the background; implemented by the app."""

    def spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        """Run on the event loop; a failure is logged and counted under the plugin's name."""
        ...

    def offload(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        """Run in a bounded pool of threads."""
        ...


class PoolState(Protocol):
    """The whole pool as the picker's own gauges tell it, whatever candidates a request has; implemented by the app."""

    def running_requests(self) -> int:
        """Requests that were scheduled and are not over."""
        ...

    def ready_endpoints(self) -> int:
        """Endpoints with fresh metrics."""
        ...


class UnknownPluginError(KeyError):
    """A factory asked for a plugin that is not there; nothing more is said if that was reported as a finding."""


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
    metrics: PluginMetrics = field(default_factory=NoMetrics)
    runtime: Runtime | None = None
    """None while a configuration is only checked."""
    declared: Mapping[str, str] = field(default_factory=dict)
    """All plugins of the configuration: instance name → canonical type; the loader fills it."""
    pool: PoolState | None = None
    """None while a configuration is only checked."""
    writers: Mapping[str, str] = field(default_factory=dict)
    """Name of a data key → instance that writes it for this plugin; the loader fills it."""
    warnings: list[tuple[str, str]] = field(default_factory=list)
    """What ``warn`` collected: (parameter, sentence)."""

    def plugin(self, name: str) -> object:
        """The plugin instance of this name.

        Raises:
            UnknownPluginError: the name is not a reference of this plugin's parameters, or it was not resolved.
        """
        try:
            return self.plugins[name]
        except KeyError:
            raise UnknownPluginError(name) from None

    def key(self, key: DataKey[T], producer: str = "") -> DataKey[T]:
        """The key as the producer of this configuration writes it.

        Args:
            key: with its usual producer.
            producer: value of the plugin's ``…ProducerName`` parameter; "" = whoever writes it.
        """
        writer = producer or self.writers.get(key.name, key.producer)
        return key if writer == key.producer else key.by(writer)

    def writer(self, key: DataKey[T], producer: str = "") -> object | None:
        """The instance that writes ``key``; None if there is none.

        Args:
            key: with its usual producer.
            producer: as for ``key``.
        """
        return self.plugins.get(self.key(key, producer).producer)

    def warn(self, parameter: str, message: str) -> None:
        """Report a parameter value that is accepted but not used as written; shown once, at load time.

        Args:
            parameter: camelCase name.
            message: what happens instead, and why.
        """
        self.warnings.append((parameter, message))
