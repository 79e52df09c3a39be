"""Findings about the pools file of a picker that serves several pools: whether the one that is looked at is among them."""

from __future__ import annotations

from collections.abc import Iterator

from epp.config.loaded import ConfigSource
from epp.doctor.catalogue import finding
from epp.doctor.cluster.view import ClusterView, some
from epp.doctor.cluster.workload import Workload
from epp.doctor.documents import Json, mapping
from epp.errors import ConfigError, Finding
from epp.pools.load import PoolEntry, load_pools


def pools_of(view: ClusterView, workload: Workload) -> tuple[PoolEntry, ...]:
    """The pools of the file; none if there is no file, or it is not known, or cannot be used."""
    text = _text(workload, _config_map(view))
    try:
        return load_pools(ConfigSource.from_text(text)).pools if text else ()
    except ConfigError:
        return ()


def entry_of(view: ClusterView, workload: Workload) -> PoolEntry | None:
    """The entry of the pool that is looked at."""
    for entry in pools_of(view, workload):
        if (entry.name, _namespace(view, workload, entry), entry.group) == (view.name, view.namespace, view.group):
            return entry
    return None


def check_pools_file(view: ClusterView, workload: Workload) -> Iterator[Finding]:
    """All findings; none where the file comes from elsewhere than a ConfigMap, or may not be read."""
    path = workload.flag("pools-file")
    name = workload.config_map(path)
    if not name or not (view.config_map.is_known or view.config_map.is_absent):
        return
    place, key = f"ConfigMap {name}", workload.key_of(path)
    text = _text(workload, _config_map(view))
    if not text:
        lacking = "it does not exist" if view.config_map.is_absent else f"it has no {key}"
        message = f"--pools-file {path} comes from it, and {lacking}, so the picker does not start"
        yield finding("KUB082", view.source, place, message, "create it with the pools file", value=key)
        return
    try:
        load_pools(ConfigSource.from_text(text, key))
    except ConfigError as error:
        wrong = error.findings[0]
        message = f"its {key} cannot be used, so no picker starts by it: {wrong.path}: {wrong.message}"
        yield finding("KUB082", view.source, place, message, wrong.fix, value=key)
        return
    yield from _serves(view, workload, place)


def _serves(view: ClusterView, workload: Workload, place: str) -> Iterator[Finding]:
    entry = entry_of(view, workload)
    shown = f"{view.namespace}/{view.name} of {view.group}"
    if entry is None:
        served = [f"{_namespace(view, workload, each)}/{each.name}" for each in pools_of(view, workload)]
        message = (
            f"it is behind this pool's Service, and its pools file ({place}) has no InferencePool {shown}, but {some(served)}"
        )
        fix = f"add the pool {view.name} to the file, or correct the pool's endpointPickerRef"
        yield finding("KUB079", view.source, workload.title, message, fix, value=shown)
    elif entry.endpoints or entry.endpoint_selector:
        key = "endpoints" if entry.endpoints else "endpointSelector"
        message = f"its pool {entry.name} has {key} in its pools file ({place}), so it does not follow InferencePool {shown}"
        yield finding("KUB079", view.source, workload.title, message, f"remove {key} there, or the InferencePool", value=key)


def _namespace(view: ClusterView, workload: Workload, entry: PoolEntry) -> str:
    return entry.namespace or workload.variable("NAMESPACE") or view.namespace


def _config_map(view: ClusterView) -> Json:
    return view.config_map.items[0] if view.config_map.items else {}


def _text(workload: Workload, config_map: Json) -> str:
    return str(mapping(config_map.get("data")).get(workload.key_of(workload.flag("pools-file"))) or "")
