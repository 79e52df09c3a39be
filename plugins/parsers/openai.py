"""openai-parser: chat completions, completions, embeddings, responses, conversations, image generation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from epp.framework.handle import PluginContext
from epp.framework.interfaces import Parser, Role
from epp.framework.params import NoParams
from epp.framework.registry import PluginType
from epp.framework.types import Api, ErrorShape, HeaderView, ParsedBody
from plugins.parsers.json_body import all_token_ids, bad_request, decode_object, model_of, output_cap

TYPE = "openai-parser"

_UNDECODABLE = "error unmarshaling request bodyMap"
_PATH_CACHE_LIMIT = 256
Document = Mapping[str, object]


def _is_optional(document: Document, kinds: Mapping[str, type]) -> bool:
    """Every named member is missing, null, or of its kind."""
    for key, kind in kinds.items():
        value = document.get(key)
        if value is not None and type(value) is not kind:
            return False
    return True


_CHAT_OPTIONS: Mapping[str, type] = {
    "tools": list,
    "documents": list,
    "chat_template": str,
    "return_assistant_tokens_mask": bool,
    "continue_final_message": bool,
    "add_generation_prompt": bool,
    "chat_template_kwargs": dict,
    "cache_salt": str,
}
_SALT: Mapping[str, type] = {"cache_salt": str}
_MEDIA: Mapping[str, tuple[str, ...]] = {
    "image_url": ("url",),
    "video_url": ("url",),
    "input_audio": ("data", "format"),
}


def _is_chat(document: Document) -> bool:
    messages = document.get("messages")
    if type(messages) is not list or not messages or not all(map(_is_message, messages)):
        return False
    return _is_optional(document, _CHAT_OPTIONS)


def _is_message(message: object) -> bool:
    if type(message) is not dict:
        return False
    role = message.get("role")
    if role is not None and type(role) is not str:
        return False
    content = message.get("content")
    if content is not None and type(content) is not str and not (type(content) is list and all(map(_is_block, content))):
        return False
    calls = message.get("tool_calls")
    return calls is None or type(calls) is list


def _is_block(block: object) -> bool:
    if type(block) is not dict or not _is_optional(block, {"type": str, "text": str}):
        return False
    for key, members in _MEDIA.items():
        media = block.get(key)
        if media is None:
            continue
        if type(media) is not dict or not _is_optional(media, dict.fromkeys(members, str)):
            return False
    return True


def _is_text_or_tokens(value: object) -> bool:
    if type(value) is str:
        return value != ""
    if type(value) is not list or not value:
        return False
    return set(map(type, value)) == {str} or all_token_ids(value)


def _is_completion(document: Document) -> bool:
    return _is_text_or_tokens(document.get("prompt")) and _is_optional(document, _SALT)


def _is_embedding(document: Document) -> bool:
    return _is_text_or_tokens(document.get("input")) and _is_optional(document, _SALT)


def _is_response(document: Document) -> bool:
    return document.get("input") is not None and _is_optional(document, _SALT)


def _is_conversation(document: Document) -> bool:
    items = document.get("items")
    if type(items) is not list or not items or not all(map(_is_item, items)):
        return False
    return _is_optional(document, {"metadata": dict, "cache_salt": str})


def _is_item(item: object) -> bool:
    return type(item) is dict and _is_optional(item, {"type": str, "role": str})


def _is_image(document: Document) -> bool:
    prompt = document.get("prompt")
    if type(prompt) is not str or not prompt:
        return False
    return _is_optional(document, {"n": int, "size": str, "num_inference_steps": int})


class _Format:
    """One API: what it requires, and what is said if that is missing."""

    __slots__ = ("api", "caps", "document_reader", "failure", "is_valid", "usage_reader")

    def __init__(
        self,
        api: Api,
        is_valid: Callable[[Document], bool],
        failure: str,
        caps: Sequence[str],
        usage_reader: str = "openai-usage",
        document_reader: str = "",
    ) -> None:
        self.api = api
        self.is_valid = is_valid
        self.failure = failure
        self.caps = caps
        self.usage_reader = usage_reader
        self.document_reader = document_reader


_CHAT = _Format(
    Api.CHAT,
    _is_chat,
    "invalid chat completions request: must have valid messages field",
    ("max_completion_tokens", "max_tokens"),
)
_COMPLETIONS = _Format(Api.COMPLETIONS, _is_completion, "invalid completions request: must have prompt field", ("max_tokens",))
_EMBEDDINGS = _Format(Api.EMBEDDINGS, _is_embedding, "invalid embeddings request: must have input field", ())
_RESPONSES = _Format(
    Api.RESPONSES,
    _is_response,
    "invalid responses request: must have input field",
    ("max_output_tokens",),
    document_reader="openai-response",
)
_CONVERSATIONS = _Format(Api.CONVERSATIONS, _is_conversation, "invalid conversations request: must have items field", (), "")
_IMAGES = _Format(Api.IMAGES, _is_image, "invalid images generations request: must have prompt field", ())

_BY_SUFFIX = (
    ("conversations", _CONVERSATIONS),
    ("responses", _RESPONSES),
    ("chat/completions", _CHAT),
    ("chat/completions/render", _CHAT),
    ("completions", _COMPLETIONS),
    ("completions/render", _COMPLETIONS),
    ("embeddings", _EMBEDDINGS),
    ("images/generations", _IMAGES),
)


class OpenAIParser:
    """Read OpenAI request bodies.

    Parameters: none.
    Claims: ``chat/completions``, ``completions``, ``embeddings``, ``responses``, ``conversations``, ``images/generations``,
    and the ``render`` paths of the first two.
    Errors: 400 where a required member is missing or a read one has the wrong type; unknown members are ignored.
    Source: llm-d-router: pkg/epp/framework/plugins/requesthandling/parsers/openai/openai.go
    """

    paths = tuple(suffix for suffix, _ in _BY_SUFFIX)
    app_protocols = ("http", "kubernetes.io/h2c")

    def __init__(self) -> None:
        self._formats: dict[str, _Format] = {}

    def parse(self, path: str, headers: HeaderView, body: memoryview) -> ParsedBody:
        """Read one body.

        Raises:
            RequestError: BAD_REQUEST.
        """
        form = self._formats.get(path) or self._format(path)
        document = decode_object(body, _UNDECODABLE)
        if not form.is_valid(document):
            raise bad_request(form.failure)
        return ParsedBody(
            api=form.api,
            document=document,
            model=model_of(document),
            streams=document.get("stream") is True,
            output_cap=output_cap(document, form.caps),
            rewritable=True,
            usage_reader=form.usage_reader,
            document_reader=form.document_reader,
            error_shape=ErrorShape.OPENAI,
        )

    def _format(self, path: str) -> _Format:
        trimmed = path.strip("/ ")
        matches = [(len(s), form) for s, form in _BY_SUFFIX if trimmed == s or trimmed.endswith("/" + s)]
        form = max(matches, key=lambda match: match[0])[1] if matches else _COMPLETIONS
        if len(self._formats) < _PATH_CACHE_LIMIT:
            self._formats[path] = form
        return form


def _create(context: PluginContext, params: NoParams) -> Parser:
    return OpenAIParser()


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.PARSER}),
    summary="Reads OpenAI chat completions, completions, embeddings, responses, conversations and image generations.",
    factory=_create,
)
