"""sglanghttp-parser: SGLang's native generate requests."""

from __future__ import annotations

from epp.framework.handle import PluginContext
from epp.framework.interfaces import Parser, Role
from epp.framework.params import NoParams
from epp.framework.registry import PluginType
from epp.framework.types import Api, HeaderView, ParsedBody
from plugins.parsers.json_body import all_token_ids, bad_request, output_cap, read_object
from plugins.parsers.shapes import TEXT, TOKEN_IDS, Shape, either, list_of, members

TYPE = "sglanghttp-parser"
PATH = "generate"


class SglangHttpParser:
    """Read SGLang generate bodies.

    Parameters: none.
    Claims: ``generate``, and reads it only as the whole path; other paths that end so are answered with 400.
    Reads: ``input_ids`` and ``text``, of one prompt or of several, ``extra_key``, ``stream``,
        ``sampling_params.max_new_tokens``. There is no model, and the body is forwarded as it came.
    Errors: 400 without token ids, text or embeddings, or where one of them or ``extra_key`` has the wrong type.
    Source: sglang: python/sglang/srt/managers/io_struct.py, GenerateReqInput; llm-d-router:
        pkg/epp/framework/plugins/requesthandling/parsers/sglanghttp/sglanghttp.go
    """

    paths = (PATH,)
    app_protocols = ("http", "kubernetes.io/h2c")

    def parse(self, path: str, headers: HeaderView, body: memoryview) -> ParsedBody:
        """Read one body.

        Raises:
            RequestError: BAD_REQUEST.
        """
        if path.strip("/ ") != PATH:
            raise bad_request(f"unsupported path: {path}")
        document, decode, decode_again = read_object(body, "invalid generate request")
        if all(document.get(name) is None for name in _INPUTS):
            raise bad_request("invalid generate request: input_ids must be provided, or text, or input_embeds")
        if document.get("input_ids") == []:
            raise bad_request("invalid generate request: input_ids cannot be empty")
        if problem := _EXTRA_KEY.problem(document):
            raise bad_request(f"unsupported generate request: {problem.removeprefix('.')}")
        if problem := _INPUT.problem(document):
            raise bad_request(f"invalid generate request: {problem.removeprefix('.')}")
        sampling = document.get("sampling_params")
        return ParsedBody(
            api=Api.GENERATE,
            outline=document,
            streams=document.get("stream") is True,
            output_cap=_output_cap(sampling if isinstance(sampling, list) else [sampling]),
            usage_reader="sglang-usage",
            decode=decode,
            decode_again=decode_again,
        )


def _input_ids(values: list[object]) -> str:
    """Token ids, or a list of them for each prompt."""
    if values and type(values[0]) is list:
        return _BATCH.problem(values)
    return "" if all_token_ids(values) else " must be an array of uint32 integers, or several of them"


def _output_cap(sampling: list[object]) -> int | None:
    """The sum over all prompts; None if one of them has no limit."""
    caps = [output_cap(each, ("max_new_tokens",)) if isinstance(each, dict) else None for each in sampling]
    known = [cap for cap in caps if cap is not None]
    return sum(known) if known and len(known) == len(caps) else None


_INPUTS = ("input_ids", "text", "input_embeds")
_BATCH = list_of(TOKEN_IDS, "a list of lists of token ids")
_TEXTS = either("a string or a list of strings", TEXT, list_of(TEXT, "a list of strings"))
_EXTRA_KEY = members({"extra_key": _TEXTS})
_INPUT = members(
    {
        "input_ids": Shape("an array of uint32 integers, or several of them", {list: _input_ids}),
        "text": _TEXTS,
    }
)


def _create(context: PluginContext, params: NoParams) -> Parser:
    return SglangHttpParser()


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.PARSER}),
    summary="Reads SGLang's native generate requests.",
    factory=_create,
)
