"""sheddable-eviction-filter, priority-then-time-eviction-order-policy: which running requests are ended first."""

from __future__ import annotations

from epp.framework.flow_control import EvictionFilter, EvictionOrderPolicy, RunningRequest, SortKey
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Role
from epp.framework.params import NoParams
from epp.framework.registry import PluginType


class SheddableEvictionFilter:
    """Running requests of negative priority may be ended.

    Whatever a filter lets through, a request is only ended for waiting ones of a higher priority than its own.

    Parameters: none.
    Formula: priority < 0.
    Source: llm-d-router: pkg/epp/flowcontrol/eviction
    """

    def may_evict(self, running: RunningRequest) -> bool:
        """Whether its priority is negative."""
        return running.request.priority < 0


class PriorityThenTimeEvictionOrder:
    """The lowest priority is ended first; of one priority the request that has run for the shortest time, as the least work is
    lost with it.

    Parameters: none.
    Formula: ascending priority, then descending time of dispatch.
    Source: llm-d-router: pkg/epp/flowcontrol/eviction
    """

    def sort_key(self, running: RunningRequest) -> SortKey:
        """Priority, then the negative time of dispatch."""
        return float(running.request.priority), -running.dispatched_s


def _sheddable(context: PluginContext, params: NoParams) -> EvictionFilter:
    return SheddableEvictionFilter()


def _priority_then_time(context: PluginContext, params: NoParams) -> EvictionOrderPolicy:
    return PriorityThenTimeEvictionOrder()


SHEDDABLE = PluginType(
    type="sheddable-eviction-filter",
    roles=frozenset({Role.EVICTION_FILTER}),
    summary="Requests of negative priority may be ended.",
    experimental=True,
    factory=_sheddable,
)

PRIORITY_THEN_TIME = PluginType(
    type="priority-then-time-eviction-order-policy",
    roles=frozenset({Role.EVICTION_ORDER}),
    summary="The lowest priority is ended first, of equals the newest.",
    experimental=True,
    factory=_priority_then_time,
)

PLUGINS = (SHEDDABLE, PRIORITY_THEN_TIME)
