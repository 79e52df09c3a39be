"""prefix-based-pd-decider: prefill elsewhere when enough of the prompt is not cached on the decode endpoint."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from epp.framework.data import Consumes
from epp.framework.interfaces import Role
from epp.framework.keys import PREFIX_CACHE_MATCH, TOKENIZED_PROMPT
from epp.framework.params import Int, Params, PluginReference
from epp.framework.registry import PluginType

TYPE = "prefix-based-pd-decider"


class PrefixBasedPdDeciderParams(Params):
    """Parameters of prefix-based-pd-decider."""

    non_cached_tokens: Int = Field(
        default=0, ge=0, description="Prefill elsewhere when at least this many tokens are not cached; 0 = never."
    )
    prompt_tokens: Int = Field(default=0, ge=0, description="Shorter prompts, in tokens, are never prefilled elsewhere.")
    prefix_match_info_producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Producer of the prefix match; default: its usual producer."
    )


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.DECIDER}),
    summary="Prefills elsewhere when enough of the prompt is not cached on the decode endpoint.",
    params=PrefixBasedPdDeciderParams,
    consumes=(Consumes(PREFIX_CACHE_MATCH), Consumes(TOKENIZED_PROMPT, required=False)),
    wait="disaggregated prefill",
)
