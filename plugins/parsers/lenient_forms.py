"""APIs whose bodies are read as far as that goes and never refused: pooling, tokenizing, audio, edits of images.

Their bodies differ from engine to engine, and what the picker wants of them is little: the model's name, to route and to
replace it, and the text, to estimate its length. Without a name nothing is replaced, because engines do not ask for one here.
Source: vllm: vllm/entrypoints/pooling, vllm/entrypoints/serve/tokenize; sglang:
python/sglang/srt/entrypoints/openai/protocol.py; OpenAI API reference, "Audio" and "Images"
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from epp.errors import RequestError
from epp.framework.types import Api, ErrorShape, HeaderView, ParsedBody
from plugins.parsers.json_body import decode_object, model_of
from plugins.parsers.multipart import form_fields


class LenientForm(NamedTuple):
    """The bodies of one API."""

    api: Api
    usage_reader: str = ""


_POOLING = LenientForm(Api.POOLING, "openai-usage")
_TOKENIZE = LenientForm(Api.TOKENIZE)
_AUDIO = LenientForm(Api.AUDIO)
_EDITS = LenientForm(Api.IMAGES)

BY_SUFFIX: Mapping[str, LenientForm] = {
    "rerank": _POOLING,
    "score": _POOLING,
    "pooling": _POOLING,
    "classify": _POOLING,
    "tokenize": _TOKENIZE,
    "detokenize": _TOKENIZE,
    "audio/speech": _AUDIO,
    "audio/transcriptions": _AUDIO,
    "audio/translations": _AUDIO,
    "images/edits": _EDITS,
    "images/variations": _EDITS,
}
_FIELDS = frozenset({"model", "prompt", "stream"})
"""Of a form; the others are files and settings that only the engine reads."""
_UNREAD = ParsedBody(Api.RAW, error_shape=ErrorShape.OPENAI)


def read(form: LenientForm, headers: HeaderView, body: memoryview) -> ParsedBody:
    """What can be read of one body; all of it stays unread if it is neither JSON nor a form."""
    content_type = headers.get("content-type") or ""
    if content_type.lower().startswith("multipart/form-data"):
        return _read_fields(form, content_type, body)
    try:
        document = decode_object(body, "")
    except RequestError:
        return _UNREAD
    model = model_of(document)
    return ParsedBody(
        api=form.api,
        outline=document,
        model=model,
        streams=document.get("stream") is True,
        rewritable=bool(model),
        usage_reader=form.usage_reader,
        error_shape=ErrorShape.OPENAI,
    )


def _read_fields(form: LenientForm, content_type: str, body: memoryview) -> ParsedBody:
    spans = form_fields(content_type, body, _FIELDS)
    document = {name: str(body[start:end], "utf-8", "replace") for name, (start, end) in spans.items()}
    model = document.get("model", "")
    return ParsedBody(
        api=form.api,
        outline=document,
        model=model,
        streams=document.get("stream") == "true",
        rewritable=bool(model),
        model_span=spans.get("model"),
        usage_reader=form.usage_reader,
        error_shape=ErrorShape.OPENAI,
    )
