"""always-disagg-pd-decider and always-disagg-multimodal-decider: disaggregate every request, or every one with media."""

from __future__ import annotations

from epp.framework.data import Consumes
from epp.framework.interfaces import Role
from epp.framework.keys import TOKENIZED_PROMPT
from epp.framework.registry import PluginType

ALWAYS = PluginType(
    type="always-disagg-pd-decider",
    roles=frozenset({Role.DECIDER}),
    summary="Disaggregates every request.",
    wait="disaggregated prefill",
)

MULTIMODAL = PluginType(
    type="always-disagg-multimodal-decider",
    roles=frozenset({Role.DECIDER}),
    summary="Disaggregates every request that carries images, videos or sounds.",
    consumes=(Consumes(TOKENIZED_PROMPT, required=False),),
    wait="disaggregated encode",
)

PLUGINS = (ALWAYS, MULTIMODAL)
