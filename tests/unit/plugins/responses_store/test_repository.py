"""Back ends that are slow, away or busy; and the one in memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.errors import ErrorCode, RequestError
from epp.framework.testing import FakeClock
from plugins.stores.backend import MemoryBackend, StoreError
from plugins.stores.repository import Repository
from plugins.stores.responses import ResponsesStore
from plugins.stores.turns import Conversation, Turn
from tests.unit.plugins.responses_store.rig import Client, response, user


class Unsteady(MemoryBackend):
    """In memory, but each operation waits for ``go``, then fails if it is told to."""

    deadline_s = 30.0

    def __init__(self) -> None:
        super().__init__(3600, 100, 10_000, FakeClock())
        self.go = asyncio.Event()
        self.go.set()
        self.fails = False
        self.meddle: Callable[[], Any] | None = None

    async def _ready(self) -> None:
        await self.go.wait()
        if self.fails:
            raise StoreError("gone fishing")

    async def get(self, key: str) -> bytes | None:
        await self._ready()
        found = await super().get(key)
        if self.meddle is not None:
            meddle, self.meddle = self.meddle, None
            await meddle()
        return found

    async def put(self, key: str, document: bytes, *, lasting: bool) -> None:
        await self._ready()
        await super().put(key, document, lasting=lasting)

    async def delete(self, key: str) -> None:
        await self._ready()
        await super().delete(key)


@pytest.fixture
def backend() -> Unsteady:
    return Unsteady()


def client(backend: Unsteady, *, forward: bool = False) -> Client:
    return Client(ResponsesStore(backend, forward_unknown=forward))


async def status(client: Client, **document: Any) -> ErrorCode:
    with pytest.raises(RequestError) as caught:
        await client.ask(**document)
    return caught.value.code


async def test_prefix_117_a_store_that_is_away(backend: Unsteady) -> None:
    await client(backend).turn("r1")
    backend.fails = True
    asked = client(backend)
    assert await status(asked, previous_response_id="r1") is ErrorCode.SERVICE_UNAVAILABLE
    for method, path in (("GET", "/v1/responses/r1"), ("DELETE", "/v1/responses/r1"), ("POST", "/v1/conversations")):
        with pytest.raises(RequestError, match="cannot be reached"):
            await asked.call(method, path)
    lenient = client(backend, forward=True)
    assert (await lenient.ask(previous_response_id="r1")).forwarded["previous_response_id"] == "r1"
    assert await lenient.call("GET", "/v1/responses/r1") is None


async def test_requests_that_need_no_store_do_not_notice(backend: Unsteady, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "plugins.stores.repository")
    backend.fails = True
    asked = client(backend)
    for number in range(3):
        await asked.turn(f"r{number}")
    await asked.store.stop()
    assert asked.count("lost") == 3
    assert asked.count("is_down") is True
    backend.fails = False
    await asked.turn("r4")
    await asked.store.stop()
    assert asked.count("is_down") is False
    assert [record.getMessage() for record in caplog.records] == [
        "responses store cannot be used",
        "responses store can be used again",
    ], "said when it changes, not each time"


async def test_a_store_that_is_too_slow(backend: Unsteady) -> None:
    backend.deadline_s = 0.02
    backend.go.clear()
    assert await status(client(backend), previous_response_id="r1") is ErrorCode.SERVICE_UNAVAILABLE


async def test_who_answers_at_once_finds_the_turn(backend: Unsteady) -> None:
    asked = client(backend)
    backend.go.clear()
    await asked.turn("r1", "one")
    second = asyncio.create_task(asked.ask("two", previous_response_id="r1"))
    await asyncio.sleep(0)
    assert not second.done()
    backend.go.set()
    assert (await second).forwarded["input"][0] == user("one")


async def test_turns_of_one_conversation_follow_each_other(backend: Unsteady) -> None:
    asked = client(backend)
    created = await asked.call("POST", "/v1/conversations")
    assert created is not None
    key = created["id"]
    exchanges = [await asked.ask(str(number), conversation=key) for number in range(3)]
    backend.go.clear()
    for number, exchange in enumerate(exchanges):
        asked.answer(exchange, response(f"r{number}"))
    backend.go.set()
    forwarded = (await asked.ask("end", conversation=key)).forwarded
    texts = [item["content"][0]["text"] for item in forwarded["input"][:-1]]
    assert texts == ["0", "answer of r0", "1", "answer of r1", "2", "answer of r2"]


async def test_a_change_that_another_picker_precedes(backend: Unsteady) -> None:
    mine, theirs = Repository(backend), Repository(backend)
    await mine.create(Conversation("c", 0.0, ""))

    def add(key: str) -> Callable[[Conversation], Conversation]:
        return lambda known: replace(known, items=[*known.items, {"id": key}])

    backend.meddle = lambda: theirs.change("c", "", add("theirs"))
    changed = await mine.change("c", "", add("mine"))
    assert changed is not None
    assert changed.items == [{"id": "theirs"}, {"id": "mine"}]


async def test_a_change_that_never_succeeds(backend: Unsteady, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*args: object) -> bool:
        return False

    repository = Repository(backend)
    await repository.create(Conversation("c", 0.0, ""))
    monkeypatch.setattr(backend, "replace", never)
    with pytest.raises(StoreError, match="changed by others"):
        await repository.change("c", "", lambda known: known)


async def test_writes_that_wait_are_bounded(backend: Unsteady, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugins.stores.repository.MAX_WRITES", 2)
    asked = client(backend)
    backend.go.clear()
    for number in range(5):
        await asked.turn(f"r{number}")
    assert (asked.count("writing"), asked.count("dropped")) == (2, 3)
    backend.go.set()
    await asked.store.stop()
    assert (asked.count("writing"), asked.count("written")) == (0, 2)


async def test_a_write_has_a_deadline(backend: Unsteady, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugins.stores.repository.WRITE_DEADLINE_S", 0.02)
    asked = client(backend)
    backend.go.clear()
    await asked.turn("r1")
    await asyncio.wait(list(asked.store._repository._writing.values()))
    assert asked.count("lost") == 1


async def test_what_is_in_the_store_of_another_program(backend: Unsteady) -> None:
    asked = client(backend)
    for document in (b"", b"[]", b'"x"', b'{"id":"r1"}', Conversation("r1", 0, "").encode()):
        await backend.put("r1", document, lasting=True)
        assert await status(asked, previous_response_id="r1") is ErrorCode.NOT_FOUND
        with pytest.raises(RequestError, match="not found"):
            await asked.call("GET", "/v1/responses/r1")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


@given(items=st.lists(json_values, max_size=3), texts=st.tuples(*[st.text(max_size=5)] * 5), created=st.floats(0, 1e10))
def test_a_turn_comes_back_as_it_was(items: list[Any], texts: tuple[str, ...], created: float) -> None:
    key, previous, conversation, model, tenant = texts
    turn = Turn(key, previous, conversation, model, created, items, items[::-1], tenant, {"x": items})
    assert Turn.decode(turn.encode()) == turn


# ── in memory ──


def memory(clock: FakeClock | None = None, **changes: Any) -> MemoryBackend:
    usual = {"ttl_s": 10.0, "max_entries": 3, "max_entry_bytes": 100}
    return MemoryBackend(**{**usual, **changes}, clock=clock or FakeClock())


async def present(backend: MemoryBackend, keys: str) -> str:
    return "".join([key for key in keys if await backend.get(key) is not None])


async def test_the_least_recently_used_goes_first() -> None:
    backend = memory()
    for key in "abc":
        await backend.put(key, b"x", lasting=True)
    await backend.get("a")
    await backend.put("d", b"x", lasting=True)
    assert await present(backend, "abcd") == "acd"


async def test_reading_does_not_prolong_a_life() -> None:
    clock = FakeClock()
    backend = memory(clock)
    await backend.put("a", b"x", lasting=True)
    clock.advance(9)
    assert await present(backend, "a") == "a"
    clock.advance(1)
    assert await present(backend, "a") == ""


async def test_replacing_is_compare_and_set() -> None:
    clock = FakeClock()
    backend = memory(clock)
    await backend.put("a", b"1", lasting=False)
    clock.advance(9)
    assert not await backend.replace("a", b"0", b"2")
    assert await backend.replace("a", b"1", b"2")
    clock.advance(9)
    assert await backend.get("a") == b"2", "its life began again"
    assert not await backend.replace("b", b"", b"2")


class Swept(MemoryBackend):
    """Tells when nothing is left."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(10.0, 3, 100, clock)
        self.is_empty = asyncio.Event()

    def sweep(self) -> None:
        super().sweep()
        if not self.debug_state()["entries"]:
            self.is_empty.set()


async def test_sweeping_forgets_what_nobody_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugins.stores.backend._SWEEP_EVERY_S", 0.001)
    clock = FakeClock()
    backend = Swept(clock)
    await backend.put("a", b"xy", lasting=True)
    await backend.start()
    assert backend.debug_state() == {"backend": "memory", "entries": 1, "bytes": 2}
    clock.advance(10)
    await backend.is_empty.wait()
    await backend.stop()
