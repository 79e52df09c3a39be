"""response-header-handler: tell the client which endpoints served it."""

from __future__ import annotations

from epp.framework.handle import PluginContext
from epp.framework.interfaces import HeaderEdits, ResponseReceived, Role
from epp.framework.params import NoParams
from epp.framework.registry import PluginType
from epp.framework.results import SchedulingResult
from epp.framework.types import InferenceRequest, ResponseInfo

TYPE = "response-header-handler"
DECODER_HEADER = "x-decoder-host-port"
PREFILLER_HEADER = "x-prefiller-host-port"


class ResponseHeaderHandler:
    """Name the endpoints of a request in its response headers, in place of what the model server wrote there.

    Parameters: none.
    Headers: ``x-decoder-host-port`` = the endpoint that answered, as the data plane reports it, else the picked one;
        ``x-prefiller-host-port`` = the first prefill target, only if prefill ran elsewhere.
    Local replies of the data plane have headers too and get them; requests without a scheduling decision do not.
    Source: Heimdall documentation: response-header-handler
    """

    def response_received(
        self, request: InferenceRequest, result: SchedulingResult, response: ResponseInfo, edits: HeaderEdits
    ) -> None:
        """Write the headers."""
        edits.set(DECODER_HEADER, response.served.host_port)
        prefill = result.targets_of(result.prefill)
        if prefill and result.prefill != result.primary:
            edits.set(PREFILLER_HEADER, prefill[0].host_port)
        else:
            edits.remove(PREFILLER_HEADER)


def _create(context: PluginContext, params: NoParams) -> ResponseReceived:
    return ResponseHeaderHandler()


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.RESPONSE_RECEIVED}),
    summary="Tells the client in response headers which endpoints served it.",
    factory=_create,
)
