"""The paths of a simulated server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from epp.simulate import anthropic_api, openai_api, render_api, responses_api
from epp.simulate.exchange import Exchange
from epp.simulate.service import Service
from epp.simulate.transfers import PATH as TRANSFER_PATH

Api = Callable[[Service, Exchange], Awaitable[web.StreamResponse]]

INFERENCE: Mapping[str, Api] = {
    "/v1/chat/completions": openai_api.chat_completions,
    "/v1/completions": openai_api.completions,
    "/v1/embeddings": openai_api.embeddings,
    "/v1/responses": responses_api.responses,
    "/v1/messages": anthropic_api.messages,
}
"""What counts as a served request."""
STAGED = frozenset(INFERENCE) - {"/v1/embeddings"}
"""Requests that several servers can work on."""
APIS: Mapping[str, Api] = {
    **INFERENCE,
    "/v1/chat/completions/render": render_api.chat_completions,
    "/v1/completions/render": render_api.completions,
    "/v1/messages/count_tokens": anthropic_api.count_tokens,
    "/tokenize": render_api.tokenize,
    "/reset_prefix_cache": render_api.reset_prefix_cache,
    TRANSFER_PATH: lambda service, exchange: service.offers.fetch(exchange),
}
"""Everything that is asked with POST."""
PAGES = frozenset({"/health", "/ping", "/version", "/metrics", "/v1/models"})
