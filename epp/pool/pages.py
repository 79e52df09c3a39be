"""What the pages on the metrics port show, and the pool's gauges: read-only views of the live objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple

from epp.config.loaded import Instances
from epp.datalayer.collector import Collector
from epp.datalayer.store import EndpointStore
from epp.errors import PageError
from epp.framework.interfaces import HasState
from epp.framework.types import Endpoint
from epp.telemetry.cache_truth import CacheTruth
from epp.telemetry.decision_ring import DecisionRing, KeptDecision
from epp.telemetry.pool import EndpointSample, PoolSnapshot


class FormerConfig(NamedTuple):
    """What is remembered of a configuration that is no longer in use; nothing of its plugins."""

    sha256: str
    loaded_at_s: float
    """Unix time."""
    effective: Mapping[str, Any]
    """The completed document."""


def pool(name: str, store: EndpointStore, collector: Collector, fresh_s: float, now_s: float) -> PoolSnapshot:
    """The pool's gauges."""
    snapshot = store.snapshot()
    samples = []
    for endpoint, metrics, updated_s in zip(snapshot.endpoints, snapshot.metrics, snapshot.updated_s, strict=True):
        age = now_s - updated_s if updated_s is not None else None
        samples.append(
            EndpointSample(
                name=endpoint.name,
                namespace=endpoint.namespace,
                is_fresh=age is not None and age <= fresh_s,
                waiting_queue=metrics.waiting_queue,
                running_requests=metrics.running_requests,
                kv_cache_usage=metrics.kv_cache_usage,
                scrape_age_s=age,
                scrape_failures=_failures(collector, endpoint),
            )
        )
    return PoolSnapshot(name, samples)


def endpoints(store: EndpointStore, collector: Collector, now_s: float, truth: CacheTruth | None = None) -> object:
    """``/debug/endpoints``."""
    snapshot = store.snapshot()
    return {
        "endpoints": [
            {
                "id": endpoint.id,
                "name": endpoint.name,
                "namespace": endpoint.namespace,
                "address": endpoint.host_port,
                "labels": dict(endpoint.labels),
                "waitingQueue": metrics.waiting_queue,
                "runningRequests": metrics.running_requests,
                "kvCacheUsage": metrics.kv_cache_usage,
                "activeModels": sorted(metrics.active_models),
                "waitingModels": sorted(metrics.waiting_models),
                "maxActiveModels": metrics.max_active_models,
                "cacheBlockSize": metrics.cache_block_size,
                "cacheNumBlocks": metrics.cache_num_blocks,
                "ageSeconds": round(now_s - updated_s, 3) if updated_s is not None else None,
                "attributes": dict(metrics.attributes),
                "scraping": _scraping(collector, endpoint, now_s),
                "cachedPrefixes": truth.page(endpoint.id) if truth is not None else [],
            }
            for endpoint, metrics, updated_s in zip(snapshot.endpoints, snapshot.metrics, snapshot.updated_s, strict=True)
        ]
    }


def _failures(collector: Collector, endpoint: Endpoint) -> int:
    state = collector.state(endpoint.id)
    return state.failures if state is not None else 0


def _scraping(collector: Collector, endpoint: Endpoint, now_s: float) -> object:
    state = collector.state(endpoint.id)
    if state is None:
        return None
    return {
        "source": state.source,
        "failing": state.is_failing,
        "failures": state.failures,
        "lastSuccessSecondsAgo": round(now_s - state.last_success_s, 3) if state.last_success_s is not None else None,
        "lastError": state.last_error,
        "missingValues": list(state.problems),
    }


def config(instances: Instances, loaded_at_s: float) -> dict[str, object]:
    """``/debug/config``."""
    loaded = instances.config
    return {
        "loadedAt": datetime.fromtimestamp(loaded_at_s, UTC).isoformat(),
        "source": loaded.source.name,
        "sha256": loaded.sha256,
        "effective": loaded.effective,
        "findings": [
            {"code": f.code, "severity": f.severity, "path": f.path, "message": f.message, "fix": f.fix}
            for f in (*loaded.findings, *instances.findings)
        ],
    }


def plugins(instances: Instances) -> object:
    """``/debug/plugins/state``."""
    shown: dict[str, object] = {}
    for name, plugin in instances.by_name.items():
        entry: dict[str, object] = {"name": name, "type": instances.config.plugin(name).type.type}
        if isinstance(plugin, HasState):
            entry["state"] = plugin.debug_state()
        else:
            entry["message"] = "this plugin has no state to show"
        shown[name] = entry
    return {"timestamp": datetime.now(UTC).isoformat(), "plugins": shown}


MOST_SHOWN = 100
"""Decisions on one page, if the query asks for no other number."""


def decisions(ring: DecisionRing, query: Mapping[str, str]) -> object:
    """``/debug/decisions?model=&endpoint=&status=&why=&cause=&limit=``, the newest first.

    Raises:
        PageError: a filter cannot be read, or there is none of this name.
    """
    wanted = dict(query)
    most = _number(wanted.pop("limit", str(MOST_SHOWN)), "limit")
    unknown = wanted.keys() - _FILTERS.keys()
    if unknown:
        raise PageError(f"no filter is named {min(unknown)!r}; there are {', '.join(_FILTERS)}, limit")
    matching = (kept for kept in ring.newest() if all(_FILTERS[name](kept, value) for name, value in wanted.items()))
    return {
        "kept": len(ring),
        "keptBytes": ring.size_bytes,
        "sinceStart": ring.count,
        "decisions": [kept.summary() for kept in islice(matching, most)],
    }


def _number(text: str, name: str) -> int:
    if not text.isdecimal():
        raise PageError(f"{name} must be a number, not {text!r}")
    return int(text)


def _has_status(kept: KeptDecision, value: str) -> bool:
    """``429``, or ``4xx`` for all of a class."""
    status = str(kept.summary()["status"])
    return status.startswith(value.removesuffix("xx")) if value.endswith("xx") else status == value


_FILTERS: Mapping[str, Callable[[KeptDecision, str], bool]] = {
    "cause": lambda kept, value: kept.outcome is not None and kept.outcome.cause == value,
    "endpoint": lambda kept, value: value in kept.picked,
    "model": lambda kept, value: kept.model == value,
    "status": _has_status,
    "why": lambda kept, value: kept.why.value == value,
}
