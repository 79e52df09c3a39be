"""The records that plugins see: endpoints, requests, responses. What scheduling made of them is in ``results``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple, NewType, Protocol

from epp.framework.data import DataKey, RequestData

Json = object
"""Anything that a JSON document can hold: dict, list, str, int, float, bool or None."""

EndpointId = NewType("EndpointId", str)
"""``namespace/name``: the key of every map per endpoint."""

_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One pickable address and port of a model server. A pod with several target ports is several endpoints.

    Built by ``Endpoint.of``; replaced whole when its labels or address change.
    """

    id: EndpointId
    name: str
    """``<pod>-rank-<i>`` for pods, the given name otherwise."""
    namespace: str
    address: str
    """IP literal without brackets, or a host name."""
    port: int
    host_port: str
    """``address:port`` as it goes on the wire, IPv6 in brackets."""
    metrics_host: str
    """``host:port`` that metrics are read from, unless the data source has a port of its own."""
    labels: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    pod_name: str = ""
    node_address: str = ""
    rank_index: int = 0

    @classmethod
    def of(
        cls,
        name: str,
        address: str,
        port: int,
        labels: Mapping[str, str] | None = None,
        *,
        namespace: str = "default",
        pod_name: str = "",
        node_address: str = "",
        rank_index: int = 0,
        metrics_port: int = 0,
    ) -> Endpoint:
        """An endpoint with the derived fields filled in; ``metrics_port`` 0 = ``port``."""
        host = f"[{address}]" if ":" in address else address
        host_port = f"{host}:{port}"
        return cls(
            id=EndpointId(f"{namespace}/{name}"),
            name=name,
            namespace=namespace,
            address=address,
            port=port,
            host_port=host_port,
            metrics_host=f"{host}:{metrics_port}" if metrics_port else host_port,
            labels=MappingProxyType(dict(labels)) if labels else _NOTHING,
            pod_name=pod_name or name,
            node_address=node_address,
            rank_index=rank_index,
        )

    def at_port(self, port: int) -> Endpoint:
        """The same endpoint, reached through another port: id, labels and ``metrics_host`` stay."""
        if port == self.port:
            return self
        host_port = f"[{self.address}]:{port}" if ":" in self.address else f"{self.address}:{port}"
        return replace(self, port=port, host_port=host_port)


@dataclass(frozen=True, slots=True)
class EndpointChange:
    """A change of the pool as one batch. What was removed goes first: an endpoint that moved, or whose server was restarted, is
    removed and added.

    Without the endpoints that are gone, and with those that came, what a follower knows is again the whole pool.
    """

    added: tuple[Endpoint, ...] = ()
    updated: tuple[Endpoint, ...] = ()
    """As they are now: labels or other metadata changed, address and port did not."""
    removed: tuple[Endpoint, ...] = ()
    """As they were."""


@dataclass(frozen=True, slots=True)
class EndpointMetrics:
    """What the last good scrape said; when that was is a ``Freshness``, as it moves while the values stay.

    ``None`` = never read, so that a scorer states what it makes of it.
    """

    waiting_queue: int | None = None
    """Requests waiting in the server."""
    running_requests: int | None = None
    kv_cache_usage: float | None = None
    """Fraction in [0, 1]."""
    active_models: frozenset[str] = frozenset()
    """LoRA adapters with running requests."""
    waiting_models: frozenset[str] = frozenset()
    max_active_models: int = 0
    """Adapters that fit at once; 0 = unknown."""
    cache_block_size: int = 0
    """Tokens per KV block; 0 = unknown."""
    cache_num_blocks: int = 0
    """KV blocks in the server; 0 = unknown."""
    attributes: Mapping[str, object] = field(default_factory=lambda: _NOTHING)
    """What other extractors read, by their key: model lists, topology, custom scalars. Compared with ``==``."""
    started_s: float | None = None
    """When the server's process began, Unix time, as it says itself. A later one is another server at the same address."""


UNSCRAPED = EndpointMetrics()
"""The metrics of an endpoint that was never read."""


@dataclass(slots=True)
class Freshness:
    """When the metrics of an endpoint were last read. It moves with every scrape, also below a snapshot that stays.

    Written by the ``EndpointStore`` alone.
    """

    updated_s: float | None = None
    """``time.monotonic()`` of the last scrape that gave at least one value; None = never."""


class Api(StrEnum):
    """The request formats that parsers know."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    RESPONSES = "responses"
    CONVERSATIONS = "conversations"
    IMAGES = "images"
    MESSAGES = "messages"
    """Anthropic messages."""
    GENERATE = "generate"
    POOLING = "pooling"
    """Texts in, no text out: rerank, score, pooling, classify."""
    TOKENIZE = "tokenize"
    """Tokenize and detokenize."""
    AUDIO = "audio"
    """Speech, transcriptions, translations."""
    RAW = "raw"
    """Not parsed: passthrough, count_tokens, bodies that cannot be seen."""


class ErrorShape(StrEnum):
    """The JSON shape of an API family's error bodies."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    PLAIN = "plain"


