"""vllmhttp-parser: vLLM's token-in generate endpoint."""

from __future__ import annotations

from epp.framework.handle import PluginContext
from epp.framework.interfaces import Parser, Role
from epp.framework.params import NoParams
from epp.framework.registry import PluginType
from epp.framework.types import Api, ErrorShape, HeaderView, ParsedBody
from plugins.parsers.json_body import bad_request, model_of, output_cap, read_object
from plugins.parsers.shapes import OBJECT, TEXT, TOKEN_IDS, members

TYPE = "vllmhttp-parser"
_OPTIONAL = members({"features": OBJECT, "sampling_params": OBJECT, "cache_salt": TEXT})


class VllmHttpParser:
    """Read vLLM generate bodies.

    Parameters: none.
    Claims: ``inference/v1/generate``.
    Errors: 400 without a list of token ids, or where a read member has the wrong type.
    Source: llm-d-router: pkg/epp/framework/plugins/requesthandling/parsers/vllmhttp/vllmhttp.go
    """

    paths = ("inference/v1/generate",)
    app_protocols = ("http", "kubernetes.io/h2c")

    def parse(self, path: str, headers: HeaderView, body: memoryview) -> ParsedBody:
        """Read one body.

        Raises:
            RequestError: BAD_REQUEST.
        """
        document, decode, decode_again = read_object(body, "error unmarshaling request body")
        if problem := TOKEN_IDS.problem(document.get("token_ids")):
            raise bad_request(f"invalid generate request: must have non-empty token_ids field: token_ids{problem}")
        if problem := _OPTIONAL.problem(document):
            raise bad_request(f"invalid generate request: {problem.removeprefix('.')}")
        sampling = document.get("sampling_params")
        return ParsedBody(
            api=Api.GENERATE,
            outline=document,
            model=model_of(document),
            streams=document.get("stream") is True,
            output_cap=output_cap(sampling, ("max_tokens",)) if isinstance(sampling, dict) else None,
            rewritable=True,
            usage_reader="openai-usage",
            error_shape=ErrorShape.OPENAI,
            decode=decode,
            decode_again=decode_again,
        )


def _create(context: PluginContext, params: NoParams) -> Parser:
    return VllmHttpParser()


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.PARSER}),
    summary="Reads vLLM's token-in generate requests.",
    factory=_create,
)
