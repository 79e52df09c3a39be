"""responses-store: remember conversations of the Responses API, so that clients need not send them again.

The plugin itself: its hooks, and what of a request and its response is kept. ``api`` answers requests for what is kept,
``repository`` knows tenants, histories and writes in the background, ``backend`` and ``tiers`` are where documents lie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import orjson

from epp.errors import ErrorCode, RequestError
from epp.framework import log
from epp.framework.data import DataKey
from epp.framework.direct import DirectReply, DirectRequest
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Role
from epp.framework.registry import Gate, PluginType, Reads
from epp.framework.results import SchedulingResult
from epp.framework.rewriting import BodyEdits
from epp.framework.types import Api, Cause, Completion, InferenceRequest, Json
from plugins.stores.api import ResponsesApi, UnknownError, named
from plugins.stores.backend import Backend, MemoryBackend, StoreError
from plugins.stores.items import Item, input_items
from plugins.stores.parameters import InMemoryStore, ResponsesStoreParams
from plugins.stores.repository import Repository, TooLargeError
from plugins.stores.tiers import make_tiers
from plugins.stores.turns import Turn

_logger = log.get(__name__)

TYPE = "responses-store"

_NO_TENANT = "default-flow"
"""Fairness id of requests that name none."""
_KEPT_STATUS = ("completed", "incomplete")
_FIRST_FAILURE = 300


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request said before it was rewritten."""

    previous_response_id: str
    conversation: str
    input: Json


ASKED = DataKey("responses-store-request", Asked, TYPE)