@dataclass(slots=True)
class ParsedBody:
    """What a parser read from a request body."""

    api: Api
    outline: Mapping[str, Json] = field(default_factory=lambda: _NOTHING)
    """As ``document``, for those who do not look at the prompt: of a long body long texts and lists of token ids in it are cut
    to something that is not empty, except texts of members that are no prompts. Costs nothing. May be empty while the request
    waits in a queue."""
    model: str = ""
    """The name the client asked for; "" if missing."""
    streams: bool = False
    """The client asked for a streamed response."""
    output_cap: int | None = None
    """Upper bound of output tokens that the client set; None = unknown."""
    rewritable: bool = False
    """The model name can be replaced in the body."""
    model_span: tuple[int, int] | None = None
    """Start and end of the model name in a body that is no JSON, in bytes; None = the body is JSON."""
    usage_reader: str = ""
    """Name of the response reader that finds token counts; "" = none."""
    document_reader: str = ""
    """Name of the response reader that finds the response as one JSON document; "" = none."""
    skip_response: bool = False
    """Nobody needs the response: the stream is closed once the request is answered."""
    error_shape: ErrorShape = ErrorShape.PLAIN
    decode: Callable[[], Mapping[str, Json]] | None = None
    """Decodes the whole object, where the outline is cut."""
    decode_again: Callable[[memoryview], Mapping[str, Json]] | None = None
    """Makes the same outline of the bytes that were parsed; None = only a parser does, or the outline is cut."""

    @property
    def document(self) -> Mapping[str, Json]:
        """The decoded JSON object; empty for RAW. A long body is decoded when this is read first."""
        if self.decode is not None:
            self.outline, self.decode = self.decode(), None
        return self.outline


RAW_BODY = ParsedBody(Api.RAW)


class HeaderView(Protocol):
    """Read-only request or response headers, decoded on access."""

    def get(self, name: str) -> str | None:
        """The last value of ``name`` (lower case), or None."""
        ...

    def items(self) -> Iterator[tuple[str, str]]:
        """All pairs in wire order, names lower-cased, duplicates kept."""
        ...


@dataclass(slots=True)
class InferenceRequest:
    """One request as plugins see it; read-only for them."""

    request_id: str
    path: str
    headers: HeaderView
    body: ParsedBody
    model: str
    """The name that the client asked for; "" if it named none."""
    target_model: str
    """The name that is sent to the model server."""
    priority: int
    """From the InferenceObjective; negative = sheddable."""
    fairness_id: str
    size_bytes: int
    """Of the body as forwarded."""
    received_s: float
    """``time.monotonic()`` when its headers came."""
    data: RequestData
    """What data producers wrote for this request."""

    def with_data(self, more: Mapping[DataKey[Any], object]) -> InferenceRequest:
        """The same request with more data, which this one does not get.

        Raises:
            ValueError: one of the keys was written before.
        """
        return replace(self, data=self.data.overlaid(more))


class Cause(StrEnum):
    """Why a request is over. Source: llm-d-router, pkg/epp/framework/interface/requestcontrol."""

    NATURAL = "natural"
    CLIENT_DISCONNECT = "client-disconnect"
    EVICTED = "evicted"
    ERROR = "error"


class Usage(NamedTuple):
    """Token counts that the model server reported; 0 = not reported."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int | None = None
    """Prompt tokens that were in the prefix cache; None if the server does not say."""
    events: int = 0
    """``data`` events of a streamed response except ``[DONE]``; 0 for a JSON body."""
    found: bool = False
    """The server reported a usage."""


@dataclass(slots=True)
class ResponseInfo:
    """The response headers of a scheduled request."""

    status: int
    headers: HeaderView
    served: Endpoint
    """The endpoint that really answered if the data plane reports it, else the target."""
    metadata: Mapping[str, Mapping[str, object]]
    """Dynamic metadata that came with the response headers, by namespace."""
    at_s: float


@dataclass(slots=True)
class StreamingChunk:
    """One forwarded piece of a streaming response."""

    data: bytes
    end: bool
    at_s: float
    usage: Usage
    """So far."""


@dataclass(slots=True)
class Completion:
    """The end of a scheduled request, told exactly once."""

    cause: Cause
    status: int
    """HTTP status of the response; 0 if none came."""
    served: Endpoint
    usage: Usage
    length_known: bool
    """False when the response could not be seen to its end: learn no lengths from it."""
    ttft_s: float | None
    duration_s: float
    """From the request's headers to its end."""
    response_bytes: int
    streaming: bool
    metadata: dict[str, dict[str, object]] = field(default_factory=dict)
    """Dynamic metadata for the last answer, by namespace; hooks may add to it."""
    document: bytes | None = None
    """The response as one JSON document, from its body or from the last of its events; None if no declared plugin type
    reads it, the API has none, it was cut off, compressed or too large."""
