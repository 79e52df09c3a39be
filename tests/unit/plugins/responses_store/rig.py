"""A client of the Responses API in front of one store: what it sends is forwarded, what a model server answers is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from epp.extproc.body import splice
from epp.framework.direct import DirectRequest
from epp.framework.results import SchedulingResult
from epp.framework.testing import FakeClock, FakeHeaders, make_context, make_endpoint, make_plugin, make_request
from epp.framework.types import Api, Cause, Completion, InferenceRequest, Usage
from epp.request.edits import BodyEditList
from plugins.stores import responses
from plugins.stores.responses import ResponsesStore

RESULT = SchedulingResult("default", {}, (make_endpoint(),))

Item = dict[str, Any]


def user(text: str) -> Item:
    """What the text of a user becomes."""
    return {"type": "message", "role": "user", "content": text}


def assistant(text: str) -> Item:
    """An item of a model's output."""
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"id": f"msg_{text}", "type": "message", "role": "assistant", "status": "completed", "content": [part]}


def response(key: str, text: str = "", **more: object) -> Item:
    """The response object of a model server."""
    return {
        "id": key, "object": "response", "created_at": 1700000000, "status": "completed", "model": "m",
        "output": [assistant(text or f"answer of {key}")], "previous_response_id": None, **more,
    }  # fmt: skip


def completion(document: object, **facts: Any) -> Completion:
    """A response that was seen to its end, by default."""
    usual: dict[str, Any] = {
        "cause": Cause.NATURAL,
        "status": 200,
        "served": make_endpoint(),
        "usage": Usage(),
        "length_known": True,
        "ttft_s": 0.1,
        "duration_s": 0.2,
        "response_bytes": 10,
        "streaming": False,
        "document": document if isinstance(document, bytes) or document is None else json.dumps(document).encode(),
    }
    return Completion(**{**usual, **facts})


def make_store(parameters: Mapping[str, Any] | None = None, clock: FakeClock | None = None) -> ResponsesStore:
    """A store as the loader makes it."""
    context = make_context("responses-store", clock=clock)
    return cast("ResponsesStore", make_plugin(responses.PLUGIN, parameters, context))


@dataclass
class Exchange:
    """One request, forwarded."""

    request: InferenceRequest
    body: bytes

    @property
    def forwarded(self) -> Item:
        return cast("Item", json.loads(self.body))


@dataclass
class Client:
    """One tenant."""

    store: ResponsesStore = field(default_factory=make_store)
    tenant: str = "default-flow"

    async def ask(self, input: object = "hi", *, model: str = "m", api: Api = Api.RESPONSES, **more: object) -> Exchange:  # noqa: A002
        """Send a request; what a picker would forward."""
        body = json.dumps({"model": model, "input": input, **more}).encode()
        request = make_request(document=json.loads(body), api=api, model=model)
        request.fairness_id = self.tenant
        if self.store.rewrites(request):
            edits = BodyEditList(memoryview(body), request.body.document)
            await self.store.rewrite(request, edits)
            body = bytes(splice(memoryview(body), edits.splices(None)))
            request.body.outline = edits.document
            assert json.loads(body) == edits.document
        return Exchange(request, body)

    def answer(self, exchange: Exchange, document: object, **facts: Any) -> None:
        """A model server answers it."""
        self.store.response_complete(exchange.request, RESULT, completion(document, **facts))

    async def turn(self, key: str, input: object = "hi", **more: object) -> Exchange:  # noqa: A002
        """A request with its response."""
        exchange = await self.ask(input, **more)  # type: ignore[arg-type]  # members of any name
        self.answer(exchange, response(key))
        return exchange

    async def call(self, method: str, path: str, body: object = None) -> Item | None:
        """A request that the store answers itself; None if it leaves it to a model server."""
        path, _, query = path.partition("?")
        assert self.store.answers(method, path), (method, path)
        tenant = "" if self.tenant == "default-flow" else self.tenant
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        reply = await self.store.respond(DirectRequest(method, path, query, FakeHeaders(), memoryview(raw), tenant))
        if reply is None:
            return None
        assert reply.status == 200
        return cast("Item", json.loads(reply.body))

    def count(self, what: str) -> object:
        """One of the counts of the debug page."""
        return cast("Item", self.store.debug_state()).get(what, 0)
