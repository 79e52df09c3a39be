"""pd-profile-handler: decode, and prefill on another endpoint when the prompt is worth it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from epp.framework.interfaces import Role
from epp.framework.params import Int, Params, PluginReference, ProfileReference, exclusive
from epp.framework.registry import PluginType

TYPE = "pd-profile-handler"


class PdProfileHandlerParams(Params):
    """Two generations: ``threshold`` and ``hashBlockSize`` decide without a decider, ``deciderPluginName`` with one."""

    decode_profile: Annotated[str, ProfileReference()] = Field(
        default="decode", min_length=1, description="Profile whose target serves the request."
    )
    prefill_profile: Annotated[str, ProfileReference(required=False)] = Field(
        default="prefill", min_length=1, description="Profile whose target computes the prompt."
    )
    prefix_plugin_type: str = Field(default="prefix-cache-scorer", description="Type of the plugin that knows cached prefixes.")
    prefix_plugin_name: Annotated[str, PluginReference(required=False)] = Field(
        default="", description="Instance that knows cached prefixes; default: the value of `prefixPluginType`."
    )
    primary_port: Int = Field(
        default=0, ge=0, le=65535, description="Port that decode targets are rewritten to; 0 = not rewritten."
    )
    threshold: Int = Field(
        default=0, ge=0, description="Prefill when at least this many bytes of the prompt are not cached; 0 = always."
    )
    hash_block_size: Int = Field(default=64, gt=0, description="Bytes of prompt per matched prefix block.")
    decider_plugin_name: Annotated[str, PluginReference(Role.DECIDER)] = Field(
        default="", description="Decider that says when to prefill; excludes `threshold`."
    )
    prefix_match_info_producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Producer of the prefix match; default: its usual producer."
    )

    @model_validator(mode="after")
    def _check_generation(self) -> PdProfileHandlerParams:
        if self.decider_plugin_name and self.threshold > 0:
            raise exclusive("deciderPluginName and threshold exclude each other: give one of them")
        return self


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.PROFILE_HANDLER, Role.PRE_REQUEST}),
    summary="Decodes, and prefills on another endpoint when the prompt is worth it (older form of disagg-profile-handler).",
    params=PdProfileHandlerParams,
    wait="disaggregated prefill",
)
