"""sheddable-eviction-filter, priority-then-time-eviction-order-policy: which running requests are ended first."""

from __future__ import annotations

from epp.framework.interfaces import Role
from epp.framework.registry import PluginType

SHEDDABLE = PluginType(
    type="sheddable-eviction-filter",
    roles=frozenset({Role.EVICTION_FILTER}),
    summary="Requests of negative priority may be ended.",
    experimental=True,
    wait="eviction",
)

PRIORITY_THEN_TIME = PluginType(
    type="priority-then-time-eviction-order-policy",
    roles=frozenset({Role.EVICTION_ORDER}),
    summary="The lowest priority is ended first, of equals the newest.",
    experimental=True,
    wait="eviction",
)

PLUGINS = (SHEDDABLE, PRIORITY_THEN_TIME)
