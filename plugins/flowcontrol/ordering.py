"""fcfs-, edf- and slo-deadline-ordering-policy: which request of a flow is next."""

from __future__ import annotations

from epp.framework.interfaces import Role
from epp.framework.registry import PluginType, Reads
from plugins.shared.slo_headers import TTFT_HEADERS

FCFS = PluginType(
    type="fcfs-ordering-policy",
    roles=frozenset({Role.ORDERING_POLICY}),
    summary="First come, first served (default).",
    wait="flow control",
)

EDF = PluginType(
    type="edf-ordering-policy",
    roles=frozenset({Role.ORDERING_POLICY}),
    summary="Earliest expiry of the queue wait first.",
    wait="flow control",
)

SLO_DEADLINE = PluginType(
    type="slo-deadline-ordering-policy",
    roles=frozenset({Role.ORDERING_POLICY}),
    summary="Earliest deadline of the first token first.",
    reads=Reads(request_headers=TTFT_HEADERS),
    wait="flow control",
)

PLUGINS = (FCFS, EDF, SLO_DEADLINE)
