"""Cases of the protocol's table that are not tested here, with what each waits for, and those that live elsewhere."""

from __future__ import annotations

PENDING = {
    "C28": "disagg-headers-handler; that clients cannot set its headers is test_client_sends_routing_headers",
    "C54": "flow control",
    "C56": "prefix-cache awareness: the header prefer: if-available asks for a cached prefix",
    "C80": "vllmgrpc-parser",
    "C81": "vllmgrpc-parser",
    "C82": "vllmgrpc-parser",
    "C85": "request-attribute-reporter",
    "C86": "session affinity",
    "C87": "destination-endpoint-served-verifier; what hooks see is test_served_endpoint",
    "C88": "response-header-handler and disaggregated prefill",
    "C94": "flow control: eviction; the wire's half is test_reply_behind_the_route_cuts_the_response",
    "C95": "flow control: eviction; the wire's half is test_reply_behind_the_response_is_dropped",
    "C107": "InferencePool with an appProtocol, and vllmgrpc-parser",
}

ELSEWHERE = {
    "C113": "tests/envoy: needs the real Envoy",
}
