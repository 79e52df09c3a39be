"""The part of the Responses API that needs no model: read and delete responses, keep conversations."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from urllib.parse import parse_qs
from uuid import uuid4

import orjson

from epp.errors import ErrorCode, RequestError
from epp.framework.direct import DirectReply, DirectRequest
from epp.framework.types import Json
from plugins.stores.items import Item, new_id, page, shown
from plugins.stores.repository import Repository, TooLargeError
from plugins.stores.turns import Conversation

MAX_NEW_ITEMS = 20
"""Items that one request may add to a conversation, as at OpenAI."""

_PATH = re.compile(r"/v1/(?:(responses)/([^/]+)(/input_items)?|(conversations)(?:/([^/]+)(?:/(items)(?:/([^/]+))?)?)?)/?$")


class UnknownError(Exception):
    """What was asked for is not in the store; the text says it to the client."""


Handler = Callable[["ResponsesApi", DirectRequest, str, str], Awaitable[Item]]
"""(api, request, id, id of an item) → the document of the answer."""


class ResponsesApi:
    """Answers requests for what is kept.

    Args:
        repository: where it is kept.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    @staticmethod
    def answers(method: str, path: str) -> bool:
        """Whether this is such a request."""
        return _find(method, path) is not None

    async def respond(self, request: DirectRequest) -> DirectReply:
        """The answer.

        Raises:
            UnknownError: there is nothing of this id.
            StoreError: the store cannot be used.
            RequestError: the request is wrong.
        """
        found = _find(request.method, request.path)
        assert found is not None, "only asked for what is answered"
        handler, key, item = found
        try:
            return DirectReply(orjson.dumps(await handler(self, request, key, item)))
        except TooLargeError as error:
            raise RequestError(ErrorCode.PAYLOAD_TOO_LARGE, str(error)) from error

    # ── responses ──

    async def response(self, request: DirectRequest, key: str, _: str) -> Item:
        """``GET /v1/responses/{id}``."""
        if parse_qs(request.query).get("stream", [""])[-1].lower() == "true":
            raise _bad("a stored response cannot be streamed")
        turn = await self._repository.turn(key, request.fairness_id)
        if turn is None:
            raise _unknown("Response", key)
        return turn.answer()

    async def delete_response(self, request: DirectRequest, key: str, _: str) -> Item:
        """``DELETE /v1/responses/{id}``."""
        if not await self._repository.delete_turn(key, request.fairness_id):
            raise _unknown("Response", key)
        return {"id": key, "object": "response", "deleted": True}

    async def input_items(self, request: DirectRequest, key: str, _: str) -> Item:
        """``GET /v1/responses/{id}/input_items``: all that its model read, earlier turns too."""
        turns = await self._repository.history(key, request.fairness_id)
        if turns is None:
            raise _unknown("Response", key)
        items: list[Item] = []
        for turn in turns[:-1]:
            items += [*turn.shown_input(), *(shown(item, f"{turn.id}_{i}") for i, item in enumerate(turn.output))]
        return page([*items, *turns[-1].shown_input()], request.query)

    # ── conversations ──

    async def create(self, request: DirectRequest, _: str, __: str) -> Item:
        """``POST /v1/conversations``."""
        body = _body(request)
        conversation = Conversation(
            id=f"conv_{uuid4().hex}",
            created_at=time.time(),
            tenant=request.fairness_id,
            metadata=_metadata(body),
            items=_new_items(body, required=False),
        )
        await self._repository.create(conversation)
        return conversation.answer()

    async def conversation(self, request: DirectRequest, key: str, _: str) -> Item:
        """``GET /v1/conversations/{id}``."""
        return (await self._conversation(request, key)).answer()

    async def update(self, request: DirectRequest, key: str, _: str) -> Item:
        """``POST /v1/conversations/{id}``: replace its metadata."""
        metadata = _metadata(_body(request))
        return (await self._change(request, key, lambda known: replace(known, metadata=metadata))).answer()

    async def delete_conversation(self, request: DirectRequest, key: str, _: str) -> Item:
        """``DELETE /v1/conversations/{id}``; responses stay."""
        if not await self._repository.delete_conversation(key, request.fairness_id):
            raise _unknown("Conversation", key)
        return {"id": key, "object": "conversation.deleted", "deleted": True}

    async def items(self, request: DirectRequest, key: str, _: str) -> Item:
        """``GET /v1/conversations/{id}/items``."""
        return page((await self._conversation(request, key)).items, request.query)

    async def add_items(self, request: DirectRequest, key: str, _: str) -> Item:
        """``POST /v1/conversations/{id}/items``."""
        items = _new_items(_body(request), required=True)
        await self._change(request, key, lambda known: replace(known, items=[*known.items, *items]))
        return page(items, f"order=asc&limit={MAX_NEW_ITEMS}")

    async def item(self, request: DirectRequest, key: str, item: str) -> Item:
        """``GET /v1/conversations/{id}/items/{item}``."""
        return _item_of(await self._conversation(request, key), item)

    async def delete_item(self, request: DirectRequest, key: str, item: str) -> Item:
        """``DELETE /v1/conversations/{id}/items/{item}``."""

        def without(known: Conversation) -> Conversation:
            gone = _item_of(known, item)
            return replace(known, items=[other for other in known.items if other is not gone])

        return (await self._change(request, key, without)).answer()

    async def _conversation(self, request: DirectRequest, key: str) -> Conversation:
        found = await self._repository.conversation(key, request.fairness_id)
        if found is None:
            raise _unknown("Conversation", key)
        return found

    async def _change(self, request: DirectRequest, key: str, change: Callable[[Conversation], Conversation]) -> Conversation:
        changed = await self._repository.change(key, request.fairness_id, change)
        if changed is None:
            raise _unknown("Conversation", key)
        return changed


