"""The in-tree plugin types: the one list of them."""

from __future__ import annotations

from epp.framework.registry import PluginType, Registry
from plugins.datalayer import core_metrics, metrics_source
from plugins.scorers import queue

TYPES: tuple[PluginType, ...] = (queue.PLUGIN, core_metrics.PLUGIN, metrics_source.PLUGIN)


def register_all(registry: Registry) -> None:
    """Register every in-tree plugin type."""
    for plugin_type in TYPES:
        registry.register(plugin_type)
