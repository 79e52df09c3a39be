"""Requests that the store answers itself: responses, their input items, conversations."""

from __future__ import annotations

from typing import Any

import pytest

from epp.errors import ErrorCode, RequestError
from tests.unit.plugins.responses_store.rig import Client, Item, assistant, make_store, response, user


@pytest.fixture
def client() -> Client:
    return Client()


async def refused(client: Client, method: str, path: str, body: object = None) -> RequestError:
    with pytest.raises(RequestError) as caught:
        await client.call(method, path, body)
    return caught.value


async def ids(client: Client, path: str) -> list[str]:
    found = await client.call("GET", path)
    assert found is not None
    assert found["object"] == "list"
    return [item["id"] for item in found["data"]]


@pytest.mark.parametrize(
    ("method", "path", "mine"),
    [
        ("GET", "/v1/responses/r1", True),
        ("DELETE", "/v1/responses/r1", True),
        ("GET", "/v1/responses/r1/input_items", True),
        ("GET", "/gateway/v1/responses/r1/", True),
        ("POST", "/v1/conversations", True),
        ("DELETE", "/v1/conversations/c1/items/i1", True),
        ("POST", "/v1/responses", False),
        ("POST", "/v1/responses/r1/cancel", False),
        ("POST", "/v1/responses/r1", False),
        ("POST", "/v1/responses/compact", False),
        ("GET", "/v1/conversations", False),
        ("PUT", "/v1/conversations/c1", False),
        ("DELETE", "/v1/responses/r1/input_items", False),
        ("GET", "/v1/responses/", False),
        ("GET", "/v1/responses/a/b", False),
        ("GET", "/xv1/responses/r1", False),
        ("GET", "/responses/r1", False),
        ("POST", "/v1/chat/completions", False),
        ("", "", False),
    ],
)
def test_what_is_answered(client: Client, method: str, path: str, mine: bool) -> None:
    assert client.store.answers(method, path) is mine


async def test_a_response_is_what_its_client_got(client: Client) -> None:
    await client.turn("r1", "one")
    answered = response("r2", usage={"total_tokens": 3}, metadata={"a": "b"})
    client.answer(await client.ask("two", previous_response_id="r1"), answered)
    found = await client.call("GET", "/v1/responses/r2")
    assert found == {**answered, "previous_response_id": "r1", "store": True}
    assert list(found or {})[: len(answered)] == list(answered), "in the same order"


async def test_deleting_a_response(client: Client) -> None:
    await client.turn("r1")
    assert await client.call("DELETE", "/v1/responses/r1") == {"id": "r1", "object": "response", "deleted": True}
    for method in ("GET", "DELETE"):
        error = await refused(client, method, "/v1/responses/r1")
        assert (error.code, error.message) == (ErrorCode.NOT_FOUND, "Response with id 'r1' not found.")


async def test_a_stored_response_cannot_be_streamed(client: Client) -> None:
    await client.turn("r1")
    assert (await refused(client, "GET", "/v1/responses/r1?stream=true")).code is ErrorCode.BAD_REQUEST


async def test_input_items_are_all_that_the_model_read(client: Client) -> None:
    await client.turn("resp_1", "one")
    await client.turn(
        "resp_2", [{"type": "function_call_output", "call_id": "c", "output": "2"}], previous_response_id="resp_1"
    )
    found = await client.call("GET", "/v1/responses/resp_2/input_items?order=asc")
    assert found is not None
    assert found["data"] == [
        {**user("one"), "id": "msg_1_0", "status": "completed", "content": [{"type": "input_text", "text": "one"}]},
        assistant("answer of resp_1"),
        {"id": "msg_2_0", "type": "function_call_output", "call_id": "c", "output": "2"},
    ]
    assert (found["first_id"], found["last_id"], found["has_more"]) == ("msg_1_0", "msg_2_0", False)
    assert await ids(client, "/v1/responses/resp_2/input_items") == ["msg_2_0", "msg_answer of resp_1", "msg_1_0"], (
        "newest first"
    )
    assert (await refused(client, "GET", "/v1/responses/r9/input_items")).code is ErrorCode.NOT_FOUND


async def created(client: Client, *items: Item, **more: object) -> str:
    found = await client.call("POST", "/v1/conversations", {"items": list(items), **more})
    assert found is not None
    assert found["object"] == "conversation"
    assert found["id"].startswith("conv_")
    return str(found["id"])


PAGED = [{**user(str(number)), "id": f"i{number}"} for number in range(5)]


@pytest.mark.parametrize(
    ("query", "found", "more"),
    [
        ("", ["i4", "i3", "i2", "i1", "i0"], False),
        ("?order=asc", ["i0", "i1", "i2", "i3", "i4"], False),
        ("?order=asc&limit=2", ["i0", "i1"], True),
        ("?order=asc&limit=2&after=i1", ["i2", "i3"], True),
        ("?limit=2&after=i2", ["i1", "i0"], False),
        ("?after=i0", [], False),
    ],
)
async def test_pages(client: Client, query: str, found: list[str], more: bool) -> None:
    key = await created(client, *PAGED)
    page = await client.call("GET", f"/v1/conversations/{key}/items{query}")
    assert page is not None
    assert ([item["id"] for item in page["data"]], page["has_more"]) == (found, more)
    assert (page["first_id"], page["last_id"]) == ((found[0], found[-1]) if found else (None, None))


@pytest.mark.parametrize("query", ["order=up", "limit=0", "limit=101", "limit=x", "limit=-1", "limit=9999", "after=i9"])
async def test_pages_that_cannot_be(client: Client, query: str) -> None:
    key = await created(client, *PAGED)
    error = await refused(client, "GET", f"/v1/conversations/{key}/items?{query}")
    assert error.code is ErrorCode.BAD_REQUEST
    assert query.partition("=")[0] in error.message