_HANDLERS: Mapping[tuple[str, str], Handler] = {
    ("GET", "response"): ResponsesApi.response,
    ("DELETE", "response"): ResponsesApi.delete_response,
    ("GET", "input_items"): ResponsesApi.input_items,
    ("POST", "conversations"): ResponsesApi.create,
    ("GET", "conversation"): ResponsesApi.conversation,
    ("POST", "conversation"): ResponsesApi.update,
    ("DELETE", "conversation"): ResponsesApi.delete_conversation,
    ("GET", "items"): ResponsesApi.items,
    ("POST", "items"): ResponsesApi.add_items,
    ("GET", "item"): ResponsesApi.item,
    ("DELETE", "item"): ResponsesApi.delete_item,
}


def _find(method: str, path: str) -> tuple[Handler, str, str] | None:
    if "/v1/responses/" not in path and "/v1/conversations" not in path:
        return None
    match = _PATH.search(path)
    if match is None:
        return None
    responses, response_id, input_items, _, conversation_id, items, item_id = match.groups()
    if responses:
        kind = "input_items" if input_items else "response"
    elif items:
        kind = "item" if item_id else "items"
    else:
        kind = "conversation" if conversation_id else "conversations"
    handler = _HANDLERS.get((method, kind))
    return None if handler is None else (handler, response_id or conversation_id or "", item_id or "")


def _body(request: DirectRequest) -> Item:
    if not request.body:
        return {}
    try:
        document = orjson.loads(request.body)
    except orjson.JSONDecodeError as error:
        raise _bad(f"the request body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise _bad("the request body must be a JSON object")
    return document


def _metadata(body: Item) -> Item:
    metadata = body.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise _bad("metadata must be an object")
    return metadata or {}


def _new_items(body: Item, *, required: bool) -> list[Item]:
    items = body.get("items")
    if items is None and not required:
        return []
    if not isinstance(items, list) or (required and not items) or not all(isinstance(item, dict) for item in items):
        raise _bad("invalid conversations request: must have items field")
    if len(items) > MAX_NEW_ITEMS:
        raise _bad(f"at most {MAX_NEW_ITEMS} items can be added at a time, not {len(items)}")
    return named(items)


def named(items: list[Json]) -> list[Item]:
    """Items as conversations keep them: each with an id."""
    return [shown(item, new_id(item.get("type") or "message" if isinstance(item, dict) else "message")) for item in items]


def _item_of(conversation: Conversation, key: str) -> Item:
    for item in conversation.items:
        if item["id"] == key:
            return item
    raise _unknown("Item", key)


def _unknown(what: str, key: str) -> UnknownError:
    return UnknownError(f"{what} with id '{key}' not found.")


def _bad(message: str) -> RequestError:
    return RequestError(ErrorCode.BAD_REQUEST, message)
