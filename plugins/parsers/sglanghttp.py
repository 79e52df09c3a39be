"""sglanghttp-parser: SGLang's native generate requests."""

from __future__ import annotations

from epp.framework.interfaces import Role
from epp.framework.registry import PluginType

TYPE = "sglanghttp-parser"

PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.PARSER}),
    summary="Reads SGLang's native generate requests.",
    wait="further request formats",
)
