"""vllmgrpc-parser: vLLM's gRPC engine service."""

from __future__ import annotations

from epp.framework.grpc_wire import WireError, fields, packed_uint32
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Parser, Role
from epp.framework.params import NoParams
from epp.framework.registry import PluginType
from epp.framework.types import Api, HeaderView, Json, ParsedBody
from plugins.parsers.grpc_message import UNREADABLE, read_message
from plugins.parsers.json_body import bad_request

TYPE = "vllmgrpc-parser"
SERVICE = "vllm.grpc.engine.VllmEngine"
MODALITY = "image"
"""The protocol does not tell modalities apart. Source: llm-d-router, as below."""

# Field numbers of vllm/grpc/vllm_engine.proto.
_TOKENIZED, _TEXT, _SAMPLING, _STREAM, _MEDIA = 2, 3, 4, 5, 7
_EMBED_TOKENIZED = 2
_INPUT_IDS = 2
_MAX_TOKENS = 8
_PLACEHOLDERS, _HASHES = 5, 6
_OFFSET, _LENGTH = 1, 2


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

    def parse(self, path: str, headers: HeaderView, body: memoryview) -> ParsedBody:
        """Read one body.

        Raises:
            RequestError: BAD_REQUEST, UNSUPPORTED_MEDIA_TYPE.
        """
        method = path.rpartition("/")[2]
        if method not in ("Generate", "Embed"):
            return ParsedBody(Api.RAW, skip_response=True)
        try:
            message = read_message(headers, body)
            return _generate(message) if method == "Generate" else _embed(message)
        except (WireError, UnicodeDecodeError) as error:
            raise bad_request(f"{UNREADABLE}: {error}") from error


def _generate(message: memoryview) -> ParsedBody:
    """GenerateRequest. The last of two inputs counts; the parts of a message that comes in parts are one."""
    text: str | None = None
    tokenized: bytes | None = None
    media = b""
    streams, cap = False, None
    for number, value in fields(message):
        if number == _STREAM:
            streams = bool(value)
        elif not isinstance(value, memoryview):
            continue
        elif number == _TEXT:
            text, tokenized = str(value, "utf-8"), None
        elif number == _TOKENIZED:
            text, tokenized = None, (tokenized or b"") + bytes(value)
        elif number == _SAMPLING:
            cap = _output_cap(value, cap)
        elif number == _MEDIA:
            media += bytes(value)
    if text is None and tokenized is None:
        raise bad_request("not supported request inputType")
    document: dict[str, Json] = {"prompt": text if tokenized is None else _token_ids(tokenized)}
    if features := _features(media):
        document["features"] = features
    return ParsedBody(Api.COMPLETIONS, document, streams=streams, output_cap=cap, usage_reader="vllm-grpc-usage")


def _embed(message: memoryview) -> ParsedBody:
    """EmbedRequest."""
    parts = [bytes(value) for number, value in fields(message) if number == _EMBED_TOKENIZED and isinstance(value, memoryview)]
    if not parts:
        raise bad_request("missing tokenized input in EmbedRequest")
    return ParsedBody(Api.EMBEDDINGS, {"input": _token_ids(b"".join(parts))}, usage_reader="vllm-grpc-embed-usage")


def _token_ids(tokenized: bytes) -> list[int]:
    """Ids of a TokenizedInput, packed or one by one."""
    ids: list[int] = []
    for number, value in fields(memoryview(tokenized)):
        if number != _INPUT_IDS:
            continue
        if isinstance(value, int):
            ids.append(value & 0xFFFFFFFF)
        else:
            ids.extend(packed_uint32(value))
    return ids


def _output_cap(sampling: memoryview, known: int | None) -> int | None:
    for number, value in fields(sampling):
        if number == _MAX_TOKENS and isinstance(value, int):
            known = value & 0xFFFFFFFF
    return known


def _features(media: bytes) -> dict[str, Json]:
    """Placeholders and hashes of a MultimodalInputs, one of each for every item; {} without placeholders."""
    placeholders: list[Json] = []
    hashes: list[Json] = []
    for number, value in fields(memoryview(media)):
        if not isinstance(value, memoryview):
            continue
        if number == _PLACEHOLDERS:
            numbers = dict(fields(value))
            placeholders.append({"offset": numbers.get(_OFFSET, 0), "length": numbers.get(_LENGTH, 0)})
        elif number == _HASHES:
            hashes.append(str(value, "utf-8"))
    if not placeholders:
        return {}
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
