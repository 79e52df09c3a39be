"""Header and metadata names of the protocol, and the few rules for reading them.

Names that only one plugin reads or writes (session tokens, agent identity) are parameters of that plugin and not here.

Source: llm-d-router: pkg/epp/metadata/consts.go, pkg/epp/util/request/headers.go,
pkg/epp/framework/common/request/headers.go; endpoint picker protocol
(gateway-api-inference-extension: docs/proposals/004-endpoint-picker-protocol).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from epp.seam import Headers, Names
from epp.telemetry.decisions import EXPLAIN_HEADER


class Aliased(NamedTuple):
    """A header that was renamed; both names are accepted: ``lookup(headers, *FAIRNESS_ID)``."""

    name: str
    alias: str


# Control headers: what a client tells the picker. Never forwarded.
FAIRNESS_ID: Final = Aliased("x-llm-d-inference-fairness-id", "x-gateway-inference-fairness-id")
OBJECTIVE: Final = Aliased("x-llm-d-inference-objective", "x-gateway-inference-objective")
MODEL_REWRITE: Final = Aliased("x-llm-d-model-name-rewrite", "x-gateway-model-name-rewrite")
SLO_TTFT_MS: Final = Aliased("x-llm-d-slo-ttft-ms", "x-slo-ttft-ms")
SLO_TPOT_MS: Final = Aliased("x-llm-d-slo-tpot-ms", "x-slo-tpot-ms")
INFERENCE_TTL: Final = "x-llm-d-inference-ttl"
"""How long the request may wait in a queue, a Go duration."""
VIDEO_FPS: Final = "x-llm-d-video-fps"
VIDEO_DURATION_S: Final = "x-llm-d-video-duration-seconds"
VIDEO_RESOLUTION: Final = "x-llm-d-video-resolution"

# Where the request goes. The first three are also keys of the metadata namespaces below.
DESTINATION: Final = "x-gateway-destination-endpoint"
DESTINATION_SUBSET: Final = "x-gateway-destination-endpoint-subset"
DESTINATION_SERVED: Final = "x-gateway-destination-endpoint-served"
DESTINATION_SCORES: Final = "x-gateway-destination-endpoint-scores"
"""Only a metadata key."""

# Where the other parts of a disaggregated request go: written by plugins, read by the sidecar of the model server.
PREFILLER: Final = "x-prefiller-host-port"
ENCODERS: Final = "x-encoder-hosts-ports"
DATA_PARALLEL: Final = "x-data-parallel-host-port"
KV_CACHE_SOURCE: Final = "x-kv-cache-source-host-port"
MIF_PREFILL: Final = "mif-prefill-endpoint"
MIF_ENCODE: Final = "mif-encode-endpoints"

# Read or written by the core, forwarded.
REQUEST_ID: Final = "x-request-id"
TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
BAGGAGE: Final = "baggage"
PREFER: Final = "prefer"
IF_AVAILABLE: Final = "if-available"
"""A value of ``PREFER``."""
CONTENT_TYPE: Final = "content-type"
CONTENT_LENGTH: Final = "content-length"
METHOD: Final = ":method"
PATH: Final = ":path"
ORIGINAL_PATH: Final = "x-original-path"
FORWARDED_PATH: Final = "x-forwarded-path"

# Written to responses.
WENT_INTO_RESPONSE: Final = "x-went-into-resp-headers"
DROPPED_REASON: Final = "x-llm-d-request-dropped-reason"

# A request with the value 1 asks why it goes where it goes; the response tells.
EXPLAIN: Final = EXPLAIN_HEADER

# Dynamic metadata of Envoy.
LB_NAMESPACE: Final = "envoy.lb"
"""Written: ``DESTINATION``, ``DESTINATION_SCORES``. Read with the response headers: ``DESTINATION_SERVED``."""
SUBSET_NAMESPACE: Final = "envoy.lb.subset_hint"
"""Read: ``DESTINATION_SUBSET``."""

DEFAULT_PATH: Final = "/v1/completions"
"""Assumed for callers that send no path (NGINX Gateway Fabric). Source: llm-d-router, as above."""

CONTROL: Final[Names] = frozenset(
    {
        *FAIRNESS_ID,
        *OBJECTIVE,
        *MODEL_REWRITE,
        *SLO_TTFT_MS,
        *SLO_TPOT_MS,
        INFERENCE_TTL,
        VIDEO_FPS,
        VIDEO_DURATION_S,
        VIDEO_RESOLUTION,
        EXPLAIN,
    }
)
"""All control headers with their aliases."""

REQUEST_STRIP: Final[Names] = CONTROL | {
    DESTINATION,
    DESTINATION_SUBSET,
    DESTINATION_SERVED,
    PREFILLER,
    ENCODERS,
    DATA_PARALLEL,
    KV_CACHE_SOURCE,
    MIF_PREFILL,
    MIF_ENCODE,
}
"""Removed from every request before ours are set: a client that could set them would choose the upstream itself."""

RESPONSE_STRIP: Final[Names] = frozenset({DESTINATION, DESTINATION_SUBSET, DESTINATION_SERVED, DROPPED_REASON, EXPLAIN})
"""Removed from every response: a model server has no say in them."""

SYSTEM_OWNED: Final[Names] = CONTROL | {DESTINATION, DESTINATION_SUBSET, DESTINATION_SERVED, DROPPED_REASON, CONTENT_LENGTH}
"""What a plugin may not set, in either direction."""

_FORBIDDEN: Final = ("\r", "\n", "\0")


def lookup(headers: Headers, new: str, old: str) -> str | None:
    """The value of a renamed header: the new name wins if it is there, even with an empty value."""
    value = headers.get(new)
    return headers.get(old) if value is None else value


def prefers_available(headers: Headers) -> bool:
    """``prefer: if-available``: the request is only worth its way if the picked endpoint has its prefix cached.

    One of several comma-separated preferences, in any case; what follows a semicolon is ignored.
    Source: RFC 7240, section 2; llm-d-router: pkg/epp/requestcontrol/director.go.
    """
    if headers.get(PREFER) is None:
        return False
    values = (value for name, value in headers.items() if name == PREFER)
    preferences = (preference.partition(";")[0].strip().lower() for value in values for preference in value.split(","))
    return IF_AVAILABLE in preferences


def request_path(headers: Headers) -> str:
    """The path of a request without its query; gateways that rewrite it leave the original in another header."""
    for name in (PATH, ORIGINAL_PATH, FORWARDED_PATH):
        path = headers.get(name)
        if path:
            return path.partition("?")[0]
    return DEFAULT_PATH


def request_query(headers: Headers) -> str:
    """The query of a request, without the question mark; "" if it has none."""
    for name in (PATH, ORIGINAL_PATH, FORWARDED_PATH):
        path = headers.get(name)
        if path:
            return path.partition("?")[2]
    return ""


def clean_value(value: str) -> bool:
    """Whether a header may have this value: CR, LF or NUL would end it early, or make Envoy refuse the message."""
    return not any(character in value for character in _FORBIDDEN)
