"""Token usage of gRPC responses: vLLM's engine service, and Vertex AI's prediction service, which wraps OpenAI's JSON.

Every whole message of the body is looked at, however the chunks cut it; the last counts win. What cannot be read leaves the
usage as it was.

Source: vllm: vllm/grpc/vllm_engine.proto; googleapis: google/api/httpbody.proto; llm-d-router:
pkg/epp/framework/plugins/requesthandling/parsers/vllmgrpc and vertexai.
"""

from __future__ import annotations

from collections.abc import Callable

from epp.extproc.usage import OPENAI, Block, UsageReader, merge
from epp.framework.grpc_wire import FrameReader, WireError, fields
from epp.framework.types import Usage
from epp.seam import ResponseHead

_CHUNK, _COMPLETE = 1, 2
"""Fields of GenerateResponse, of which one is set; both hold prompt, completion and cached tokens, in this order."""
_FIRST_COUNT = {_CHUNK: 2, _COMPLETE: 3}
_EMBED_PROMPT_TOKENS = 2
_BODY_DATA = 2
"""Field of google.api.HttpBody."""


class VllmUsage:
    """Usage in the messages of a vLLM engine.

    Args:
        block: reads one message.
    """

    __slots__ = ("_block", "_events", "_frames", "_usage")

    def __init__(self, block: Callable[[memoryview], tuple[Block | None, bool]]) -> None:
        self._block = block
        self._frames = FrameReader()
        self._usage = Usage()
        self._events = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body."""
        for message in self._frames.feed(data):
            try:
                block, is_event = self._block(memoryview(message))
            except WireError:
                continue
            self._events += is_event
            self._usage = merge(self._usage, block)

    def result(self) -> Usage:
        """The usage so far."""
        return self._usage._replace(events=self._events)


class VertexUsage:
    """Usage in the OpenAI documents or events that HttpBody messages carry."""

    __slots__ = ("_events", "_frames", "_head", "_usage")

    def __init__(self, head: ResponseHead) -> None:
        self._head = head
        self._frames = FrameReader()
        self._usage = Usage()
        self._events: UsageReader | None = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body."""
        for message in self._frames.feed(data):
            try:
                self._read(_http_body(memoryview(message)))
            except WireError:
                continue

    def result(self) -> Usage:
        """The usage so far."""
        return self._usage if self._events is None else self._events.result()

    def _read(self, content: bytes) -> None:
        """One message holds a whole document; events go on from one message to the next."""
        if self._events is None and content.lstrip().startswith(b"{"):
            document = UsageReader(OPENAI, self._head)
            document.feed(content)
            found = document.result()
            if found.found:
                self._usage = found
            return
        if self._events is None:
            self._events = UsageReader(OPENAI, self._head)
        self._events.feed(content)


def vllm_generate_usage(_head: ResponseHead) -> VllmUsage:
    """Reader of VllmEngine/Generate."""
    return VllmUsage(_generated)


def vllm_embed_usage(_head: ResponseHead) -> VllmUsage:
    """Reader of VllmEngine/Embed."""
    return VllmUsage(_embedded)


def vertexai_usage(head: ResponseHead) -> VertexUsage:
    """Reader of PredictionService."""
    return VertexUsage(head)


def _generated(message: memoryview) -> tuple[Block | None, bool]:
    block, is_chunk = None, False
    for number, part in fields(message):
        first = _FIRST_COUNT.get(number)
        if first is not None and isinstance(part, memoryview):
            is_chunk = is_chunk or number == _CHUNK
            block = _counts(part, first) or block
    return block, is_chunk


def _counts(part: memoryview, first: int) -> Block | None:
    """Three fields from ``first`` on; engines leave them out until they know them."""
    counts = [0, 0, 0]
    for number, value in fields(part):
        if 0 <= number - first < len(counts) and isinstance(value, int):
            counts[number - first] = value
    prompt, completion, cached = counts
    return Block(prompt, completion, 0, cached) if prompt or completion else None


def _embedded(message: memoryview) -> tuple[Block | None, bool]:
    for number, value in fields(message):
        if number == _EMBED_PROMPT_TOKENS and isinstance(value, int) and value:
            return Block(value, 0, 0, None), False
    return None, False


def _http_body(message: memoryview) -> bytes:
    data = b""
    for number, value in fields(message):
        if number == _BODY_DATA and isinstance(value, memoryview):
            data = bytes(value)
    return data
