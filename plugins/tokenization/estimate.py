"""Estimate: pseudo-tokens of four bytes each, without a model, and a guess of what media take.

Good for counting and for finding equal beginnings of prompts; no engine knows these tokens. Runs on the event loop, as it costs
little more than putting the texts together.
Source: llm-d-router: pkg/epp/framework/plugins/requestcontrol/dataproducer/tokenizer/estimate.go, with another hash of media
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b

import orjson

from epp.framework.keys import MediaFeature, TokenizedPrompt
from epp.framework.types import Api, Json, ParsedBody
from plugins.tokenization.chat import part_kind
from plugins.tokenization.from_anthropic import image_url, system_text, tool_result
from plugins.tokenization.media_size import MediaSizes, VideoFacts

BYTES_PER_TOKEN = 4
MOST_MEDIA_TOKENS = 1024 * 1024
"""Of all media of a prompt together, more than any context has: sizes are what clients say, and each token takes four bytes."""


class Estimate:
    """Turns a body into pseudo-tokens.

    Args:
        sizes: how many tokens media take.
    """

    def __init__(self, sizes: MediaSizes) -> None:
        self._sizes = sizes

    def tokenize(self, body: ParsedBody, video: VideoFacts) -> TokenizedPrompt | None:
        """The pseudo-tokens; None for a body without a prompt.

        Args:
            body: the request's.
            video: what its headers tell of its videos.
        """
        document = body.document
        match body.api:
            case Api.COMPLETIONS:
                return _of_texts(document.get("prompt"))
            case Api.EMBEDDINGS if document.get("input") is not None:
                return _of_bytes(_json(document["input"]))
            case Api.CONVERSATIONS if document.get("items") is not None:
                return _of_bytes(_json(document["items"]))
            case Api.RESPONSES:
                return _of_bytes(_json(_responses(document)))
            case Api.GENERATE:
                return _of_texts(document.get("text"))
            case Api.CHAT | Api.MESSAGES | Api.EMBEDDINGS:
                writer = _Writer()
                for piece in self._pieces(body, video):
                    writer.add(piece)
                return writer.prompt()
            case _:
                return None

    def _pieces(self, body: ParsedBody, video: VideoFacts) -> Iterator[bytes | _Asset]:
        document = body.document
        if tools := document.get("tools"):
            yield _json(tools)
        if body.api is Api.MESSAGES:
            yield _encoded(system_text(document.get("system")))
        for message in _dicts(document.get("messages")):
            yield _encoded(message.get("role"))
            content = message.get("content")
            if not isinstance(content, list):
                yield _encoded(content)
                continue
            for block in content:
                if isinstance(block, str):
                    yield _encoded(block)
                elif isinstance(block, dict):
                    yield from self._anthropic_block(block) if body.api is Api.MESSAGES else self._block(block, video)

    def _block(self, block: Mapping[str, Json], video: VideoFacts) -> Iterator[bytes | _Asset]:
        match part_kind(block):
            case "text":
                yield _encoded(block.get("text"))
            case "image_url":
                url = _url(block, "image_url")
                yield _Asset("image", url, self._sizes.image_tokens(url))
            case "video_url":
                yield _Asset("video", _url(block, "video_url"), self._sizes.video_tokens(video))
            case "audio_url":
                url = _url(block, "audio_url")
                yield _Asset("audio", url, self._sizes.audio_tokens(url))
            case "input_audio":
                audio = block.get("input_audio")
                members = audio if isinstance(audio, dict) else {}
                data = "".join(text for name in ("data", "format") if isinstance(text := members.get(name), str))
                yield _Asset("audio", data, self._sizes.audio_tokens(data))

    def _anthropic_block(self, block: Mapping[str, Json]) -> Iterator[bytes | _Asset]:
        match block.get("type"):
            case "text":
                yield _encoded(block.get("text"))
            case "thinking":
                yield _encoded(block.get("thinking"))
            case "image":
                yield from self._image(image_url(block.get("source")))
            case "tool_use":
                yield _encoded(block.get("id")) + _encoded(block.get("name")) + _json(block.get("input"))
            case "tool_result":
                text, images = tool_result(block)
                yield _encoded(text)
                for image in images:
                    yield from self._image(_url(image, "image_url"))

    def _image(self, url: str) -> Iterator[_Asset]:
        if url:
            yield _Asset("image", url, self._sizes.image_tokens(url))


class _Asset:
    """An image, a video or a sound: as many equal tokens as it takes, from a hash of its content."""

    __slots__ = ("digest", "length_tokens", "modality")

    def __init__(self, modality: str, content: str, length_tokens: int) -> None:
        self.modality = modality
        self.digest = blake2b(content.encode("utf-8", "replace"), digest_size=8).digest()
        self.length_tokens = length_tokens


class _Writer:
    """Puts texts and assets together; assets begin at a whole token."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._media: list[MediaFeature] = []
        self._left_tokens = MOST_MEDIA_TOKENS

    def add(self, piece: bytes | _Asset) -> None:
        """Append a text or an asset."""
        if isinstance(piece, bytes):
            self._bytes += piece
            return
        _pad(self._bytes)
        offset = len(self._bytes) // BYTES_PER_TOKEN
        length = max(min(piece.length_tokens, self._left_tokens), 1)
        self._left_tokens -= length
        self._bytes += piece.digest[:BYTES_PER_TOKEN] * length
        self._media.append(MediaFeature(piece.modality, piece.digest.hex(), offset, length))

    def prompt(self) -> TokenizedPrompt | None:
        """All as tokens; None if it is nothing."""
        return _of_bytes(self._bytes, tuple(self._media))


def _of_bytes(content: bytes | bytearray, media: tuple[MediaFeature, ...] = ()) -> TokenizedPrompt | None:
    return TokenizedPrompt(_tokens(content), is_exact=False, media=media) if content else None


def _of_texts(prompt: Json) -> TokenizedPrompt | None:
    """Several texts are sequences of their own."""
    texts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        return None
    first, *more = [_tokens(_encoded(text)) for text in texts]
    return TokenizedPrompt(first, is_exact=False, further=tuple(more)) if first or more else None


def _tokens(content: bytes | bytearray) -> Sequence[int]:
    """Numbers of four bytes, the last one filled up with zeros."""
    padded = bytearray(content)
    _pad(padded)
    return array("I", bytes(padded))


def _pad(content: bytearray) -> None:
    content += bytes(-len(content) % BYTES_PER_TOKEN)


def _responses(document: Mapping[str, Json]) -> list[Json]:
    before = [{name: document[name]} for name in ("instructions", "tools") if document.get(name) is not None]
    return [*before, {"input": document.get("input")}]


def _url(block: Mapping[str, Json], name: str) -> str:
    """An object with a URL, or the URL itself."""
    value = block.get(name)
    url = value.get("url") if isinstance(value, dict) else value
    return url if isinstance(url, str) else ""


def _encoded(text: Json) -> bytes:
    return text.encode("utf-8", "replace") if isinstance(text, str) else b""


def _json(value: Json) -> bytes:
    """JSON of a part of a body; nothing for one that is nested deeper than can be written, 254 levels: no prompt is."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return b""


def _dicts(items: Json) -> Iterator[Mapping[str, Json]]:
    return (item for item in items if isinstance(item, dict)) if isinstance(items, list) else iter(())
