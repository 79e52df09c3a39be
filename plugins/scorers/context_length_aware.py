"""context-length-aware: prefer, or keep only, endpoints that are meant for prompts of this length."""

from __future__ import annotations

from pydantic import Field

from epp.framework.data import Consumes
from epp.framework.interfaces import Role
from epp.framework.keys import TOKENIZED_PROMPT
from epp.framework.params import Params
from epp.framework.registry import PluginType

TYPE = "context-length-aware"


class ContextLengthAwareParams(Params):
    """Parameters of context-length-aware."""

    label: str = Field(
        default="mif.moreh.io/context-length-range",
        min_length=1,
        description="Label with one or more ranges of prompt lengths in tokens, such as `0-2048` or `0-2048_8192-16384`.",
    )
    enable_filtering: bool = Field(default=False, description="Also drop endpoints whose ranges do not contain the length.")


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SCORER, Role.FILTER}),
    summary="Prefers, or keeps only, endpoints that are meant for prompts of this length.",
    params=ContextLengthAwareParams,
    consumes=(Consumes(TOKENIZED_PROMPT, required=False),),
    wait="context-length routing",
)
