"""How long a client is willing to wait for its turn, as its request says."""

from __future__ import annotations

import re
from math import inf

from epp.framework.params import parse_duration
from epp.framework.types import HeaderView
from epp.request.headers import INFERENCE_TTL

GRPC_TIMEOUT = "grpc-timeout"
"""Deadline of a gRPC client. Source: grpc/grpc: doc/PROTOCOL-HTTP2.md."""
MIN_TTL_S = 0.001
"""Of a request whose caller has given up already: 0 would be for ever."""
_UNITS_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_GRPC_TIMEOUT = re.compile(r"(\d{1,8})([HMSmun])")


def queue_ttl_s(headers: HeaderView, ttl_s: float) -> float:
    """The budget of a request in a queue of a pool that has endpoints; a client can only shorten it.

    Args:
        ttl_s: what the operator allows; 0 = for ever.
    """
    text = headers.get(INFERENCE_TTL)
    if not text:
        return ttl_s
    try:
        asked_s = parse_duration(text.strip())
    except ValueError:
        return ttl_s
    if asked_s <= 0:
        return ttl_s
    return min(asked_s, ttl_s) if ttl_s > 0 else asked_s


def caller_deadline_s(headers: HeaderView, received_s: float) -> float:
    """When the caller gives up, on the clock of ``received_s``; infinity = never."""
    text = headers.get(GRPC_TIMEOUT)
    match = _GRPC_TIMEOUT.fullmatch(text) if text else None
    return received_s + int(match[1]) * _UNITS_S[match[2]] if match else inf


def time_to_wait_s(ttl_s: float, left_s: float) -> float:
    """How long a request may wait while the pool has endpoints; 0 = for ever.

    Args:
        ttl_s: its budget; 0 = for ever.
        left_s: until its caller gives up; infinity = never.
    """
    left_s = max(left_s, MIN_TTL_S)
    if ttl_s > 0:
        return min(ttl_s, left_s)
    return left_s if left_s < inf else 0.0
