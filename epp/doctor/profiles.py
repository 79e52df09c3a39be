"""Findings about scheduling profiles whose filters let no endpoint of the pool through.

Only filters that need no request are tried (``PluginType.per_snapshot``: labels, roles, attributes), on the endpoints as the
picker's page has them. What the others would do depends on the request.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

from epp.config.instantiate import instantiate
from epp.config.load import load_config
from epp.config.loaded import ConfigSource, Instances, LoadFlags
from epp.doctor.catalogue import finding
from epp.doctor.documents import mapping, mappings
from epp.errors import ConfigError, Finding
from epp.extproc.response import NoHeaders
from epp.framework.candidates import Candidates
from epp.framework.data import RequestData
from epp.framework.interfaces import Filter, Role
from epp.framework.registry import Registry
from epp.framework.types import RAW_BODY, Endpoint, EndpointMetrics, InferenceRequest
from epp.process.plugin_types import build_registry

_NOBODY = InferenceRequest(
    request_id="",
    path="",
    headers=NoHeaders(),
    body=RAW_BODY,
    model="",
    target_model="",
    priority=0,
    fairness_id="",
    size_bytes=0,
    received_s=0.0,
    data=RequestData(),
)
"""Filters that need no request get this one."""


def check_profiles(url: str, effective: Mapping[str, Any], pool: Sequence[tuple[Endpoint, Mapping[str, Any]]]) -> list[Finding]:
    """All findings.

    Args:
        url: of the picker.
        effective: the completed document of ``/debug/config``.
        pool: the endpoints, each with its entry of ``/debug/endpoints``.
    """
    if not pool:
        return []
    registry, _ = build_registry()
    names = _filters(effective, registry)
    try:
        instances = _instances(effective, names, registry)
    except ConfigError as error:
        first = error.findings[0]
        message = f"the filters of the profiles were not tried, as they cannot be made here: {first.code}: {first.message}"
        return [finding("DOC002", url, first.path, message, "run `epp doctor` where the picker runs")]
    everyone = Candidates([endpoint for endpoint, _ in pool], [_metrics(entry) for _, entry in pool])
    found: list[Finding] = []
    for profile in mappings(effective.get("schedulingProfiles")):
        refs = [str(entry.get("pluginRef")) for entry in mappings(profile.get("plugins"))]
        found += _tried(url, str(profile.get("name")), [name for name in refs if name in names], instances, everyone)
    return found


def _tried(url: str, profile: str, filters: Sequence[str], instances: Instances, everyone: Candidates) -> Iterator[Finding]:
    left = everyone
    for name in filters:
        before = left
        try:
            left = cast("Filter", instances.by_name[name]).filter(_NOBODY, before)
        except Exception as error:  # noqa: BLE001 — whatever a plugin raises is what was looked for
            message = f"the filter {name} raised {type(error).__name__}: {error}, so its profile fails every request"
            fix = "repair the plugin, or take it out of the profile"
            yield finding("POL009", url, f"schedulingProfiles[{profile}]", message, fix, value=name)
            return
        if not left:
            message = f"the filter {name} leaves none of {len(before)} endpoints, so its requests find no server"
            fix = "compare its parameters with the labels on /debug/endpoints"
            yield finding("POL008", url, f"schedulingProfiles[{profile}]", message, fix, value=name)
            return


def _filters(effective: Mapping[str, Any], registry: Registry) -> set[str]:
    """Names of the plugins that filter without a request."""
    names = set()
    for plugin in mappings(effective.get("plugins")):
        known = registry.get(str(plugin.get("type")))
        if known is not None and known.is_built and known.per_snapshot and Role.FILTER in known.roles:
            names.add(str(plugin.get("name")))
    return names


def _instances(effective: Mapping[str, Any], names: set[str], registry: Registry) -> Instances:
    """The filters alone, so that nothing is needed that only the picker has.

    Raises:
        ConfigError: one cannot be made.
    """
    document = {
        "apiVersion": effective.get("apiVersion"),
        "kind": effective.get("kind"),
        "plugins": [plugin for plugin in mappings(effective.get("plugins")) if plugin.get("name") in names],
        "schedulingProfiles": [{"name": "filters", "plugins": [{"pluginRef": name} for name in sorted(names)]}],
    }
    return instantiate(load_config(ConfigSource.from_text(json.dumps(document), "filters"), registry, LoadFlags()))


def _metrics(entry: Mapping[str, Any]) -> EndpointMetrics:
    """What filters without a request read beside labels."""
    return EndpointMetrics(
        waiting_queue=entry.get("waitingQueue"),
        running_requests=entry.get("runningRequests"),
        kv_cache_usage=entry.get("kvCacheUsage"),
        attributes=MappingProxyType(dict(mapping(entry.get("attributes")))),
    )
