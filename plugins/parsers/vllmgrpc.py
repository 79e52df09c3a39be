"""vllmgrpc-parser: vLLM's gRPC engine service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from epp.framework.grpc_frames import FrameError
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Parser, Role
from epp.framework.params import NoParams
from epp.framework.registry import PluginType
from epp.framework.types import Api, HeaderView, Json, ParsedBody
from plugins.parsers.grpc_message import UNREADABLE, read_message
from plugins.parsers.json_body import bad_request

if TYPE_CHECKING:
    from epp.framework.protos.vllm_engine_pb2 import EmbedRequest, GenerateRequest, MultimodalInputs

TYPE = "vllmgrpc-parser"
SERVICE = "vllm.grpc.engine.VllmEngine"
MODALITY = "image"
"""The protocol does not tell modalities apart. Source: llm-d-router, as below."""


class VllmGrpcParser:
    """Read calls of the service ``vllm.grpc.engine.VllmEngine``.

    Parameters: none.
    Claims: every method of that service.
    Reads: Generate: text or token ids, media, ``stream``, ``max_tokens``; Embed: token ids. Other methods are forwarded unread,
        and nobody waits for their responses. There is no model, and the body is forwarded as it came.
    Shows: Generate as completions, whose prompt is the text or the token ids, with the media as ``features`` of vLLM's own
        tokens-in API; Embed as embeddings.
    Errors: 400 where the body is not one message of the method, or has no input; 415 (UNIMPLEMENTED) where it is compressed.
    Source: vllm: vllm/grpc/vllm_engine.proto; llm-d-router:
        pkg/epp/framework/plugins/requesthandling/parsers/vllmgrpc/vllmgrpc.go
    """

    paths = (f"{SERVICE}/*",)
    app_protocols = ("kubernetes.io/h2c",)

    def __init__(self) -> None:
        from google.protobuf.message import DecodeError

        from epp.framework.protos import vllm_engine_pb2

        self._messages = vllm_engine_pb2
        self._malformed = DecodeError

    def parse(self, path: str, headers: HeaderView, body: memoryview) -> ParsedBody:
        """Read one body.

        Raises:
            RequestError: BAD_REQUEST, UNSUPPORTED_MEDIA_TYPE.
        """
        method = path.rpartition("/")[2]
        if method not in ("Generate", "Embed"):
            return ParsedBody(Api.RAW, skip_response=True)
        try:
            message = bytes(read_message(headers, body))
            if method == "Generate":
                return _generate(self._messages.GenerateRequest.FromString(message))
            return _embed(self._messages.EmbedRequest.FromString(message))
        except FrameError as error:
            raise bad_request(f"{UNREADABLE}: {error}") from error
        except self._malformed as error:
            raise bad_request(f"{UNREADABLE}: the message is no {method}Request") from error


def _generate(request: GenerateRequest) -> ParsedBody:
    which = request.WhichOneof("input")
    if which is None:
        raise bad_request("not supported request inputType")
    prompt: Json = request.text if which == "text" else list(request.tokenized.input_ids)
    document: dict[str, Json] = {"prompt": prompt}
    if features := _features(request.mm_inputs):
        document["features"] = features
    cap = request.sampling_params.max_tokens if request.sampling_params.HasField("max_tokens") else None
    return ParsedBody(Api.COMPLETIONS, document, streams=request.stream, output_cap=cap, usage_reader="vllm-grpc-usage")


def _embed(request: EmbedRequest) -> ParsedBody:
    if not request.HasField("tokenized"):
        raise bad_request("missing tokenized input in EmbedRequest")
    return ParsedBody(Api.EMBEDDINGS, {"input": list(request.tokenized.input_ids)}, usage_reader="vllm-grpc-embed-usage")


def _features(media: MultimodalInputs) -> dict[str, Json]:
    """Placeholders and hashes, one of each for every item; {} without placeholders."""
    placeholders: list[Json] = [{"offset": place.offset, "length": place.length} for place in media.mm_placeholders]
    if not placeholders:
        return {}
    hashes: list[Json] = list(media.mm_hashes)
    hashes += [""] * (len(placeholders) - len(hashes))
    return {"mm_placeholders": {MODALITY: placeholders}, "mm_hashes": {MODALITY: hashes[: len(placeholders)]}}


def _create(context: PluginContext, params: NoParams) -> Parser:
    return VllmGrpcParser()


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.PARSER}),
    summary="Reads Generate and Embed calls of vLLM's gRPC engine service.",
    factory=_create,
)
