"""disagg-profile-handler: decode, with prefill and encode on other endpoints when deciders say so."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from epp.framework.interfaces import Role
from epp.framework.params import Deprecated, Params, PluginReference, ProfileReference, mixed_forms
from epp.framework.registry import PluginType

TYPE = "disagg-profile-handler"

_FLAT = {
    "decodeProfile": ("profiles", "decode"),
    "prefillProfile": ("profiles", "prefill"),
    "encodeProfile": ("profiles", "encode"),
    "prefillDeciderPluginName": ("deciders", "prefill"),
    "encodeDeciderPluginName": ("deciders", "encode"),
    "deciderPluginName": ("deciders", "prefill"),
}
_NESTED = ("profiles", "deciders")
_DECODE_FIRST = ("", "decode", "decodefirst")
_PREFILL_FIRST = ("prefill", "prefillfirst")


def _check_stage_order(text: str) -> str:
    if _plain(text) not in _DECODE_FIRST + _PREFILL_FIRST:
        raise ValueError(f"{text!r} is not a stage order; use decode-first or prefill-first")
    return text


def _plain(text: str) -> str:
    return text.lower().replace("-", "").replace("_", "")


def _flat(name: str) -> Deprecated:
    section, key = _FLAT[name]
    return Deprecated(f"write {section}.{key}", code="WRN006")


def _can_prefill(params: DisaggProfileHandlerParams) -> bool:
    return bool(params.prefill_decider) or params.is_prefill_first


def _can_encode(params: DisaggProfileHandlerParams) -> bool:
    return bool(params.deciders.encode or params.encode_decider_plugin_name)


class DisaggProfiles(Params):
    """Names of the scheduling profiles of the stages."""

    decode_: Annotated[str, ProfileReference()] = Field(default="decode", alias="decode", description="Serves the request.")
    prefill: Annotated[str, ProfileReference(required=False, when=_can_prefill)] = Field(
        default="prefill", description="Computes the prompt."
    )
    encode: Annotated[str, ProfileReference(required=False, when=_can_encode)] = Field(
        default="encode", description="Encodes media."
    )


class DisaggDeciders(Params):
    """Deciders of the optional stages; a stage without one never runs."""

    prefill: Annotated[str, PluginReference(Role.DECIDER)] = Field(default="", description="Says when to prefill elsewhere.")
    encode: Annotated[str, PluginReference(Role.DECIDER)] = Field(default="", description="Says when to encode elsewhere.")


class DisaggProfileHandlerParams(Params):
    """The nested form ``profiles`` and ``deciders``, or the flat one of older versions; not both."""

    profiles: DisaggProfiles = Field(default_factory=DisaggProfiles, description="Profiles of the stages.")
    deciders: DisaggDeciders = Field(default_factory=DisaggDeciders, description="Deciders of the optional stages.")
    stage_order: Annotated[str, AfterValidator(_check_stage_order)] = Field(
        default="decode-first", description="Stage that is scheduled first: `decode-first` or `prefill-first`."
    )
    decode_profile: Annotated[str, ProfileReference(), _flat("decodeProfile")] = Field(
        default="", description="Flat form of `profiles.decode`."
    )
    prefill_profile: Annotated[str, ProfileReference(required=False, when=_can_prefill), _flat("prefillProfile")] = Field(
        default="", description="Flat form of `profiles.prefill`."
    )
    encode_profile: Annotated[str, ProfileReference(required=False, when=_can_encode), _flat("encodeProfile")] = Field(
        default="", description="Flat form of `profiles.encode`."
    )
    prefill_decider_plugin_name: Annotated[str, PluginReference(Role.DECIDER), _flat("prefillDeciderPluginName")] = Field(
        default="", description="Flat form of `deciders.prefill`."
    )
    encode_decider_plugin_name: Annotated[str, PluginReference(Role.DECIDER), _flat("encodeDeciderPluginName")] = Field(
        default="", description="Flat form of `deciders.encode`."
    )
    decider_plugin_name: Annotated[str, PluginReference(Role.DECIDER, required=False), _flat("deciderPluginName")] = Field(
        default="", description="Oldest form of `deciders.prefill`; used when `prefillDeciderPluginName` is absent."
    )

    @model_validator(mode="before")
    @classmethod
    def _check_form(cls, document: Any) -> Any:
        """Refuse a mix of both forms; take the defaults out of the form that is not used."""
        if not isinstance(document, dict):
            return document
        flat = [key for key in _FLAT if document.get(key)]
        nested = [key for key in _NESTED if key in document]
        if flat and nested:
            raise mixed_forms(f"{', '.join(nested)} and {', '.join(flat)} belong to two forms: move all into the nested one")
        replaced = {_FLAT[key][1]: "" for key in flat if _FLAT[key][0] == "profiles"}
        return {**document, "profiles": replaced} if replaced else document

    @model_validator(mode="after")
    def _check_order(self) -> DisaggProfileHandlerParams:
        if self.is_prefill_first and self.prefill_decider:
            raise ValueError("stageOrder prefill-first always prefills: it excludes a prefill decider")
        return self

    @property
    def prefill_decider(self) -> str:
        """Name of the decider of the prefill stage; "" = there is none."""
        return self.deciders.prefill or self.prefill_decider_plugin_name or self.decider_plugin_name

    @property
    def is_prefill_first(self) -> bool:
        """Prefill is scheduled before decode."""
        return _plain(self.stage_order) in _PREFILL_FIRST


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.PROFILE_HANDLER, Role.PRE_REQUEST}),
    summary="Decodes, with prefill and encode on other endpoints when deciders say so.",
    params=DisaggProfileHandlerParams,
    wait="disaggregated prefill and encode",
)
