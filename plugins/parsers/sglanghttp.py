"""sglanghttp-parser: SGLang's native generate requests."""

from __future__ import annotations

from epp.framework.handle import PluginContext
from epp.framework.interfaces import Parser, Role
from epp.framework.params import NoParams
from epp.framework.registry import PluginType
from epp.framework.types import Api, HeaderView, ParsedBody
from plugins.parsers.json_body import all_token_ids, bad_request, decode_object, output_cap

TYPE = "sglanghttp-parser"
PATH = "generate"


class SglangHttpParser:
    """Read SGLang generate bodies.

    Parameters: none.
    Claims: ``generate``, and reads it only as the whole path; other paths that end so are answered with 400.
    Reads: ``input_ids``, ``extra_key``, ``stream``, ``sampling_params.max_new_tokens``. There is no model, and the body is
        forwarded as it came.
    Errors: 400 without a list of token ids, or where ``extra_key`` is no string.
    Source: llm-d-router: pkg/epp/framework/plugins/requesthandling/parsers/sglanghttp/sglanghttp.go
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
        document = decode_object(body, "invalid generate request")
        ids = document.get("input_ids")
        if ids is None:
            raise bad_request("invalid generate request: input_ids must be provided")
        if not isinstance(document.get("extra_key"), (str, type(None))):
            raise bad_request("unsupported generate request: extra_key must be a string")
        if ids == []:
            raise bad_request("invalid generate request: input_ids cannot be empty")
        if not isinstance(ids, list) or not all_token_ids(ids):
            raise bad_request("invalid generate request: input_ids must be an array of uint32 integers")
        sampling = document.get("sampling_params")
        return ParsedBody(
            api=Api.GENERATE,
            document=document,
            streams=document.get("stream") is True,
            output_cap=output_cap(sampling, ("max_new_tokens",)) if isinstance(sampling, dict) else None,
            usage_reader="sglang-usage",
        )


def _create(context: PluginContext, params: NoParams) -> Parser:
    return SglangHttpParser()


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.PARSER}),
    summary="Reads SGLang's native generate requests.",
    factory=_create,
)
