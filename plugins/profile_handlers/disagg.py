"""disagg-profile-handler: decode, with prefill and encode on other endpoints when deciders say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple, cast

from pydantic import AfterValidator, Field, model_validator

from epp.errors import SchedulingError
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Decider, HeaderEdits, ProfileHandler, Role, SchedulingProfile
from epp.framework.keys import PEER_ENDPOINT
from epp.framework.params import Deprecated, Params, PluginReference, ProfileReference, mixed_forms
from epp.framework.registry import PluginType
from epp.framework.results import ProfileResults, ProfileRunResult, SchedulingResult
from epp.framework.types import Endpoint, InferenceRequest
from plugins.shared.disaggregation import (
    ENCODE_HEADERS,
    NO_DECODE,
    PREFILL_HEADERS,
    DecisionCounter,
    gather,
    handler_writes_headers,
    write_stage_headers,
)

TYPE = "disagg-profile-handler"
DECISIONS = "llm_d_epp_disagg_decision_total"

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
    return Deprecated(f"write {section}.{key}", code="WRN006", moves_to=f"{section}.{key}")


def _can_prefill(params: DisaggProfileHandlerParams) -> bool:
    return bool(params.prefill_decider) or params.is_prefill_first


def _can_encode(params: DisaggProfileHandlerParams) -> bool:
    return bool(params.encode_decider)


class Stages(NamedTuple):
    """Names of the profiles of the stages."""

    decode: str
    prefill: str
    encode: str


class Deciders(NamedTuple):
    """Deciders of the optional stages; one without never runs."""

    prefill: Decider | None = None
    encode: Decider | None = None


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

    gone: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("threshold", "hashBlockSize"),
        "declare a prefix-based-pd-decider with nonCachedTokens, and name it in deciders.prefill",
    )

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
    def stages(self) -> Stages:
        """Names of the profiles, from either form; an empty name is the stage's own."""
        return Stages(
            self.profiles.decode_ or self.decode_profile or "decode",
            self.profiles.prefill or self.prefill_profile or "prefill",
            self.profiles.encode or self.encode_profile or "encode",
        )

    @property
    def prefill_decider(self) -> str:
        """Name of the decider of the prefill stage; "" = there is none."""
        return self.deciders.prefill or self.prefill_decider_plugin_name or self.decider_plugin_name

    @property
    def encode_decider(self) -> str:
        """Name of the decider of the encode stage; "" = there is none."""
        return self.deciders.encode or self.encode_decider_plugin_name

    @property
    def is_prefill_first(self) -> bool:
        """Prefill is scheduled before decode."""
        return _plain(self.stage_order) in _PREFILL_FIRST


