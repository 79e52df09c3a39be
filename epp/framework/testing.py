"""Builders for tests of plugins, also for those of other packages."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from epp.framework.candidates import Candidates
from epp.framework.data import RequestData
from epp.framework.handle import Counter, Gauge, Histogram, NoMetrics, PluginContext, PluginMetrics
from epp.framework.registry import PluginType
from epp.framework.types import Api, Endpoint, EndpointMetrics, Freshness, InferenceRequest, ParsedBody


class FakeHeaders:
    """Headers from a mapping or a list of pairs."""

    def __init__(self, pairs: Mapping[str, str] | Sequence[tuple[str, str]] = ()) -> None:
        items = pairs.items() if isinstance(pairs, Mapping) else pairs
        self._pairs = [(name.lower(), value) for name, value in items]

    def get(self, name: str) -> str | None:
        """The last value of ``name``, or None."""
        return next((value for key, value in reversed(self._pairs) if key == name), None)

    def items(self) -> Iterator[tuple[str, str]]:
        """All pairs, names lower-cased."""
        return iter(self._pairs)


class FakeClock:
    """A clock that moves when told."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        """Move forward."""
        self.now_s += seconds


class RecordedEdits:
    """HeaderEdits that remember what was asked for."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.removed: set[str] = set()
        self.metadata: dict[str, dict[str, object]] = {}

    def set(self, name: str, value: str) -> None:
        self.values[name] = value
        self.removed.discard(name)

    def remove(self, name: str) -> None:
        self.values.pop(name, None)
        self.removed.add(name)

    def annotate(self, namespace: str, key: str, value: object) -> None:
        self.metadata.setdefault(namespace, {})[key] = value


class RecordedMetrics:
    """PluginMetrics that remember what was written, by name and label values in the order they were given."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, ...], float] = {}
        self.levels: dict[tuple[str, ...], float] = {}
        """The last value of each gauge."""
        self.observed: dict[tuple[str, ...], list[float]] = {}

    def counter(self, name: str, /, **labels: str) -> Counter:
        return _RecordedCounter(self.counts, (name, *labels.values()))

    def gauge(self, name: str, /, **labels: str) -> Gauge:
        return _RecordedGauge(self.levels, (name, *labels.values()))

    def histogram(self, name: str, /, **labels: str) -> Histogram:
        return _RecordedHistogram(self.observed.setdefault((name, *labels.values()), []))


class _RecordedCounter:
    def __init__(self, counts: dict[tuple[str, ...], float], key: tuple[str, ...]) -> None:
        self._counts = counts
        self._key = key

    def inc(self, amount: float = 1.0) -> None:
        self._counts[self._key] = self._counts.get(self._key, 0.0) + amount


class _RecordedGauge:
    def __init__(self, levels: dict[tuple[str, ...], float], key: tuple[str, ...]) -> None:
        self._levels = levels
        self._key = key

    def set(self, value: float) -> None:
        self._levels[self._key] = value


class _RecordedHistogram:
    def __init__(self, observed: list[float]) -> None:
        self._observed = observed

    def observe(self, value: float) -> None:
        self._observed.append(value)


def make_endpoint(name: str = "a", number: int = 1, **labels: str) -> Endpoint:
    """An endpoint ``192.168.1.<number>:8000``; keyword names become labels with ``_`` as ``-``."""
    return Endpoint.of(name, f"192.168.1.{number}", 8000, {key.replace("_", "-"): v for key, v in labels.items()})


def make_candidates(
    metrics: Sequence[EndpointMetrics] | int,
    labels: Sequence[Mapping[str, str]] | None = None,
    updated_s: Sequence[float | None] | None = None,
) -> Candidates:
    """Endpoints a, b, c, ... with these metrics (or that many without any), labels, and times at which they were read."""
    rows = [EndpointMetrics()] * metrics if isinstance(metrics, int) else list(metrics)
    names = [chr(ord("a") + i) if i < 26 else f"e{i}" for i in range(len(rows))]
    endpoints = [
        Endpoint.of(name, f"192.168.{1 + i // 250}.{1 + i % 250}", 8000, labels[i] if labels else None)
        for i, name in enumerate(names)
    ]
    return Candidates(endpoints, rows, [Freshness(at_s) for at_s in updated_s] if updated_s is not None else None)


def make_request(
    *,
    headers: Mapping[str, str] | None = None,
    model: str = "m",
    target_model: str | None = None,
    priority: int = 0,
    document: Mapping[str, object] | None = None,
    api: Api = Api.COMPLETIONS,
    request_id: str = "test-request-id",
) -> InferenceRequest:
    """A request with sensible values for all that is not given."""
    return InferenceRequest(
        request_id=request_id,
        path="/v1/completions",
        headers=FakeHeaders(headers or {}),
        body=ParsedBody(api, document or {"model": model, "prompt": "hello"}, model=model, rewritable=True),
        model=model,
        target_model=target_model if target_model is not None else model,
        priority=priority,
        fairness_id="default-flow",
        size_bytes=0,
        received_s=0.0,
        data=RequestData(),
    )


def make_context(
    name: str = "test",
    *,
    seed: int = 1,
    clock: FakeClock | None = None,
    metrics: PluginMetrics | None = None,
    profiles: Sequence[str] = (),
    declared: Mapping[str, str] | None = None,
    **plugins: object,
) -> PluginContext:
    """A context with a seeded random generator; further keyword arguments are referenced plugins (``_`` as ``-``)."""
    return PluginContext(
        name=name,
        type=name,
        clock=clock or FakeClock(),
        rng=random.Random(seed),
        plugins={key.replace("_", "-"): plugin for key, plugin in plugins.items()},
        profiles=tuple(profiles),
        metrics=metrics or NoMetrics(),
        declared=declared or {},
    )


def make_plugin(
    plugin_type: PluginType, parameters: Mapping[str, Any] | None = None, context: PluginContext | None = None
) -> Any:
    """An instance made as the loader does, from YAML parameters (camelCase).

    Raises:
        pydantic.ValidationError: wrong parameters.
        ValueError: the factory refused them, or the type is not built.
    """
    if plugin_type.factory is None:
        raise ValueError(f"plugin type {plugin_type.type} is not built")
    params = plugin_type.params.decode(dict(parameters or {}))
    return plugin_type.factory(context or make_context(plugin_type.type), params)
