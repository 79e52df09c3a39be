"""openai-parser: the OpenAI APIs as vLLM and SGLang serve them."""

from __future__ import annotations

from epp.framework.handle import PluginContext
from epp.framework.interfaces import Parser, Role
from epp.framework.params import NoParams
from epp.framework.registry import PluginType
from epp.framework.types import ErrorShape, HeaderView, ParsedBody
from plugins.parsers import lenient_forms, openai_forms
from plugins.parsers.json_body import bad_request, model_of, output_cap, read_object
from plugins.parsers.lenient_forms import LenientForm
from plugins.parsers.openai_forms import Form

TYPE = "openai-parser"

_UNDECODABLE = "error unmarshaling request bodyMap"
_PATH_CACHE_LIMIT = 256
_BY_SUFFIX: dict[str, Form | LenientForm] = {**openai_forms.BY_SUFFIX, **lenient_forms.BY_SUFFIX}


class OpenAIParser:
    """Read OpenAI request bodies.

    Parameters: none.
    Claims: ``chat/completions``, ``completions``, ``embeddings``, ``responses``, ``conversations``, ``images/generations``,
        and the ``render`` paths of the first two; and of other APIs of the same servers ``rerank``, ``score``, ``pooling``,
        ``classify``, ``tokenize``, ``detokenize``, ``audio/speech``, ``audio/transcriptions``, ``audio/translations``,
        ``images/edits``, ``images/variations``.
    Reads: of the other APIs model and text, from JSON or a form.
    Errors: 400 where a required member is missing or a read one is what no engine accepts, with its place and what it may be;
        unknown members are ignored. Of the other APIs no body is refused.
    Source: llm-d-router: pkg/epp/framework/plugins/requesthandling/parsers/openai/openai.go
    """

    paths = tuple(_BY_SUFFIX)
    app_protocols = ("http", "kubernetes.io/h2c")

    def __init__(self) -> None:
        self._forms: dict[str, Form | LenientForm] = {}

    def parse(self, path: str, headers: HeaderView, body: memoryview) -> ParsedBody:
        """Read one body.

        Raises:
            RequestError: BAD_REQUEST.
        """
        form = self._forms.get(path) or self._form(path)
        if isinstance(form, LenientForm):
            return lenient_forms.read(form, headers, body)
        document, decode, decode_again = read_object(body, _UNDECODABLE)
        if problem := form.problem(document):
            raise bad_request(f"{form.failure}: {problem}")
        return ParsedBody(  # by position, in their order: by name it takes twice as long
            form.api,
            document,
            model_of(document),
            document.get("stream") is True,
            output_cap(document, form.caps),
            True,
            None,
            form.usage_reader,
            form.document_reader,
            False,
            ErrorShape.OPENAI,
            decode,
            decode_again,
        )

    def _form(self, path: str) -> Form | LenientForm:
        trimmed = path.strip("/ ")
        suffixes = [suffix for suffix in _BY_SUFFIX if trimmed == suffix or trimmed.endswith("/" + suffix)]
        form = _BY_SUFFIX[max(suffixes, key=len)] if suffixes else openai_forms.COMPLETIONS
        if len(self._forms) < _PATH_CACHE_LIMIT:
            self._forms[path] = form
        return form


def _create(context: PluginContext, params: NoParams) -> Parser:
    return OpenAIParser()


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.PARSER}),
    summary="Reads OpenAI chat completions, completions, embeddings, responses, conversations and image generations.",
    factory=_create,
)
