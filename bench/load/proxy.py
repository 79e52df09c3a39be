"""The Envoy of a benchmark: one listener for each picker, and one that asks nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from epp.demo.envoy import ENDPOINTS_CLUSTER, PICKER_CLUSTER, Bootstrap, cluster, listener, render

DIRECT = "direct"
"""Listener that spreads requests over the endpoints without a picker: what a picker's latency is compared with."""


def bench_bootstrap(mode: str, pickers: Mapping[str, int], endpoints: Sequence[str]) -> Bootstrap:
    """Put listeners for all pickers, and the direct one, in front of the same endpoints.

    Args:
        mode: name of a bootstrap file of ``config/envoy``.
        pickers: ext_proc port of each picker, by its name, which becomes the listener's.
        endpoints: ``host:port`` of all model servers.
    """
    first, *others = [_for_picker(mode, name, port, endpoints) for name, port in pickers.items()]
    listeners, clusters = (first["static_resources"][kind] for kind in ("listeners", "clusters"))
    for other in others:
        listeners += other["static_resources"]["listeners"]
        clusters.append(cluster(other, _picker_cluster(listeners[-1]["name"])))
    direct = _for_picker(mode, DIRECT, 0, endpoints)
    manager = _connection_manager(listener(direct, DIRECT))
    manager["http_filters"] = [item for item in manager["http_filters"] if item["name"] == "envoy.filters.http.router"]
    for route in manager["route_config"]["virtual_hosts"][0]["routes"]:
        route["route"]["cluster"] = DIRECT
    listeners.append(listener(direct, DIRECT))
    clusters.append(_round_robin(endpoints))
    return first


def _for_picker(mode: str, name: str, port: int, endpoints: Sequence[str]) -> Bootstrap:
    """The bootstrap file with its listener and its picker cluster renamed after the picker."""
    bootstrap = render(mode, epp_port=port, endpoints=endpoints, secure=False, health_check=False)
    cluster(bootstrap, PICKER_CLUSTER)["name"] = _picker_cluster(name)
    front = listener(bootstrap)
    front["name"] = name
    for item in _connection_manager(front)["http_filters"]:
        if item["name"] == "envoy.filters.http.ext_proc":
            item["typed_config"]["grpc_service"]["envoy_grpc"]["cluster_name"] = _picker_cluster(name)
    return bootstrap


def _picker_cluster(name: str) -> str:
    return f"{PICKER_CLUSTER}-{name}"


def _connection_manager(front: dict[str, Any]) -> dict[str, Any]:
    manager: dict[str, Any] = front["filter_chains"][0]["filters"][0]["typed_config"]
    return manager


def _round_robin(endpoints: Sequence[str]) -> dict[str, Any]:
    pool = cluster(render("override-host-retry", epp_port=0, endpoints=endpoints), ENDPOINTS_CLUSTER)
    del pool["load_balancing_policy"]
    return pool | {"name": DIRECT, "lb_policy": "ROUND_ROBIN"}