class ResponsesStore:
    """Keep responses and conversations, and put them before the input of requests that continue them.

    Model servers keep no state that another one could read. With this plugin they see plain requests, while clients use the
    Responses API as they do with OpenAI. What is continued is put in before prompts are tokenized and hashed, so that prefix
    plugins see the whole prompt and find the endpoint that has it cached.

    Parameters: storeConfig, unknownResponses.
    Continuing responses: for ``previous_response_id`` the input and output items of all earlier turns (256 at most), oldest
        first, come before ``input``; the member is removed. ``instructions`` are not inherited.
    Conversations: for ``conversation``, an id or an object with it, the conversation's items come before ``input``; input and
        output are added to it when the response is there, whatever ``store`` says.
    Answered by the picker: ``GET`` and ``DELETE /v1/responses/{id}``; ``GET /v1/responses/{id}/input_items``, with the items of
        earlier turns; ``/v1/conversations``: create, read, update, delete; its ``items``: add, list, read, delete.
    Unknown ids: 404, also for ids of other tenants and for a history of which a turn is gone; 503 if the store cannot be
        reached in time. With ``unknownResponses: forward`` such requests go on as they came, for model servers that keep
        responses themselves. A store that cannot be reached costs other requests nothing.
    Kept: what was seen to its end with a status of 2xx and is ``completed`` or ``incomplete`` (a limit of output tokens was
        met; it can be continued).
    Not kept: ``store: false``; failed, cancelled, cut off or compressed responses, those in the background, and what is larger
        than ``maxEntryBytes``.
    Tenants: a response belongs to the fairness id of its request, and another fairness id does not find it. Who names none may
        read everything. It keeps tenants apart where a gateway sets that header; it is no access control of its own.
    Back ends: in memory (the default), least recently used out first: for one picker, or for clients that stay at one. Redis or
        Valkey, alone, behind Sentinel or as a cluster; keys ``heimdall:responses:<id>``. MongoDB behind it: every response is
        also written to a Redis stream, from which one of the pickers copies it to MongoDB, and what Redis has forgotten is read
        from there. Conversations stay in Redis, because they change.
    Deadlines: reading a history 400 ms, and ``mongo.timeout`` on top with MongoDB; writes 5 s in the background. Who continues
        a response at once is served by the same picker even if it is not written yet.
    Differences: the response that a client gets first is the model server's own, so that its ``previous_response_id`` is null
        there; the kept one names it. A kept response cannot be streamed. ``/cancel`` goes to a model server.
    Needs: ``pip install 'endpoint-picker[redis]'`` for Redis and Valkey, ``[mongodb]`` for MongoDB. The data plane must send
        response bodies (no response bypass).
    Source: Heimdall's documentation of the parameters; OpenAI's API reference for what is answered.
    """

    def __init__(self, backend: Backend, *, forward_unknown: bool = False) -> None:
        self._repository = Repository(backend)
        self._api = ResponsesApi(self._repository)
        self._forward_unknown = forward_unknown
        self._said_unseen = False

    async def start(self) -> None:
        """Begin background work."""
        await self._repository.start()

    async def stop(self) -> None:
        """Let writes end."""
        await self._repository.stop()

    def debug_state(self) -> object:
        """Counts of what was kept, and what not, and why."""
        return self._repository.debug_state()

    # ── BodyRewriter ──

    def rewrites(self, request: InferenceRequest) -> bool:
        """A request that continues something."""
        if request.body.api is not Api.RESPONSES:
            return False
        document = request.body.document
        return bool(document.get("previous_response_id") or document.get("conversation"))

    async def rewrite(self, request: InferenceRequest, edits: BodyEdits) -> None:
        """Put what it continues before its input.

        Raises:
            RequestError: what it continues is unknown or cannot be read, or its members are wrong.
        """
        asked = _asked(request.body.document)
        request.data.set(ASKED, asked)
        try:
            items = await self._earlier(asked, _tenant(request.fairness_id))
        except UnknownError as error:
            self._repository.counts["unknown"] += 1
            if not self._forward_unknown:
                raise RequestError(ErrorCode.NOT_FOUND, str(error)) from error
        except StoreError as error:
            if not self._forward_unknown:
                raise _unavailable() from error
        except TooLargeError as error:
            raise RequestError(ErrorCode.PAYLOAD_TOO_LARGE, str(error)) from error
        else:
            self._repository.counts["found"] += 1
            _prepend(items, asked.input, edits)

    async def _earlier(self, asked: Asked, tenant: str) -> list[Json]:
        if asked.conversation:
            conversation = await self._repository.conversation(asked.conversation, tenant)
            if conversation is None:
                raise UnknownError(f"Conversation with id '{asked.conversation}' not found.")
            return list(conversation.items)
        turns = await self._repository.history(asked.previous_response_id, tenant)
        if turns is None:
            raise UnknownError(f"Previous response with id '{asked.previous_response_id}' not found.")
        return [item for turn in turns for item in turn.items]

    # ── DirectResponder ──

    def answers(self, method: str, path: str) -> bool:
        """A request for what is kept."""
        return self._api.answers(method, path)

    async def respond(self, request: DirectRequest) -> DirectReply | None:
        """The answer; None if a model server may know more.

        Raises:
            RequestError: it is unknown or cannot be read, or the request is wrong.
        """
        try:
            return await self._api.respond(request)
        except UnknownError as error:
            if self._forward_unknown:
                return None
            raise RequestError(ErrorCode.NOT_FOUND, str(error)) from error
        except StoreError as error:
            if self._forward_unknown:
                return None
            raise _unavailable() from error

    # ── ResponseComplete ──

    def response_complete(self, request: InferenceRequest, result: SchedulingResult, completion: Completion) -> None:
        """Keep the turn, in the background."""
        if request.body.api is not Api.RESPONSES:
            return
        document = request.body.document
        asked = request.data.get(ASKED) or Asked("", "", document.get("input"))
        stored = document.get("store") is not False
        if not stored and not asked.conversation:
            return
        response = _response(completion)
        if response is None:
            self._repository.counts["not_kept"] += 1
            self._say_once_if_unseen(completion)
            return
        turn = _turn(request, asked, response)
        if stored:
            self._repository.save(turn)
        if asked.conversation:
            self._repository.append(asked.conversation, turn.tenant, named(turn.items))

    def _say_once_if_unseen(self, completion: Completion) -> None:
        unseen = completion.cause is Cause.NATURAL and not completion.length_known and not completion.response_bytes
        if unseen and not self._said_unseen:
            self._said_unseen = True
            _logger.warning(
                "responses cannot be kept: the data plane sends no response bodies; set response_body_mode to "
                "FULL_DUPLEX_STREAMED, or remove responses-store"
            )


