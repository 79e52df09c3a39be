"""global-strict-fairness-policy and round-robin-fairness-policy: which flow of a priority band is next."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort

from epp.framework.flow_control import FairnessPolicy, Turns, WaitingFlow
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Role
from epp.framework.params import NoParams
from epp.framework.registry import PluginType


class GlobalStrictFairness:
    """Flows do not matter. The request that is first by the band's ordering policy is next, whoever sent it.

    A tenant that sends much gets much, and may keep others waiting; use `round-robin-fairness-policy` where that matters.

    Parameters: none.
    Formula: all flows of a band are one queue.
    Source: llm-d-router: pkg/epp/framework/plugins/flowcontrol/fairness/globalstrict
    """

    by_flow = False

    def new_turns(self) -> Turns:
        """Never asked for: there is one flow, so to say."""
        return RoundRobinTurns()


class RoundRobinFairness:
    """One request of each flow, one flow after the other.

    Shares are counted in requests, not in tokens or bytes. The fairness id comes from the client unless the gateway sets it:
    one that invents ids gets a turn for each.

    Parameters: none.
    Formula: flows with waiting requests in ascending order of their ids, from the one behind the last that was served, around
        and around. The last id is remembered also when nothing waits any more, so that small ids have no advantage.
    Source: llm-d-router: pkg/epp/framework/plugins/flowcontrol/fairness/roundrobin
    """

    by_flow = True

    def new_turns(self) -> Turns:
        """Of one band."""
        return RoundRobinTurns()


class RoundRobinTurns:
    """The flows of one band in the order of their ids."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._flows: dict[str, WaitingFlow] = {}
        self._last = ""

    def begin(self, flow: WaitingFlow) -> None:
        """As ``Turns.begin``."""
        self._flows[flow.id] = flow
        insort(self._ids, flow.id)

    def cease(self, flow: WaitingFlow) -> None:
        """As ``Turns.cease``."""
        del self._flows[flow.id]
        del self._ids[bisect_left(self._ids, flow.id)]

    def next(self, now_s: float) -> WaitingFlow | None:
        """The flow behind the last one."""
        ids = self._ids
        if not ids:
            return None
        position = bisect_right(ids, self._last)
        self._last = ids[position] if position < len(ids) else ids[0]
        return self._flows[self._last]


def _global_strict(context: PluginContext, params: NoParams) -> FairnessPolicy:
    return GlobalStrictFairness()


def _round_robin(context: PluginContext, params: NoParams) -> FairnessPolicy:
    return RoundRobinFairness()


GLOBAL_STRICT = PluginType(
    type="global-strict-fairness-policy",
    roles=frozenset({Role.FAIRNESS_POLICY}),
    summary="The flow whose first request is best by the ordering policy (default).",
    factory=_global_strict,
)

ROUND_ROBIN = PluginType(
    type="round-robin-fairness-policy",
    roles=frozenset({Role.FAIRNESS_POLICY}),
    summary="One flow after the other.",
    factory=_round_robin,
)

PLUGINS = (GLOBAL_STRICT, ROUND_ROBIN)
