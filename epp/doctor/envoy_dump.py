"""A configuration of Envoy → the records that the checks look at.

Both forms are read: the answer of ``/config_dump`` and a bootstrap document. Proto JSON leaves out what has its default value,
so an absent member means the default of the API, and numbers of 64 bits may be texts.
Source: envoy: api/envoy/admin/v3/config_dump.proto, api/envoy/config/bootstrap/v3/bootstrap.proto
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from epp.doctor.documents import Json, mapping, mappings

EXT_PROC = "envoy.filters.http.ext_proc"
_EXT_PROC_TYPE = ".ext_proc.v3.ExternalProcessor"
_HCM_TYPE = ".http_connection_manager.v3.HttpConnectionManager"


@dataclass(frozen=True, slots=True)
class Use:
    """One ``ext_proc`` filter as some routes have it: its configuration with what the routes override merged in."""

    place: str
    """Such as ``listeners[inference].http_filters[envoy.filters.http.ext_proc]``."""
    listener: Json
    manager: Json
    """The HttpConnectionManager."""
    before: Sequence[Json]
    """HTTP filters that run before it."""
    filter: Json
    """The ExternalProcessor message."""
    routes: Sequence[tuple[str, Json]] = ()
    """(place, route) of the routes on which it runs."""


@dataclass(frozen=True, slots=True)
class EnvoySetup:
    """What is configured."""

    source: str
    """Address or file, for messages."""
    uses: Sequence[Use] = ()
    clusters: Mapping[str, Json] = field(default_factory=dict)


def is_envoy_config(document: object) -> bool:
    """Whether it is a dump or a bootstrap at all."""
    return isinstance(document, Mapping) and ("configs" in document or "static_resources" in document)


def read_setup(document: Json, source: str) -> EnvoySetup:
    """Read a dump or a bootstrap; what is of another shape than Envoy's is passed over."""
    listeners, clusters, routes = _resources(document)
    uses = [use for listener in listeners for use in _uses_of(listener, routes)]
    return EnvoySetup(source, uses, {str(cluster.get("name", "")): cluster for cluster in clusters})


def seconds(text: object, default: float) -> float:
    """A protobuf Duration (``0.200s``); ``default`` where it is absent."""
    if not isinstance(text, str) or not text.endswith("s"):
        return default
    try:
        return float(text[:-1])
    except ValueError:
        return default


def _resources(document: Json) -> tuple[list[Json], list[Json], dict[str, Json]]:
    """(listeners, clusters, route configurations by name)."""
    static = mapping(document.get("static_resources"))
    listeners, clusters = mappings(static.get("listeners")), mappings(static.get("clusters"))
    routes: list[Json] = []
    for config in mappings(document.get("configs")):
        for entry in mappings(config.get("static_listeners")):
            listeners.append(mapping(entry.get("listener")))
        for entry in mappings(config.get("dynamic_listeners")):
            listeners.append(mapping(mapping(entry.get("active_state")).get("listener")))
        for key in ("static_clusters", "dynamic_active_clusters"):
            clusters += [mapping(entry.get("cluster")) for entry in mappings(config.get(key))]
        for key in ("static_route_configs", "dynamic_route_configs"):
            routes += [mapping(entry.get("route_config")) for entry in mappings(config.get(key))]
    return listeners, clusters, {str(route.get("name", "")): route for route in routes}


def _uses_of(listener: Json, route_configs: Mapping[str, Json]) -> Iterator[Use]:
    chains = [*mappings(listener.get("filter_chains")), mapping(listener.get("default_filter_chain"))]
    for chain in chains:
        for network_filter in mappings(chain.get("filters")):
            manager = mapping(network_filter.get("typed_config"))
            if str(manager.get("@type", "")).endswith(_HCM_TYPE):
                yield from _uses_in(listener, manager, route_configs)


def _uses_in(listener: Json, manager: Json, route_configs: Mapping[str, Json]) -> Iterator[Use]:
    filters = mappings(manager.get("http_filters"))
    rds = mapping(manager.get("rds")).get("route_config_name")
    route_config = mapping(manager.get("route_config")) or route_configs.get(str(rds), {})
    for position, entry in enumerate(filters):
        config = mapping(entry.get("typed_config"))
        if not str(config.get("@type", "")).endswith(_EXT_PROC_TYPE):
            continue
        name = str(entry.get("name", EXT_PROC))
        place = f"listeners[{listener.get('name', '')}].http_filters[{name}]"
        base = Use(place, listener, manager, filters[:position], config)
        yield from _by_override(base, name, route_config, is_off=bool(entry.get("disabled")))


def _by_override(base: Use, name: str, route_config: Json, *, is_off: bool) -> Iterator[Use]:
    """One use for the routes that take the filter as it is, and one for each that overrides it."""
    plain: list[tuple[str, Json]] = []
    has_routes = False
    for host in mappings(route_config.get("virtual_hosts")):
        for index, route in enumerate(mappings(host.get("routes"))):
            has_routes = True
            unnamed = f"{host.get('name', '')}#{index}"
            place = f"routes[{route.get('name') or unnamed}]"
            chosen = _per_filter(route, name) or _per_filter(host, name) or _per_filter(route_config, name)
            if chosen.get("disabled") or (is_off and not chosen):
                continue
            overrides = mapping(mapping(chosen.get("config", chosen)).get("overrides"))
            if overrides:
                yield Use(
                    f"{place}.{name}",
                    base.listener,
                    base.manager,
                    base.before,
                    _merged(base.filter, overrides),
                    [(place, route)],
                )
            else:
                plain.append((place, route))
    if plain or not (has_routes or is_off):
        yield replace(base, routes=plain)


def _per_filter(owner: Json, name: str) -> Json:
    return mapping(mapping(owner.get("typed_per_filter_config")).get(name))


def _merged(config: Json, overrides: Json) -> Json:
    """Source: envoy: api/envoy/extensions/filters/http/ext_proc/v3/ext_proc.proto, ``ExtProcOverrides``."""
    merged = {key: value for key, value in overrides.items() if key not in ("metadata_options", "failure_mode_allow")}
    if "failure_mode_allow" in overrides:
        allow = overrides["failure_mode_allow"]
        merged["failure_mode_allow"] = allow.get("value", False) if isinstance(allow, Mapping) else allow
    options = dict(mapping(config.get("metadata_options"))) | dict(mapping(overrides.get("metadata_options")))
    return {**config, **merged, "metadata_options": options}