def _asked(document: object) -> Asked:
    members = cast("Item", document)
    previous = members.get("previous_response_id")
    conversation = members.get("conversation")
    if isinstance(conversation, dict):
        conversation = conversation.get("id")
    for name, value in (("previous_response_id", previous), ("conversation", conversation)):
        if value is not None and not isinstance(value, str):
            raise RequestError(ErrorCode.BAD_REQUEST, f"{name} must be an id")
    if previous and conversation:
        raise RequestError(ErrorCode.BAD_REQUEST, "previous_response_id and conversation cannot be used together")
    if not isinstance(members.get("input"), (str, list)):
        raise RequestError(ErrorCode.BAD_REQUEST, "input must be a text or a list of items")
    return Asked(cast("str", previous or ""), cast("str", conversation or ""), members.get("input"))


def _prepend(items: list[Json], asked: Json, edits: BodyEdits) -> None:
    edits.remove("previous_response_id")
    edits.remove("conversation")
    if not items:
        return
    if isinstance(asked, list):
        edits.prepend("input", items)
    else:
        edits.set("input", [*items, *input_items(asked)])


def _response(completion: Completion) -> Item | None:
    """The response object if it is one to keep."""
    if completion.cause is not Cause.NATURAL or not 0 < completion.status < _FIRST_FAILURE or completion.document is None:
        return None
    try:
        response = orjson.loads(completion.document)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(response, dict) or response.get("status") not in _KEPT_STATUS:
        return None
    key = response.get("id")
    return response if isinstance(key, str) and key and isinstance(response.get("output"), list) else None


def _turn(request: InferenceRequest, asked: Asked, response: Item) -> Turn:
    created = response.get("created_at")
    named_model = response.get("model")
    return Turn(
        id=cast("str", response["id"]),
        previous_response_id=asked.previous_response_id,
        conversation=asked.conversation,
        model=request.model or (named_model if isinstance(named_model, str) else ""),
        created_at=created if isinstance(created, (int, float)) else 0.0,
        input=input_items(asked.input),
        output=cast("list[Json]", response["output"]),
        tenant=_tenant(request.fairness_id),
        response={**response, "output": None},
    )


def _tenant(fairness_id: str) -> str:
    return "" if fairness_id == _NO_TENANT else fairness_id


def _unavailable() -> RequestError:
    return RequestError(ErrorCode.SERVICE_UNAVAILABLE, "the response store cannot be reached, try again in a moment")


def _backend(context: PluginContext, params: ResponsesStoreParams) -> Backend:
    config = params.store_config
    if config is not None and config.tiered_config is not None:
        if config.in_memory_config is not None:
            context.warn("storeConfig.inMemoryConfig", "not used: storeConfig.tieredConfig is given, too, and wins")
        return make_tiers(config.tiered_config)
    memory = InMemoryStore() if config is None or config.in_memory_config is None else config.in_memory_config
    return MemoryBackend(memory.ttl, memory.max_entries, memory.max_entry_bytes, context.clock)


def _create(context: PluginContext, params: ResponsesStoreParams) -> ResponsesStore:
    return ResponsesStore(_backend(context, params), forward_unknown=params.unknown_responses == "forward")


PLUGIN = PluginType(
    type=TYPE,
    hot=False,
    roles=frozenset({Role.BODY_REWRITER, Role.DIRECT_RESPONDER, Role.RESPONSE_COMPLETE}),
    summary="Remembers conversations of the Responses API.",
    params=ResponsesStoreParams,
    factory=_create,
    reads=Reads(response_document=True),
    gate=Gate.PREPARE_DATA,
    example="""
        storeConfig:
          inMemoryConfig: {ttl: 1h, maxEntries: 500}
    """,
)