class DisaggProfileHandler:
    """Decode on one endpoint, with prefill and encode on others when their deciders say so.

    Parameters: profiles.{decode, prefill, encode}, deciders.{prefill, encode}, stageOrder; or their flat forms.
    Rule: decode-first runs decode, then encode, then prefill, as far as a stage has a profile and its decider says yes about
        the decode endpoint. Prefill-first runs prefill, then encode, whose decider is asked without an endpoint, then decode.
    Publishes: peer-endpoint, the endpoint picked first, for the second of prefill and decode.
    Headers: prefill and encode targets, where no disagg-headers-handler is declared.
    Counts: disagg_decision_total, once per request that is sent.
    Failure: no decode endpoint fails the request. A prefill or encode stage that found nobody is left out, as is a prefill on
        the endpoint that decodes.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/profilehandler/disagg/disagg_profile_handler.go
    """

    def __init__(
        self,
        stages: Stages,
        deciders: Deciders,
        decisions: DecisionCounter,
        *,
        prefill_first: bool = False,
        writes_headers: bool = True,
    ) -> None:
        self._stages = stages
        self._deciders = deciders
        self._decisions = decisions
        self._prefill_first = prefill_first
        self._writes_headers = writes_headers

    def pick(
        self,
        request: InferenceRequest,
        profiles: Mapping[str, SchedulingProfile],
        results: ProfileResults,
    ) -> Sequence[str]:
        """The next stage; one that is decided against gets None as its result, so that its decider is asked once."""
        if self._prefill_first:
            return self._pick_prefill_first(request, profiles, results)
        decode, prefill, encode = self._stages
        if decode not in results:
            return (decode,) if decode in profiles else ()
        chosen = results[decode]
        if chosen is None:
            return ()
        endpoint = chosen.targets[0]
        if encode in profiles and encode not in results:
            if _says_yes(self._deciders.encode, request, endpoint):
                return (encode,)
            results[encode] = None
        if prefill in profiles and prefill not in results:
            if _says_yes(self._deciders.prefill, request, endpoint):
                results.publish(PEER_ENDPOINT, endpoint)
                return (prefill,)
            results[prefill] = None
        return ()

    def _pick_prefill_first(
        self,
        request: InferenceRequest,
        profiles: Mapping[str, SchedulingProfile],
        results: ProfileResults,
    ) -> Sequence[str]:
        decode, prefill, encode = self._stages
        if prefill in profiles and prefill not in results:
            return (prefill,)
        if encode in profiles and encode not in results:
            if _says_yes(self._deciders.encode, request, None):
                return (encode,)
            results[encode] = None
        if decode in results or decode not in profiles:
            return ()
        computed = results.get(prefill)
        if computed is not None:
            results.publish(PEER_ENDPOINT, computed.targets[0])
        return (decode,)

    def process_results(self, request: InferenceRequest, results: Mapping[str, ProfileRunResult | None]) -> SchedulingResult:
        """Decode's targets, and the runs of the other stages.

        Raises:
            SchedulingError: decode picked nothing.
        """
        decode, prefill, encode = self._stages
        chosen = results.get(decode)
        if chosen is None:
            raise SchedulingError(NO_DECODE)
        runs = gather(results, decode, prefill, encode)
        return SchedulingResult(primary=decode, profiles=runs, targets=chosen.targets, prefill=prefill, encode=encode)

    def pre_request(self, request: InferenceRequest, result: SchedulingResult, edits: HeaderEdits) -> None:
        """Write the headers, count the decision."""
        if self._writes_headers:
            write_stage_headers(edits, result.targets_of(self._stages.prefill), result.targets_of(self._stages.encode))
        self._decisions.count(request, result)


def _says_yes(decider: Decider | None, request: InferenceRequest, endpoint: Endpoint | None) -> bool:
    return decider is not None and decider.disaggregate(request, endpoint)


def _create(context: PluginContext, params: DisaggProfileHandlerParams) -> ProfileHandler:
    stages = params.stages
    if len(set(stages)) < len(stages):
        raise ValueError(f"each stage needs a profile of its own, but they are {', '.join(stages)}")
    if context.profiles and stages.decode not in context.profiles:
        raise ValueError(f"there is no profile {stages.decode!r} to decode with: every request would fail")
    return DisaggProfileHandler(
        stages,
        Deciders(_decider(context, params.prefill_decider), _decider(context, params.encode_decider)),
        DecisionCounter(context, DECISIONS),
        prefill_first=params.is_prefill_first,
        writes_headers=handler_writes_headers(context),
    )


def _decider(context: PluginContext, name: str) -> Decider | None:
    return cast("Decider", context.plugin(name)) if name else None


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.PROFILE_HANDLER, Role.PRE_REQUEST}),
    summary="Decodes, with prefill and encode on other endpoints when deciders say so.",
    params=DisaggProfileHandlerParams,
    factory=_create,
    header_strip=frozenset({*PREFILL_HEADERS, *ENCODE_HEADERS}),
    example="""
        plugins:
        - type: disagg-profile-handler
          parameters:
            deciders: {prefill: prefix-based-pd-decider}
        - type: prefix-based-pd-decider
          parameters: {nonCachedTokens: 512}
        - type: disagg-headers-handler
        - type: prefill-filter
        - type: decode-filter
        - type: queue-scorer
        - type: max-score-picker
        schedulingProfiles:
        - name: prefill
          plugins:
          - pluginRef: prefill-filter
          - pluginRef: queue-scorer
          - pluginRef: max-score-picker
        - name: decode
          plugins:
          - pluginRef: decode-filter
          - pluginRef: queue-scorer
          - pluginRef: max-score-picker
    """,
)