async def test_the_life_of_a_conversation(client: Client) -> None:
    key = await created(client, metadata={"a": "b"})
    path = f"/v1/conversations/{key}"
    known = await client.call("GET", path)
    assert known is not None
    assert known["metadata"] == {"a": "b"}
    assert isinstance(known["created_at"], int)
    assert await client.call("POST", path, {"metadata": {"c": "d"}}) == {**known, "metadata": {"c": "d"}}
    added = await client.call("POST", f"{path}/items", {"items": [user("one"), {"type": "reasoning", "summary": []}]})
    assert added is not None
    first, second = (item["id"] for item in added["data"])
    assert (first[:4], second[:3]) == ("msg_", "rs_")
    assert await ids(client, f"{path}/items?order=asc") == [first, second]
    one = await client.call("GET", f"{path}/items/{first}")
    assert one == {**user("one"), "id": first, "status": "completed", "content": [{"type": "input_text", "text": "one"}]}
    assert await client.call("DELETE", f"{path}/items/{first}") == {**known, "metadata": {"c": "d"}}
    assert (await refused(client, "GET", f"{path}/items/{first}")).message == f"Item with id '{first}' not found."
    assert (await refused(client, "DELETE", f"{path}/items/{first}")).code is ErrorCode.NOT_FOUND
    assert await client.call("DELETE", path) == {"id": key, "object": "conversation.deleted", "deleted": True}
    for method, rest in (("GET", ""), ("POST", ""), ("DELETE", ""), ("GET", "/items"), ("GET", "/items/i")):
        error = await refused(client, method, path + rest, {} if method == "POST" else None)
        assert (error.code, error.message) == (ErrorCode.NOT_FOUND, f"Conversation with id '{key}' not found.")


async def test_a_conversation_without_anything(client: Client) -> None:
    assert await client.call("POST", "/v1/conversations")


async def test_responses_in_a_conversation(client: Client) -> None:
    key = await created(client, {"type": "message", "role": "system", "content": "be brief"})
    first = await client.turn("r1", "one", conversation=key)
    assert [item["role"] for item in first.forwarded["input"]] == ["system", "user"]
    assert "conversation" not in first.forwarded
    second = await client.turn("r2", "two", conversation={"id": key}, store=False)
    assert [item["role"] for item in second.forwarded["input"]] == ["system", "user", "assistant", "user"]
    assert len(await ids(client, f"/v1/conversations/{key}/items")) == 5, "whatever `store` says"
    known = await client.call("GET", "/v1/responses/r1")
    assert known is not None
    assert known["conversation"] == {"id": key}
    assert (await refused(client, "GET", "/v1/responses/r2")).code is ErrorCode.NOT_FOUND


async def test_a_failed_response_adds_nothing(client: Client) -> None:
    key = await created(client)
    client.answer(await client.ask(conversation=key), response("r1", status="failed"))
    assert await ids(client, f"/v1/conversations/{key}/items") == []


async def test_an_unknown_conversation(client: Client) -> None:
    with pytest.raises(RequestError, match="Conversation with id 'c' not found"):
        await client.ask(conversation="c")
    await client.turn("r1")
    with pytest.raises(RequestError, match="Conversation with id 'r1' not found"):
        await client.ask(conversation="r1")
    key = await created(client)
    with pytest.raises(RequestError, match=f"Previous response with id '{key}' not found"):
        await client.ask(previous_response_id=key)


async def test_a_conversation_that_was_deleted_meanwhile(client: Client) -> None:
    key = await created(client)
    exchange = await client.ask(conversation=key)
    await client.call("DELETE", f"/v1/conversations/{key}")
    client.answer(exchange, response("r1"))
    assert await client.call("GET", "/v1/responses/r1")
    assert (await refused(client, "GET", f"/v1/conversations/{key}")).code is ErrorCode.NOT_FOUND
    assert client.count("missed") == 1


async def test_conversations_of_tenants() -> None:
    store = make_store()
    key = await created(Client(store, "a"))
    assert (await refused(Client(store, "b"), "GET", f"/v1/conversations/{key}")).code is ErrorCode.NOT_FOUND
    assert await Client(store).call("GET", f"/v1/conversations/{key}")


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("/v1/conversations", b"{", "not JSON"),
        ("/v1/conversations", [], "must be a JSON object"),
        ("/v1/conversations", {"metadata": []}, "metadata must be an object"),
        ("/v1/conversations", {"items": "x"}, "must have items field"),
        ("/v1/conversations", {"items": ["x"]}, "must have items field"),
        ("/v1/conversations", {"items": [user("x")] * 21}, "at most 20 items"),
        ("/v1/conversations/c/items", {}, "must have items field"),
        ("/v1/conversations/c/items", {"items": []}, "must have items field"),
    ],
)
async def test_bodies_that_are_wrong(client: Client, path: str, body: object, text: str) -> None:
    error = await refused(client, "POST", path, body)
    assert error.code is ErrorCode.BAD_REQUEST
    assert text in error.message


async def test_a_conversation_that_would_be_too_large() -> None:
    client = Client(make_store({"storeConfig": {"inMemoryConfig": {"maxEntryBytes": 700}}}))
    key = await created(client, user("one"))
    big: dict[str, Any] = {"items": [user("x" * 700)]}
    for path in ("/v1/conversations", f"/v1/conversations/{key}/items"):
        assert (await refused(client, "POST", path, big)).code is ErrorCode.PAYLOAD_TOO_LARGE
    await client.turn("r1", "x" * 300, conversation=key)
    assert len(await ids(client, f"/v1/conversations/{key}/items")) == 1
    assert client.count("too_large") == 2, "neither the response nor its items"
