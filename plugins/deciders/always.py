"""always-disagg-pd-decider and always-disagg-multimodal-decider: disaggregate every request, or every one with media."""

from __future__ import annotations

from collections.abc import Mapping

from epp.framework.data import Consumes, DataKey
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Decider, Role
from epp.framework.keys import TOKENIZED_PROMPT, TokenizedPrompt
from epp.framework.params import NoParams
from epp.framework.registry import PluginType
from epp.framework.types import Api, Endpoint, InferenceRequest, Json

_CHAT_MEDIA = frozenset({"image_url", "audio_url", "video_url", "input_audio"})
_RESPONSES_MEDIA = frozenset({"input_image", "input_file"})
_MESSAGES_MEDIA = frozenset({"image"})
_GENERATE_MEDIA = ("image_data", "video_data", "audio_data")
"""Of SGLang's generate API."""


class AlwaysDisaggPdDecider:
    """Disaggregate every request.

    Parameters: none.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/profilehandler/disagg/always_disagg_pd_decider.go
    """

    def disaggregate(self, request: InferenceRequest, endpoint: Endpoint | None) -> bool:
        """True."""
        return True


class AlwaysDisaggMultimodalDecider:
    """Disaggregate every request that carries images, videos or sounds.

    Parameters: none.
    Reads: media of TokenizedPrompt, or content blocks of the body: ``image_url``, ``audio_url``, ``video_url`` and
        ``input_audio`` of chats, ``input_image`` and ``input_file`` of responses, ``image`` of Anthropic messages, features of
        tokens-in requests, ``image_data``, ``video_data`` and ``audio_data`` of SGLang's.
    Missing data: what is not read, such as a body of an unknown API, carries none.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/profilehandler/disagg/always_disagg_mm_decider.go
    """

    def __init__(self, prompt_key: DataKey[TokenizedPrompt] = TOKENIZED_PROMPT) -> None:
        self._prompt_key = prompt_key

    def disaggregate(self, request: InferenceRequest, endpoint: Endpoint | None) -> bool:
        """The request carries media."""
        tokenized = request.data.get(self._prompt_key)
        if tokenized is not None and tokenized.media:
            return True
        return _carries_media(request.body.api, request.body.document)


def _carries_media(api: Api, document: Mapping[str, Json]) -> bool:
    match api:
        case Api.CHAT:
            return _in_messages(document.get("messages"), _CHAT_MEDIA)
        case Api.RESPONSES:
            items = document.get("input")
            return _in_blocks(items, _RESPONSES_MEDIA) or _in_messages(items, _RESPONSES_MEDIA)
        case Api.MESSAGES:
            return _in_messages(document.get("messages"), _MESSAGES_MEDIA)
        case Api.GENERATE | Api.COMPLETIONS:
            return _has_features(document.get("features")) or any(document.get(name) for name in _GENERATE_MEDIA)
        case _:
            return False


def _in_messages(messages: Json, media: frozenset[str]) -> bool:
    """A message of the list has such a content block, be it in the result of a tool."""
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        if _in_blocks(content, media):
            return True
        for block in content if isinstance(content, list) else ():
            if isinstance(block, dict) and block.get("type") == "tool_result" and _in_blocks(block.get("content"), media):
                return True
    return False


def _in_blocks(blocks: Json, media: frozenset[str]) -> bool:
    if not isinstance(blocks, list):
        return False
    return any(_is_media(block, media) for block in blocks if isinstance(block, dict))


def _is_media(block: Mapping[str, Json], media: frozenset[str]) -> bool:
    """By its type, or where it has none by a member, as vLLM takes it."""
    kind = block.get("type")
    return kind in media if isinstance(kind, str) else not media.isdisjoint(block)


def _has_features(features: Json) -> bool:
    """Hashes or placeholders of media, by modality, as vLLM's tokens-in API has them."""
    if not isinstance(features, dict):
        return False
    return any(
        items
        for name in ("mm_hashes", "mm_placeholders")
        if isinstance(by_modality := features.get(name), dict)
        for items in by_modality.values()
    )


def _create_always(context: PluginContext, params: NoParams) -> Decider:
    return AlwaysDisaggPdDecider()


def _create_multimodal(context: PluginContext, params: NoParams) -> Decider:
    return AlwaysDisaggMultimodalDecider(context.key(TOKENIZED_PROMPT))


ALWAYS = PluginType(
    type="always-disagg-pd-decider",
    roles=frozenset({Role.DECIDER}),
    summary="Disaggregates every request.",
    factory=_create_always,
    example="""
        plugins:
        - type: disagg-profile-handler
          parameters:
            deciders: {prefill: always-disagg-pd-decider}
        - type: always-disagg-pd-decider
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

MULTIMODAL = PluginType(
    type="always-disagg-multimodal-decider",
    roles=frozenset({Role.DECIDER}),
    summary="Disaggregates every request that carries images, videos or sounds.",
    factory=_create_multimodal,
    consumes=(Consumes(TOKENIZED_PROMPT, required=False),),
    example="""
        plugins:
        - type: disagg-profile-handler
          parameters:
            deciders: {encode: always-disagg-multimodal-decider}
        - type: always-disagg-multimodal-decider
        - type: disagg-headers-handler
        - type: encode-filter
        - type: decode-filter
        - type: queue-scorer
        - type: max-score-picker
        schedulingProfiles:
        - name: encode
          plugins:
          - pluginRef: encode-filter
          - pluginRef: queue-scorer
          - pluginRef: max-score-picker
        - name: decode
          plugins:
          - pluginRef: decode-filter
          - pluginRef: queue-scorer
          - pluginRef: max-score-picker
    """,
)

PLUGINS = (ALWAYS, MULTIMODAL)
