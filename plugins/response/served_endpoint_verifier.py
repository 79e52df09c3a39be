"""destination-endpoint-served-verifier: repeat the data plane's served endpoint; for conformance tests."""

from __future__ import annotations

from epp.framework.handle import PluginContext
from epp.framework.interfaces import HeaderEdits, ResponseReceived, Role
from epp.framework.params import NoParams
from epp.framework.registry import PluginType
from epp.framework.results import SchedulingResult
from epp.framework.types import InferenceRequest, ResponseInfo

TYPE = "destination-endpoint-served-verifier"
HEADER = "x-conformance-test-served-endpoint"
NAMESPACE = "envoy.lb"
KEY = "x-gateway-destination-endpoint-served"
NO_NAMESPACE = "fail: missing envoy lb metadata"
NO_KEY = "fail: missing destination endpoint served metadata"


class DestinationEndpointServedVerifier:
    """Repeat in a response header which endpoint the data plane says it used.

    Parameters: none.
    Reads: ``envoy.lb`` / ``x-gateway-destination-endpoint-served`` of the metadata that comes with the response headers.
    Headers: ``x-conformance-test-served-endpoint`` = its text, or a text that begins with ``fail:`` and says what is missing.
    Source: gateway-api-inference-extension: conformance tests of the endpoint picker protocol
    """

    def response_received(
        self, request: InferenceRequest, result: SchedulingResult, response: ResponseInfo, edits: HeaderEdits
    ) -> None:
        """Write the header."""
        values = response.metadata.get(NAMESPACE)
        if values is None:
            edits.set(HEADER, NO_NAMESPACE)
            return
        served = values.get(KEY)
        edits.set(HEADER, served if isinstance(served, str) and served else NO_KEY)


def _create(context: PluginContext, params: NoParams) -> ResponseReceived:
    return DestinationEndpointServedVerifier()


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.RESPONSE_RECEIVED}),
    summary="Repeats in a response header which endpoint the data plane says it used; for conformance tests.",
    factory=_create,
)
