"""Token usage of gRPC responses: vLLM's engine service, and Vertex AI's prediction service, which wraps OpenAI's JSON.

Every whole message of the body is looked at, however the chunks cut it; the last counts win. What cannot be read leaves the
usage as it was.

Source: vllm: vllm/grpc/vllm_engine.proto; googleapis: google/api/httpbody.proto; llm-d-router:
pkg/epp/framework/plugins/requesthandling/parsers/vllmgrpc and vertexai.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from epp.extproc.usage import OPENAI, Block, UsageReader, merge
from epp.framework.grpc_frames import FrameReader
from epp.framework.types import Usage
from epp.seam import ResponseHead

if TYPE_CHECKING:
    from epp.framework.protos.vllm_engine_pb2 import GenerateComplete, GenerateStreamChunk


class VllmUsage:
    """Usage in the messages of a vLLM engine.

    Args:
        block: reads one message.
    """

    __slots__ = ("_block", "_events", "_frames", "_malformed", "_usage")

    def __init__(self, block: Callable[[bytes], tuple[Block | None, bool]]) -> None:
        from google.protobuf.message import DecodeError

        self._malformed = DecodeError
        self._block = block
        self._frames = FrameReader()
        self._usage = Usage()
        self._events = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body."""
        for message in self._frames.feed(data):
            try:
                block, is_event = self._block(message)
            except self._malformed:
                continue
            self._events += is_event
            self._usage = merge(self._usage, block)

    def result(self) -> Usage:
        """The usage so far."""
        return self._usage._replace(events=self._events)


class VertexUsage:
    """Usage in the OpenAI documents or events that HttpBody messages carry."""

    __slots__ = ("_body", "_events", "_frames", "_head", "_malformed", "_usage")

    def __init__(self, head: ResponseHead) -> None:
        from google.protobuf.message import DecodeError

        from epp.framework.protos.vertexai_pb2 import HttpBody

        self._malformed = DecodeError
        self._body = HttpBody
        self._head = head
        self._frames = FrameReader()
        self._usage = Usage()
        self._events: UsageReader | None = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body."""
        for message in self._frames.feed(data):
            try:
                self._read(self._body.FromString(message).data)
            except self._malformed:
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
    from epp.framework.protos.vllm_engine_pb2 import GenerateResponse

    def generated(message: bytes) -> tuple[Block | None, bool]:
        response = GenerateResponse.FromString(message)
        which = response.WhichOneof("response")
        if which is None:
            return None, False
        return _counts(response.chunk if which == "chunk" else response.complete), which == "chunk"

    return VllmUsage(generated)


def vllm_embed_usage(_head: ResponseHead) -> VllmUsage:
    """Reader of VllmEngine/Embed."""
    from epp.framework.protos.vllm_engine_pb2 import EmbedResponse

    def embedded(message: bytes) -> tuple[Block | None, bool]:
        tokens = EmbedResponse.FromString(message).prompt_tokens
        return (Block(tokens, 0, 0, None) if tokens else None), False

    return VllmUsage(embedded)


def vertexai_usage(head: ResponseHead) -> VertexUsage:
    """Reader of PredictionService."""
    return VertexUsage(head)


def _counts(part: GenerateStreamChunk | GenerateComplete) -> Block | None:
    """Engines leave the counts out until they know them."""
    prompt, completion = part.prompt_tokens, part.completion_tokens
    return Block(prompt, completion, 0, part.cached_tokens) if prompt or completion else None
