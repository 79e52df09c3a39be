"""What is forwarded of a request that continues a response: worked cases 116 to 119, and the rest of the API's rules."""

from __future__ import annotations

import json
from typing import Any

import pytest

from epp.errors import ErrorCode, RequestError
from epp.framework.testing import FakeClock
from epp.framework.types import Api, Cause
from tests.unit.plugins.responses_store.rig import Client, assistant, make_store, response, user


@pytest.fixture
def client() -> Client:
    return Client()


async def test_prefix_116_the_items_of_the_first_turn_come_first(client: Client) -> None:
    await client.turn("r1", "one", instructions="be brief")
    second = await client.ask("two", previous_response_id="r1")
    assert second.forwarded == {"model": "m", "input": [user("one"), assistant("answer of r1"), user("two")]}


async def test_prefix_116_the_items_of_all_turns_oldest_first(client: Client) -> None:
    await client.turn("r1", "one")
    await client.turn("r2", [user("two")], previous_response_id="r1")
    await client.turn("r3", "three", previous_response_id="r2")
    forwarded = (await client.ask([user("four"), {"n": 5}], previous_response_id="r3")).forwarded
    texts = [item.get("content") for item in forwarded["input"] if item.get("role") == "user"]
    assert texts == ["one", "two", "three", "four"]
    assert [item.get("id") for item in forwarded["input"]][1::2] == [
        "msg_answer of r1",
        "msg_answer of r2",
        "msg_answer of r3",
        None,
    ]


async def test_the_prompt_grows_at_its_end(client: Client) -> None:
    """What prefix caches need: each turn's input begins with the same bytes."""
    await client.turn("r1", [user("one")])
    second = await client.turn("r2", [user("two")], previous_response_id="r1")
    third = await client.ask([user("three")], previous_response_id="r2")
    begin = second.body.index(b'"input"')
    end = second.body.index(b'{"type": "message", "role": "user", "content": "two"')
    assert second.body[begin:end] in third.body


async def test_the_bytes_of_the_own_input_stay(client: Client) -> None:
    await client.turn("r1")
    exchange = await client.ask([{"n": 1e2}], previous_response_id="r1")
    assert b'{"n": 100.0}' in exchange.body


async def test_a_fork(client: Client) -> None:
    await client.turn("r1", "one")
    await client.turn("r2", "two", previous_response_id="r1")
    other = (await client.ask("other", previous_response_id="r1")).forwarded
    assert other["input"] == [user("one"), assistant("answer of r1"), user("other")]


async def refused(client: Client, **document: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        await client.ask(document.pop("input", "x"), **document)
    return caught.value


async def test_prefix_117_an_unknown_id(client: Client) -> None:
    error = await refused(client, previous_response_id="nobody")
    assert error.code is ErrorCode.NOT_FOUND
    assert error.message == "Previous response with id 'nobody' not found."
    assert client.count("unknown") == 1


async def test_prefix_117_an_unknown_id_is_forwarded_on_demand() -> None:
    client = Client(make_store({"unknownResponses": "forward"}))
    exchange = await client.ask("x", previous_response_id="nobody")
    assert exchange.forwarded == {"model": "m", "input": "x", "previous_response_id": "nobody"}
    client.answer(exchange, response("r1"))
    assert await client.call("GET", "/v1/responses/nobody") is None
    known = await client.call("GET", "/v1/responses/r1")
    assert known is not None
    assert known["previous_response_id"] == "nobody"


async def test_a_history_with_a_gap_is_unknown(client: Client) -> None:
    await client.turn("r1")
    await client.turn("r2", previous_response_id="r1")
    await client.call("DELETE", "/v1/responses/r1")
    assert (await refused(client, previous_response_id="r2")).code is ErrorCode.NOT_FOUND


NOT_KEPT = [
    pytest.param({"store": False}, response("r1"), {}, id="prefix 118: store: false"),
    pytest.param({}, None, {"length_known": False}, id="prefix 118: cut off"),
    pytest.param({}, response("r1"), {"cause": Cause.CLIENT_DISCONNECT}, id="prefix 118: disconnected"),
    pytest.param({}, response("r1"), {"cause": Cause.ERROR}, id="aborted"),
    pytest.param({}, response("r1"), {"cause": Cause.EVICTED}, id="evicted"),
    pytest.param({}, response("r1", "x" * 2000), {}, id="prefix 118: larger than maxEntryBytes"),
    pytest.param({}, response("r1"), {"status": 400}, id="400"),
    pytest.param({}, response("r1"), {"status": 503}, id="503"),
    pytest.param({}, response("r1", status="failed"), {}, id="failed"),
    pytest.param({}, response("r1", status="cancelled"), {}, id="cancelled"),
    pytest.param({}, response("r1", status="queued"), {}, id="in the background"),
    pytest.param({}, response("r1", output=None), {}, id="without output"),
    pytest.param({}, response(""), {}, id="without id"),
    pytest.param({}, [], {}, id="no object"),
    pytest.param({}, b"{", {}, id="no JSON"),
]


@pytest.mark.parametrize(("document", "answer", "facts"), NOT_KEPT)
async def test_prefix_118_what_is_not_kept(document: dict[str, Any], answer: object, facts: dict[str, Any]) -> None:
    client = Client(make_store({"storeConfig": {"inMemoryConfig": {"maxEntryBytes": 1500}}}))
    client.answer(await client.ask(**document), answer, **facts)
    assert (await refused(client, previous_response_id="r1")).code is ErrorCode.NOT_FOUND
    assert client.count("written") == 0


async def test_a_data_plane_that_shows_no_responses(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        client.answer(await client.ask(), None, length_known=False, response_bytes=0)
    client.answer(await client.ask(), None, cause=Cause.CLIENT_DISCONNECT, length_known=False, response_bytes=0)
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == [
        "responses cannot be kept: the data plane sends no response bodies"
    ]


@pytest.mark.parametrize(
    ("document", "answer"),
    [
        pytest.param({"store": True}, response("r1"), id="store: true"),
        pytest.param({"store": None}, response("r1"), id="store: null"),
        pytest.param({}, response("r1", status="incomplete"), id="a limit of tokens was met"),
    ],
)
async def test_what_is_kept(client: Client, document: dict[str, Any], answer: object) -> None:
    client.answer(await client.ask("one", **document), answer)
    assert (await client.ask("two", previous_response_id="r1")).forwarded["input"][0] == user("one")


async def test_prefix_118_a_turn_that_is_not_stored_can_continue_others(client: Client) -> None:
    await client.turn("r1", "one")
    forwarded = (await client.turn("r2", "two", previous_response_id="r1", store=False)).forwarded
    assert forwarded["input"][0] == user("one")
    assert forwarded["store"] is False, "the model server may read it, too"
    await refused(client, previous_response_id="r2")


@pytest.mark.parametrize(
    ("owner", "reader", "finds"),
    [
        pytest.param("a", "a", True, id="own"),
        pytest.param("a", "b", False, id="prefix 119: of another tenant"),
        pytest.param("a", "default-flow", True, id="reader without a name"),
        pytest.param("default-flow", "b", True, id="without owner"),
    ],
)
async def test_prefix_119_tenants(owner: str, reader: str, finds: bool) -> None:
    store = make_store()
    await Client(store, owner).turn("r1", "one")
    client = Client(store, reader)
    if finds:
        await client.ask(previous_response_id="r1")
        assert await client.call("GET", "/v1/responses/r1")
        return
    assert (await refused(client, previous_response_id="r1")).code is ErrorCode.NOT_FOUND
    for method in ("GET", "DELETE"):
        with pytest.raises(RequestError, match="not found"):
            await client.call(method, "/v1/responses/r1")
    assert await Client(store, owner).call("GET", "/v1/responses/r1"), "nobody else can delete it"


async def test_a_tenants_turn_behind_another_tenants() -> None:
    store = make_store()
    await Client(store, "a").turn("r1")
    await Client(store).turn("r2", previous_response_id="r1")
    assert (await refused(Client(store, "b"), previous_response_id="r2")).code is ErrorCode.NOT_FOUND


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"previous_response_id": 7}, "previous_response_id must be an id"),
        ({"conversation": ["c"]}, "conversation must be an id"),
        ({"conversation": {"id": 3}}, "conversation must be an id"),
        ({"previous_response_id": "r", "conversation": "c"}, "cannot be used together"),
        ({"previous_response_id": "r", "input": {"role": "user"}}, "input must be a text or a list"),
    ],
)
async def test_requests_that_are_wrong(client: Client, document: dict[str, Any], text: str) -> None:
    error = await refused(client, **document)
    assert error.code is ErrorCode.BAD_REQUEST
    assert text in error.message


