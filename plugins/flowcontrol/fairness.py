"""global-strict-fairness-policy and round-robin-fairness-policy: which flow of a priority band is next."""

from __future__ import annotations

from epp.framework.interfaces import Role
from epp.framework.registry import PluginType

GLOBAL_STRICT = PluginType(
    type="global-strict-fairness-policy",
    roles=frozenset({Role.FAIRNESS_POLICY}),
    summary="The flow whose first request is best by the ordering policy (default).",
    wait="flow control",
)

ROUND_ROBIN = PluginType(
    type="round-robin-fairness-policy",
    roles=frozenset({Role.FAIRNESS_POLICY}),
    summary="One flow after the other.",
    wait="flow control",
)

PLUGINS = (GLOBAL_STRICT, ROUND_ROBIN)
