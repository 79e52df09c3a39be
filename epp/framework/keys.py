"""The shared data keys: what plugins tell each other about a request, its candidates, and their metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from epp.framework.data import DataKey, Scope
from epp.framework.types import Endpoint, EndpointId


@dataclass(frozen=True, slots=True)
class PrefixMatch:
    """How much of a prompt's prefix one endpoint holds. Source: llm-d-router, attribute PrefixCacheMatchInfo."""

    match_blocks: int
    """Leading blocks found, whatever tier holds them."""
    total_blocks: int
    """Blocks of the prompt, or of the part that was looked up."""
    block_size_tokens: int
    weighted_match: float | None = None
    """The same with each block weighted by its tier; None = all count fully."""
    blocks_by_tier: Mapping[str, int] = field(default_factory=dict)
    """Leading blocks that one tier alone holds; empty if the index knows no tiers."""

    @property
    def ratio(self) -> float:
        """Held share of the prompt, in [0, 1], weighted by tier; 0 for a prompt without a whole block."""
        if not self.total_blocks:
            return 0.0
        return (self.match_blocks if self.weighted_match is None else self.weighted_match) / self.total_blocks


@dataclass(frozen=True, slots=True)
class MediaFeature:
    """An image, a video or a sound in a tokenized prompt."""

    modality: str
    hash: str
    offset_tokens: int
    length_tokens: int


@dataclass(frozen=True, slots=True)
class TokenizedPrompt:
    """The prompt as tokens. Read-only, also where a sequence could be changed: long ones are arrays."""

    token_ids: Sequence[int]
    """Each fits 32 bits, unsigned."""
    is_exact: bool
    """False: pseudo-tokens that are good for counting and approximate matching only."""
    media: tuple[MediaFeature, ...] = ()
    """In the order of the prompt."""
    model: str = ""
    """Whose tokens they are; "" if the client sent them, or if they are estimates."""
    further: tuple[Sequence[int], ...] = ()
    """The other prompts of a request with several: each has a prefix of its own."""

    @property
    def count(self) -> int:
        """Tokens of all prompts together."""
        return len(self.token_ids) + sum(map(len, self.further))


@dataclass(frozen=True, slots=True)
class InFlightLoad:
    """What this picker has sent to one endpoint and not seen end."""

    requests: int
    tokens: int
    uncached_tokens: int = 0
    """Tokens of the current request that this endpoint would have to compute."""


@dataclass(slots=True)
class LatencyPrediction:
    """Predicted latency of the current request on one endpoint.

    Read-only; frozen it would take three times as long to make, and one is made for each candidate of each request.
    """

    ttft_ms: float
    tpot_ms: float
    ttft_headroom_ms: float
    """Objective minus prediction; negative = the objective would be missed."""
    tpot_headroom_ms: float
    ttft_is_valid: bool
    tpot_is_valid: bool
    dispatched_requests: int
    """Requests that this picker has sent to the endpoint and that still run."""


@dataclass(frozen=True, slots=True)
class MediaMatch:
    """How much of the request's media one endpoint has encoded before, in the units of its sizes."""

    matched_size: int
    total_size: int


@dataclass(frozen=True, slots=True)
class Topology:
    """Where an endpoint runs; "" = unknown."""

    hostname: str = ""
    rack: str = ""
    zone: str = ""
    region: str = ""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """An entry of a model server's ``/v1/models``."""

    id: str
    parent: str = ""
    """Base model of an adapter."""
    object: str = ""
    created: int = 0
    owned_by: str = ""


PREFIX_CACHE_MATCH: DataKey[dict[EndpointId, PrefixMatch]] = DataKey(
    "PrefixCacheMatchInfo", dict, "approx-prefix-cache-producer", Scope.ENDPOINT
)
"""Over all candidates of the pool, whatever the filters of a profile keep. An endpoint without an entry holds nothing."""

TOKENIZED_PROMPT: DataKey[TokenizedPrompt] = DataKey("TokenizedPrompt", TokenizedPrompt, "token-producer")
"""Every producer writes it under its own name; the first one that has tokens also under this very key, for who only counts."""

IN_FLIGHT_LOAD: DataKey[dict[EndpointId, InFlightLoad]] = DataKey(
    "InFlightLoad", dict, "inflight-load-producer", Scope.ENDPOINT
)

LATENCY_PREDICTION: DataKey[dict[EndpointId, LatencyPrediction]] = DataKey(
    "LatencyPredictionInfo", dict, "predicted-latency-producer", Scope.ENDPOINT
)

MEDIA_CACHE_MATCH: DataKey[dict[EndpointId, MediaMatch]] = DataKey(
    "MultiModalEncoderCacheMatchInfo", dict, "mm-embeddings-cache-producer", Scope.ENDPOINT
)

SESSION_ID: DataKey[str] = DataKey("SessionID", str, "session-id-producer")

PEER_ENDPOINT: DataKey[Endpoint] = DataKey("peer-endpoint", Endpoint, "disagg-profile-handler")
"""The other side of a disaggregated request, known before the second profile runs. Written under this very key, whatever
the name of the profile handler: there is only one."""

AGENT_IDENTITY: DataKey[str] = DataKey("agent-identity", str, "agent-identity")
"""Becomes the fairness id of a request that names none."""

WAITING_QUEUE: DataKey[int] = DataKey("WaitingQueueSize", int, "core-metrics-extractor", Scope.METRICS)
RUNNING_REQUESTS: DataKey[int] = DataKey("RunningRequestsSize", int, "core-metrics-extractor", Scope.METRICS)
KV_CACHE_USAGE: DataKey[float] = DataKey("KVCacheUsagePercent", float, "core-metrics-extractor", Scope.METRICS)
"""A fraction, in spite of its name upstream."""
ACTIVE_MODELS: DataKey[frozenset[str]] = DataKey("ActiveModels", frozenset, "core-metrics-extractor", Scope.METRICS)
WAITING_MODELS: DataKey[frozenset[str]] = DataKey("WaitingModels", frozenset, "core-metrics-extractor", Scope.METRICS)

SERVED_MODELS: DataKey[tuple[ServedModel, ...]] = DataKey("/v1/models", tuple, "models-data-extractor", Scope.METRICS)
TOPOLOGY: DataKey[Topology] = DataKey("Topology", Topology, "topology-extractor", Scope.METRICS)
GPU_UTILIZATION: DataKey[float] = DataKey("GPUUtilization", float, "dcgm-extractor", Scope.METRICS)
CLUSTER_QUEUE: DataKey[float] = DataKey("llm-d.ai/multicluster-queue-size", float, "", Scope.METRICS)
CLUSTER_KV_CACHE_USAGE: DataKey[float] = DataKey("llm-d.ai/multicluster-kv-cache-utilization", float, "", Scope.METRICS)


def reading(name: str) -> DataKey[object]:
    """What the reader of this name knows of the request's body; not written for a request without a body.

    Not written either if a plugin has changed the body since. Plugin types name the readers they want in
    ``Reads.request_readers``, or ``readers_of`` where they depend on parameters.
    """
    return DataKey(f"reading/{name}", object, "transport")