@pytest.mark.parametrize("document", [{}, {"previous_response_id": None}, {"previous_response_id": ""}, {"conversation": None}])
async def test_requests_that_continue_nothing_are_not_touched(client: Client, document: dict[str, Any]) -> None:
    exchange = await client.ask("x", **document)
    assert exchange.body == json.dumps({"model": "m", "input": "x", **document}).encode()
    assert not client.store.rewrites(exchange.request)


@pytest.mark.parametrize("api", [api for api in Api if api is not Api.RESPONSES])
async def test_other_apis_are_not_touched(client: Client, api: Api) -> None:
    exchange = await client.ask(api=api, previous_response_id="r1")
    assert not client.store.rewrites(exchange.request)
    client.answer(exchange, response("r1"))
    assert client.count("writing") == 0


async def test_a_cycle_ends(client: Client) -> None:
    await client.turn("r1", "one")
    await client.turn("r2", "two", previous_response_id="r1")
    await client.turn("r1", "again", previous_response_id="r2")
    forwarded = (await client.ask("end", previous_response_id="r1")).forwarded
    assert [item["content"] for item in forwarded["input"] if item["role"] == "user"] == ["two", "again", "end"]


async def test_long_histories_lose_their_oldest_turns(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugins.stores.repository.MAX_TURNS", 3)
    for number in range(1, 6):
        await client.turn(f"r{number}", str(number), previous_response_id=f"r{number - 1}" if number > 1 else None)
    forwarded = (await client.ask("end", previous_response_id="r5")).forwarded
    assert [item["content"] for item in forwarded["input"] if item["role"] == "user"] == ["3", "4", "5", "end"]


async def test_huge_histories_are_refused(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugins.stores.repository.MAX_HISTORY_BYTES", 1500)
    await client.turn("r1", "x" * 600)
    await client.turn("r2", "x" * 600, previous_response_id="r1")
    assert (await refused(client, previous_response_id="r2")).code is ErrorCode.PAYLOAD_TOO_LARGE


async def test_responses_expire() -> None:
    clock = FakeClock()
    client = Client(make_store({"storeConfig": {"inMemoryConfig": {"ttl": "1h"}}}, clock))
    await client.turn("r1")
    await client.ask(previous_response_id="r1")
    clock.advance(3599)
    await client.ask(previous_response_id="r1")
    clock.advance(1)
    assert (await refused(client, previous_response_id="r1")).code is ErrorCode.NOT_FOUND


async def test_the_model_is_the_one_that_the_client_knows(client: Client) -> None:
    exchange = await client.ask(model="alias")
    client.answer(exchange, response("r1", model="really-this-one"))
    known = await client.call("GET", "/v1/responses/r1")
    assert known is not None
    assert known["model"] == "alias"
