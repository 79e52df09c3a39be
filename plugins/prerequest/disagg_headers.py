"""disagg-headers-handler: tell the decode endpoint where prefill and encode run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from epp.framework.handle import PluginContext
from epp.framework.interfaces import HeaderEdits, PreRequest, Role
from epp.framework.params import Params, ProfileReference
from epp.framework.registry import PluginType
from epp.framework.results import SchedulingResult
from epp.framework.types import InferenceRequest
from plugins.shared.disaggregation import ENCODE_HEADERS, HEADERS_HANDLER, PREFILL_HEADERS, is_elsewhere, write_stage_headers

TYPE = HEADERS_HANDLER


class DisaggHeadersHandlerParams(Params):
    """Parameters of disagg-headers-handler."""

    prefill_profile: Annotated[str, ProfileReference(required=False)] = Field(
        default="prefill", min_length=1, description="Profile whose first target goes into the prefill headers."
    )
    encode_profile: Annotated[str, ProfileReference(required=False)] = Field(
        default="encode", min_length=1, description="Profile whose targets go into the encode headers."
    )


class DisaggHeadersHandler:
    """Name the endpoints of the other stages in request headers.

    Parameters: prefillProfile, encodeProfile.
    Headers: ``mif-prefill-endpoint`` and ``x-prefiller-host-port`` = the first prefill target; ``mif-encode-endpoints`` and
        ``x-encoder-hosts-ports`` = all encode targets in picker order, joined by commas. Both names of a pair are written.
    Nothing picked: both names are removed, so that no client chooses the host that the proxy calls. So they are if prefill is
        the endpoint that serves the request.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/profilehandler/disagg/disagg_headers_handler.go
    """

    def __init__(self, prefill_profile: str, encode_profile: str) -> None:
        self._prefill = prefill_profile
        self._encode = encode_profile

    def pre_request(self, request: InferenceRequest, result: SchedulingResult, edits: HeaderEdits) -> None:
        """Write the headers, or remove them."""
        prefill = result.targets_of(self._prefill)
        write_stage_headers(edits, prefill if is_elsewhere(prefill, result.target) else (), result.targets_of(self._encode))


def _create(context: PluginContext, params: DisaggHeadersHandlerParams) -> PreRequest:
    return DisaggHeadersHandler(params.prefill_profile, params.encode_profile)


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.PRE_REQUEST}),
    summary="Tells the decode endpoint where prefill and encode run.",
    params=DisaggHeadersHandlerParams,
    factory=_create,
    header_strip=frozenset({*PREFILL_HEADERS, *ENCODE_HEADERS}),
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
