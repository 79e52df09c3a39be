"""What a simulated server would compute: the tokens of a request that is not run, as vLLM's render endpoints tell them."""

from __future__ import annotations

from array import array

from aiohttp import web

from epp.simulate.blocks import BYTES_PER_TOKEN
from epp.simulate.exchange import Exchange, Json
from epp.simulate.prompts import chat_prompt, text_prompts
from epp.simulate.service import Service


async def chat_completions(service: Service, exchange: Exchange) -> web.StreamResponse:
    """``POST /v1/chat/completions/render``."""
    body = await exchange.json()
    model = service.model(body)
    return await exchange.reply(_rendered(service, model, chat_prompt(body)))


async def completions(service: Service, exchange: Exchange) -> web.StreamResponse:
    """``POST /v1/completions/render``; one entry for each prompt."""
    body = await exchange.json()
    model = service.model(body)
    prompts = text_prompts(body.get("prompt"), "prompt")
    return await exchange.reply([_rendered(service, model, prompt) for prompt in prompts])


def _rendered(service: Service, model: str, prompt: bytes) -> Json:
    tokens = array("I", prompt + bytes(-len(prompt) % BYTES_PER_TOKEN))
    return {"request_id": service.new_id("render-"), "model": model, "token_ids": tokens.tolist(), "features": None}
