"""Cases of the protocol's table that are not tested here, with what each waits for, and those that live elsewhere."""

from __future__ import annotations

PENDING = {
    "C54": "flow control",
    "C94": "flow control: eviction; the wire's half is test_reply_behind_the_route_cuts_the_response",
    "C95": "flow control: eviction; the wire's half is test_reply_behind_the_response_is_dropped",
    "C107": "InferencePool with an appProtocol",
}

ELSEWHERE = {
    "C113": "tests/envoy: needs the real Envoy",
}
