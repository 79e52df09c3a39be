"""The OpenAI API of a simulated server: chat completions, completions, embeddings."""

from __future__ import annotations

import base64
import random
import struct
import time
import zlib
from collections.abc import Sequence as Many
from dataclasses import dataclass

import orjson
from aiohttp import web

from epp.simulate.driver import Generation
from epp.simulate.exchange import Exchange, Json, bad_request, event
from epp.simulate.prompts import chat_prompt, text_prompts
from epp.simulate.sequence import Sequence
from epp.simulate.service import Limit, Service, is_true, news, whole_number

_DONE = b"data: [DONE]\n\n"
_DIMENSIONS = 64
_NOTHING = Limit(0, "stop")


@dataclass(frozen=True, slots=True)
class _Answer:
    """What all parts of one answer have in common."""

    id: str
    created: int
    model: str
    chat: bool
    finish: str
    usage_at_end: bool
    usage_in_each: bool

    def envelope(self, kind: str, choices: list[Json]) -> Json:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}


async def chat_completions(service: Service, exchange: Exchange) -> web.StreamResponse:
    """``POST /v1/chat/completions``."""
    body = await exchange.json()
    limit = service.limit(body, "max_completion_tokens", "max_tokens")
    return await _generate(service, exchange, body, [chat_prompt(body)], limit)


async def completions(service: Service, exchange: Exchange) -> web.StreamResponse:
    """``POST /v1/completions``; several prompts give several choices."""
    body = await exchange.json()
    return await _generate(
        service, exchange, body, text_prompts(body.get("prompt"), "prompt"), service.limit(body, "max_tokens")
    )


async def embeddings(service: Service, exchange: Exchange) -> web.StreamResponse:
    """``POST /v1/embeddings``; equal texts have equal vectors."""
    body = await exchange.json()
    model = service.model(body)
    encoding = body.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise bad_request("encoding_format must be float or base64", "encoding_format")
    salt = {"cache_salt": body.get("cache_salt")}
    dimensions = whole_number(body, "dimensions", _DIMENSIONS, 1, 8192)
    with service.generate(exchange, model, text_prompts(body.get("input"), "input"), _NOTHING, salt) as work:
        await work.finish()
    data = [
        {"object": "embedding", "index": index, "embedding": _vector(sequence.prompt, dimensions, encoding)}
        for index, sequence in enumerate(work.sequences)
    ]
    tokens = sum(sequence.prompt_tokens for sequence in work.sequences)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0, "prompt_tokens_details": None}
    reply = {"id": service.new_id("embd-"), "object": "list", "created": int(time.time()), "model": model}
    return await exchange.reply({**reply, "data": data, "usage": usage})


def usage_of(sequences: Many[Sequence], choices: int = 1) -> Json:
    """The ``usage`` object; the choices of one prompt count it once."""
    prompts = sequences[::choices]
    prompt = sum(s.prompt_tokens for s in prompts)
    completion = sum(s.produced for s in sequences)
    cached = sum(s.cached_tokens for s in prompts)
    return {
        "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }  # fmt: skip


async def _generate(service: Service, exchange: Exchange, body: Json, prompts: list[bytes], limit: Limit) -> web.StreamResponse:
    model = service.model(body)
    choices = whole_number(body, "n", 1, 1, 128)
    stream = is_true(body, "stream")
    options = body.get("stream_options") or {}
    if not isinstance(options, dict) or (options and not stream):
        raise bad_request("stream_options must be an object and needs stream: true", "stream_options")
    chat = exchange.request.path.endswith("/chat/completions")
    answer = _Answer(
        id=service.new_id("chatcmpl-" if chat else "cmpl-"),
        created=int(time.time()),
        model=model,
        chat=chat,
        finish=limit.finish,
        usage_at_end=is_true(options, "include_usage"),
        usage_in_each=is_true(options, "continuous_usage_stats"),
    )
    with service.generate(exchange, model, prompts, limit, body, choices) as work:
        if stream:
            return await _stream(exchange, answer, work, choices)
        await work.finish()
        offer = service.offer(exchange, work)
    kind = "chat.completion" if chat else "text_completion"
    parts = [_choice(answer, index, sequence) for index, sequence in enumerate(work.sequences)]
    return await exchange.reply({**answer.envelope(kind, parts), "usage": usage_of(work.sequences, choices), **offer})


def _choice(answer: _Answer, index: int, sequence: Sequence) -> Json:
    text = sequence.answer.decode()
    said: Json = {"message": {"role": "assistant", "content": text, "refusal": None}} if answer.chat else {"text": text}
    return {"index": index, **said, "logprobs": None, "finish_reason": answer.finish}


async def _stream(exchange: Exchange, answer: _Answer, work: Generation, choices: int) -> web.StreamResponse:
    stream = await exchange.stream()
    chunks = [_Chunks(answer, index, sequence) for index, sequence in enumerate(work.sequences)]
    total = sum(s.answer_tokens for s in work.sequences)
    going = True
    while going:
        going = await work.progress()
        usage = usage_of(work.sequences, choices) if answer.usage_in_each else None
        data = b"".join([part.news(usage) for part in chunks])
        await stream.write(data, sum(s.produced for s in work.sequences) / total)
    tail = _DONE
    if answer.usage_at_end:
        last = {**answer.envelope(chunks[0].kind, []), "usage": usage_of(work.sequences, choices)}
        tail = event(last) + _DONE
    return await stream.end(tail)


class _Chunks:
    """The events of one choice. All but the text is written once: a token costs one concatenation."""

    def __init__(self, answer: _Answer, index: int, sequence: Sequence) -> None:
        self.kind = "chat.completion.chunk" if answer.chat else "text_completion"
        self._answer = answer
        self._index = index
        self._sequence = sequence
        self._sent = 0
        self._head, self._tail = orjson.dumps(self._body("\0", None)).split(rb"\u0000")

    def news(self, usage: Json | None) -> bytes:
        """Events for what came since the last call; with ``usage`` in each of them if wanted."""
        tokens = news(self._sequence, self._sent)
        if not tokens:
            return b""
        events = []
        if not self._sent and self._answer.chat:
            events.append(self._event(self._body("", None, role="assistant"), usage))
        tail = self._tail if usage is None else self._tail[:-1] + b',"usage":' + orjson.dumps(usage) + b"}"
        events += [b"data: %b%b%b\n\n" % (self._head, token, tail) for token in tokens]
        self._sent += len(tokens)
        if not self._sequence.remaining:
            events.append(self._event(self._body("", self._answer.finish), usage))
        return b"".join(events)

    def _body(self, text: str, finish: str | None, role: str | None = None) -> Json:
        delta = {"role": role, "content": text} if role else {"content": text} if finish is None else {}
        said: Json = {"delta": delta} if self._answer.chat else {"text": text}
        choice = {"index": self._index, **said, "logprobs": None, "finish_reason": finish}
        return self._answer.envelope(self.kind, [choice])

    @staticmethod
    def _event(body: Json, usage: Json | None) -> bytes:
        return event(body if usage is None else {**body, "usage": usage})


def _vector(text: bytes, dimensions: int, encoding: str) -> list[float] | str:
    rng = random.Random(zlib.crc32(text))
    raw = [rng.gauss(0.0, 1.0) for _ in range(dimensions)]
    norm = sum(value * value for value in raw) ** 0.5
    values = [value / norm for value in raw]
    if encoding == "float":
        return values
    return base64.b64encode(struct.pack(f"<{dimensions}f", *values)).decode()
