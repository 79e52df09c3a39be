"""The Anthropic API of a simulated server: messages and the counting of their tokens."""

from __future__ import annotations

from aiohttp import web

from epp.simulate.blocks import tokens_of
from epp.simulate.driver import Generation
from epp.simulate.exchange import Exchange, Json, event
from epp.simulate.prompts import messages_prompt
from epp.simulate.sequence import Sequence
from epp.simulate.service import Service, is_true, news

_STOP_REASONS = {"length": "max_tokens", "stop": "end_turn"}


async def messages(service: Service, exchange: Exchange) -> web.StreamResponse:
    """``POST /v1/messages``."""
    body = await exchange.json()
    model = service.model(body)
    limit = service.limit(body, "max_tokens")
    stop_reason = _STOP_REASONS[limit.finish]
    message: Json = {"id": service.new_id("msg_"), "type": "message", "role": "assistant", "model": model}
    with service.generate(exchange, model, [messages_prompt(body)], limit, body) as work:
        if is_true(body, "stream"):
            return await _stream(exchange, message, work, stop_reason)
        await work.finish()
        offer = service.offer(exchange, work)
    (sequence,) = work.sequences
    content = [{"type": "text", "text": sequence.answer.decode()}]
    end = {"stop_reason": stop_reason, "stop_sequence": None, "usage": _usage(sequence)}
    return await exchange.reply({**message, "content": content, **end, **offer})


async def count_tokens(service: Service, exchange: Exchange) -> web.StreamResponse:
    """``POST /v1/messages/count_tokens``."""
    body = await exchange.json()
    service.model(body)
    return await exchange.reply({"input_tokens": max(1, tokens_of(len(messages_prompt(body))))})


def _usage(sequence: Sequence) -> Json:
    """``input_tokens`` is the whole prompt, as vLLM reports it, not only its uncached part."""
    return {
        "input_tokens": sequence.prompt_tokens, "output_tokens": sequence.produced,
        "cache_creation_input_tokens": 0, "cache_read_input_tokens": sequence.cached_tokens,
    }  # fmt: skip


async def _stream(exchange: Exchange, message: Json, work: Generation, stop_reason: str) -> web.StreamResponse:
    (sequence,) = work.sequences
    stream = await exchange.stream()
    sent = 0
    going = True
    while going:
        going = await work.progress()
        tokens = news(sequence, sent)
        data = b"".join([_DELTA % token for token in tokens])
        if not sent:  # usage is known once the request has left the queue
            data = _begin(message, sequence) + data
        sent += len(tokens)
        await stream.write(data, sequence.produced / sequence.answer_tokens)
    delta = {"stop_reason": stop_reason, "stop_sequence": None}
    return await stream.end(
        _named({"type": "content_block_stop", "index": 0})
        + _named({"type": "message_delta", "delta": delta, "usage": {"output_tokens": sequence.produced}})
        + _named({"type": "message_stop"})
    )


def _begin(message: Json, sequence: Sequence) -> bytes:
    start = {**message, "content": [], "stop_reason": None, "stop_sequence": None, "usage": _usage(sequence)}
    block = {"type": "text", "text": ""}
    return (
        _named({"type": "message_start", "message": start})
        + _named({"type": "content_block_start", "index": 0, "content_block": block})
        + _named({"type": "ping"})
    )


def _named(body: Json) -> bytes:
    return event(body, body["type"])


_DELTA = _named({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "TOKEN"}}).replace(
    b"TOKEN", b"%b"
)
