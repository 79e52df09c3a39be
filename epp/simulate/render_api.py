"""What a simulated server would compute: the tokens of a request that is not run, as vLLM's endpoints tell them."""

from __future__ import annotations

from array import array

from aiohttp import web

from epp.simulate.blocks import BYTES_PER_TOKEN
from epp.simulate.exchange import Exchange, Json, bad_request
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


async def tokenize(service: Service, exchange: Exchange) -> web.StreamResponse:
    """``POST /tokenize``: of a text or of a conversation."""
    body = await exchange.json()
    service.model(body)
    prompts = [chat_prompt(body)] if "messages" in body else text_prompts(body.get("prompt"), "prompt")
    if len(prompts) > 1:
        raise bad_request("prompt must be one text", "prompt")
    tokens = _tokens(prompts[0])
    room = service.options.engine.max_model_len
    return await exchange.reply({"count": len(tokens), "max_model_len": room, "tokens": tokens, "token_strs": None})


async def reset_prefix_cache(service: Service, exchange: Exchange) -> web.StreamResponse:
    """``POST /reset_prefix_cache``: forget everything, unless a request holds a block. Always 200, as vLLM; the body tells."""
    return await exchange.reply({"reset": service.driver.forget()})


def _rendered(service: Service, model: str, prompt: bytes) -> Json:
    return {"request_id": service.new_id("render-"), "model": model, "token_ids": _tokens(prompt), "features": None}


def _tokens(prompt: bytes) -> list[int]:
    """Four bytes each, as the engine has them; the last one filled up."""
    return array("I", prompt + bytes(-len(prompt) % BYTES_PER_TOKEN)).tolist()
