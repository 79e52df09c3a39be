"""The OpenAI Responses API of a simulated server."""

from __future__ import annotations

import time

from aiohttp import web

from epp.simulate.driver import Generation
from epp.simulate.exchange import EventStream, Exchange, Json, event
from epp.simulate.prompts import responses_prompt
from epp.simulate.sequence import Sequence
from epp.simulate.service import Limit, Service, is_true, news


async def responses(service: Service, exchange: Exchange) -> web.StreamResponse:
    """``POST /v1/responses``."""
    body = await exchange.json()
    model = service.model(body)
    limit = service.limit(body, "max_output_tokens")
    response = _response(service, body, model)
    item_id = service.new_id("msg_")
    with service.generate(exchange, model, [responses_prompt(body)], limit, body) as work:
        if is_true(body, "stream"):
            return await _Stream(await exchange.stream(), response, item_id, limit).run(work)
        await work.finish()
        offer = service.offer(exchange, work)
    return await exchange.reply({**_finished(response, item_id, work.sequences[0], limit), **offer})


def _response(service: Service, body: Json, model: str) -> Json:
    """The response object before anything was said."""
    limit = body.get("max_output_tokens")
    return {
        "id": service.new_id("resp_"), "object": "response", "created_at": int(time.time()), "model": model,
        "status": "in_progress", "error": None, "incomplete_details": None, "instructions": body.get("instructions"),
        "max_output_tokens": limit, "metadata": body.get("metadata") or {}, "output": [], "parallel_tool_calls": True,
        "previous_response_id": body.get("previous_response_id"), "temperature": 1.0, "top_p": 1.0,
        "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": body.get("tools") or [],
        "truncation": "disabled", "usage": None,
    }  # fmt: skip


def _finished(response: Json, item_id: str, sequence: Sequence, limit: Limit) -> Json:
    cut = limit.finish == "length"
    status = "incomplete" if cut else "completed"
    usage = {
        "input_tokens": sequence.prompt_tokens, "input_tokens_details": {"cached_tokens": sequence.cached_tokens},
        "output_tokens": sequence.produced, "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": sequence.prompt_tokens + sequence.produced,
    }  # fmt: skip
    details = {"reason": "max_output_tokens"} if cut else None
    output = [_item(item_id, status, [_part(sequence.answer.decode())])]
    return {**response, "status": status, "incomplete_details": details, "output": output, "usage": usage}


def _item(item_id: str, status: str, content: list[Json]) -> Json:
    return {"id": item_id, "type": "message", "role": "assistant", "status": status, "content": content}


def _part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


class _Stream:
    """The events of one streamed response, numbered."""

    def __init__(self, stream: EventStream, response: Json, item_id: str, limit: Limit) -> None:
        self._stream = stream
        self._response = response
        self._place: Json = {"item_id": item_id, "output_index": 0, "content_index": 0}
        self._item_id = item_id
        self._limit = limit
        self._number = 0

    async def run(self, work: Generation) -> web.StreamResponse:
        (sequence,) = work.sequences
        await self._stream.write(self._begin())
        sent = 0
        going = True
        while going:
            going = await work.progress()
            tokens = news(sequence, sent)
            sent += len(tokens)
            await self._stream.write(
                b"".join([self._delta(token) for token in tokens]), sequence.produced / sequence.answer_tokens
            )
        return await self._stream.end(self._end(sequence))

    def _begin(self) -> bytes:
        return (
            self._event("response.created", {"response": self._response})
            + self._event("response.in_progress", {"response": self._response})
            + self._event("response.output_item.added", {"output_index": 0, "item": _item(self._item_id, "in_progress", [])})
            + self._event("response.content_part.added", {**self._place, "part": _part("")})
        )

    def _delta(self, token: bytes) -> bytes:
        return self._event("response.output_text.delta", {**self._place, "delta": token.decode(), "logprobs": []})

    def _end(self, sequence: Sequence) -> bytes:
        text = sequence.answer.decode()
        response = _finished(self._response, self._item_id, sequence, self._limit)
        return (
            self._event("response.output_text.done", {**self._place, "text": text, "logprobs": []})
            + self._event("response.content_part.done", {**self._place, "part": _part(text)})
            + self._event("response.output_item.done", {"output_index": 0, "item": response["output"][0]})
            + self._event(f"response.{response['status']}", {"response": response})
        )

    def _event(self, kind: str, body: Json) -> bytes:
        numbered = {"type": kind, "sequence_number": self._number, **body}
        self._number += 1
        return event(numbered, kind)
