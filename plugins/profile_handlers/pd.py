"""pd-profile-handler: decode, and prefill on another endpoint when the prompt is worth it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, cast

import orjson
from pydantic import Field, model_validator

from epp.errors import SchedulingError
from epp.framework.data import Consumes, DataKey
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Decider, HeaderEdits, ProfileHandler, Role, SchedulingProfile
from epp.framework.keys import PREFIX_CACHE_MATCH, PrefixMatch
from epp.framework.params import Int, Params, PluginReference, ProfileReference, exclusive
from epp.framework.prompt import BYTES_PER_TOKEN
from epp.framework.registry import PluginType
from epp.framework.results import ProfileRunResult, SchedulingResult
from epp.framework.types import Api, Endpoint, EndpointId, InferenceRequest, Json
from plugins.shared.disaggregation import (
    DATA_PARALLEL_HEADER,
    ENCODE_HEADERS,
    NO_DECODE,
    PREFILL_HEADERS,
    DecisionCounter,
    at_port,
    gather,
    handler_writes_headers,
    name_rank,
    write_stage_headers,
)

TYPE = "pd-profile-handler"
DECISIONS = "llm_d_epp_pd_decision_total"
DEFAULT_DECIDER = "prefix-based-pd-decider"
DEFAULT_PREFIX_PLUGIN = "prefix-cache-scorer"
_PROMPTS = {
    Api.COMPLETIONS: "prompt",
    Api.CHAT: "messages",
    Api.MESSAGES: "messages",
    Api.EMBEDDINGS: "input",
    Api.RESPONSES: "input",
    Api.CONVERSATIONS: "items",
}
"""The member with the prompt. The whole body counts where there is none."""


class PdProfileHandlerParams(Params):
    """Two generations: ``threshold`` and ``hashBlockSize`` decide without a decider, ``deciderPluginName`` with one."""

    gone: ClassVar[Mapping[str, str]] = {"decider": "declare the decider in plugins, and name it in deciderPluginName"}

    decode_profile: Annotated[str, ProfileReference()] = Field(
        default="decode", min_length=1, description="Profile whose target serves the request."
    )
    prefill_profile: Annotated[str, ProfileReference(required=False)] = Field(
        default="prefill", min_length=1, description="Profile whose target computes the prompt."
    )
    prefix_plugin_type: str = Field(default=DEFAULT_PREFIX_PLUGIN, description="Type of the plugin that knows cached prefixes.")
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
        default=DEFAULT_DECIDER,
        description="Decider that says when to prefill; excludes `threshold`. The default counts where a plugin has that name.",
    )
    prefix_match_info_producer_name: Annotated[str, PluginReference(Role.DATA_PRODUCER)] = Field(
        default="", description="Producer of the prefix match; default: its usual producer."
    )

    @model_validator(mode="after")
    def _check_generation(self) -> PdProfileHandlerParams:
        if self.names_decider and self.threshold > 0:
            raise exclusive("deciderPluginName and threshold exclude each other: give one of them")
        return self

    @property
    def names_decider(self) -> bool:
        """The newer generation was asked for."""
        return "decider_plugin_name" in self.model_fields_set and bool(self.decider_plugin_name)

    @property
    def names_threshold(self) -> bool:
        """The older generation was asked for."""
        return not self.model_fields_set.isdisjoint({"threshold", "hash_block_size"})


class PdProfileHandler:
    """Decode on one endpoint; prefill on another one if that pays.

    Parameters: decodeProfile, prefillProfile, primaryPort, and those of one generation: threshold, hashBlockSize,
        prefixPluginName (v0.4), or deciderPluginName. Without any of either, a plugin named ``prefix-based-pd-decider`` decides
        if there is one; else every request is prefilled elsewhere.
    Rule: decode runs first. If it picked an endpoint and the decider says so, prefill runs; other profiles never do. A prefill
        that found nobody, or the endpoint that decodes, is no prefill.
    Headers: the prefill target, where no disagg-headers-handler is declared; with ``primaryPort`` also
        ``x-data-parallel-host-port`` = the decode target as it was picked, whose port in the result is replaced.
    Counts: pd_decision_total, once per request that is sent.
    Failure: no decode endpoint fails the request.
    Source: llm-d-router v0.5.0: pkg/plugins/profile/pd_profile_handler.go; llm-d-router:
        pkg/epp/framework/plugins/scheduling/profilehandler/disagg/pd_profile_handler.go
    """

    def __init__(
        self,
        decode: str,
        prefill: str,
        decider: Decider,
        decisions: DecisionCounter,
        primary_port: int,
        *,
        writes_headers: bool,
    ) -> None:
        self._decode = decode
        self._prefill = prefill
        self._decider = decider
        self._decisions = decisions
        self._primary_port = primary_port
        self._writes_headers = writes_headers

    def pick(
        self,
        request: InferenceRequest,
        profiles: Mapping[str, SchedulingProfile],
        results: Mapping[str, ProfileRunResult | None],
    ) -> Sequence[str]:
        """Decode, then perhaps prefill."""
        if self._decode not in results:
            return (self._decode,) if self._decode in profiles else ()
        decode = results[self._decode]
        if decode is None or self._prefill in results or self._prefill not in profiles:
            return ()
        return (self._prefill,) if self._decider.disaggregate(request, decode.targets[0]) else ()

    def process_results(self, request: InferenceRequest, results: Mapping[str, ProfileRunResult | None]) -> SchedulingResult:
        """Decode's targets, and the prefill run if it is elsewhere.

        Raises:
            SchedulingError: decode picked nothing.
        """
        decode = results.get(self._decode)
        if decode is None:
            raise SchedulingError(NO_DECODE)
        return SchedulingResult(
            primary=self._decode,
            profiles=gather(results, self._decode, self._prefill),
            targets=at_port(decode.targets, self._primary_port),
            prefill=self._prefill,
        )

    def pre_request(self, request: InferenceRequest, result: SchedulingResult, edits: HeaderEdits) -> None:
        """Write the headers, count the decision."""
        if self._primary_port:
            name_rank(edits, result)
        if self._writes_headers:
            write_stage_headers(edits, result.targets_of(self._prefill), ())
        self._decisions.count(request, result)


class ThresholdDecider:
    """The decision of v0.4: enough bytes of the prompt are not cached on the decode endpoint.

    Upstream takes one matched block off, which older indexes spent on the model's name; it is not taken off here.
    Source: llm-d-router v0.5.0: pkg/plugins/profile/pd_profile_handler.go
    """

    def __init__(self, threshold: int, hash_block_size: int, match_key: DataKey[dict[EndpointId, PrefixMatch]]) -> None:
        self._threshold = threshold
        self._hash_block_size = hash_block_size
        self._match_key = match_key

    def disaggregate(self, request: InferenceRequest, endpoint: Endpoint | None) -> bool:
        """At least ``threshold`` bytes are not cached; always with 0. Without a match nothing is cached."""
        if self._threshold == 0:
            return True
        cached = self._cached_bytes(request, endpoint) if endpoint is not None else 0
        return max(prompt_bytes(request) - cached, 0) >= self._threshold

    def _cached_bytes(self, request: InferenceRequest, endpoint: Endpoint) -> int:
        matches = request.data.get(self._match_key)
        match = matches.get(endpoint.id) if matches is not None else None
        if match is None:
            return 0
        return match.match_blocks * (match.block_size_tokens * BYTES_PER_TOKEN or self._hash_block_size)


def prompt_bytes(request: InferenceRequest) -> int:
    """Length of a prompt: of a text as it is, of messages and other lists as JSON, else of the whole body.

    The whole body stands also for what is nested deeper than can be written, 254 levels.
    """
    prompt: Json = request.body.document.get(_PROMPTS.get(request.body.api, ""))
    if isinstance(prompt, list) and all(isinstance(text, str) for text in prompt):
        prompt = " ".join(prompt)
    if isinstance(prompt, str):
        return len(prompt) if prompt.isascii() else len(prompt.encode("utf-8", "surrogatepass"))
    if prompt is None:
        return request.size_bytes
    try:
        return len(orjson.dumps(prompt))
    except orjson.JSONEncodeError:
        return request.size_bytes


def _create(context: PluginContext, params: PdProfileHandlerParams) -> ProfileHandler:
    if params.decode_profile == params.prefill_profile:
        raise ValueError(
            f"decodeProfile and prefillProfile are both {params.decode_profile!r}; prefill needs a profile of its own"
        )
    return PdProfileHandler(
        params.decode_profile,
        params.prefill_profile,
        _decider(context, params),
        DecisionCounter(context, DECISIONS),
        params.primary_port,
        writes_headers=handler_writes_headers(context),
    )


def _decider(context: PluginContext, params: PdProfileHandlerParams) -> Decider:
    """That of the generation which the parameters ask for; the older one where they ask for none."""
    if params.names_decider:
        return cast("Decider", context.plugin(params.decider_plugin_name))
    named = context.plugins.get(params.decider_plugin_name)
    if named is not None and not params.names_threshold:
        return cast("Decider", named)
    return ThresholdDecider(params.threshold, params.hash_block_size, _match_key(context, params))


def _match_key(context: PluginContext, params: PdProfileHandlerParams) -> DataKey[dict[EndpointId, PrefixMatch]]:
    """The match of the plugin that the parameters name, by name or by type, else of whoever writes one."""
    name = params.prefix_match_info_producer_name or params.prefix_plugin_name
    wanted = params.prefix_plugin_type
    if not name and wanted in context.declared:
        name = wanted
    if not name:
        name = next((other for other, kind in context.declared.items() if kind == wanted), "")
    key = context.key(PREFIX_CACHE_MATCH, name)
    if params.threshold > 0 and key.producer not in context.declared:
        context.warn("threshold", "no plugin says what is cached: every byte of a prompt counts as not cached")
    return key


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.PROFILE_HANDLER, Role.PRE_REQUEST}),
    summary="Decodes, and prefills on another endpoint when the prompt is worth it (older form of disagg-profile-handler).",
    params=PdProfileHandlerParams,
    factory=_create,
    consumes=(
        Consumes(
            PREFIX_CACHE_MATCH, required=False, prefer=(DEFAULT_PREFIX_PLUGIN,), when=lambda params: bool(params.threshold > 0)
        ),
    ),
    header_strip=frozenset({*PREFILL_HEADERS, *ENCODE_HEADERS, DATA_PARALLEL_HEADER}),
)
