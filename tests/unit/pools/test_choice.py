"""The handler of a shared port: the pool of each request, its memory, its readers, and what is answered without a pool."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.pools.choice import NO_MEMORY, NO_POOL, NOT_LOADED, PoolChoice, Rule
from epp.pools.match import Match
from epp.pools.readers import ReaderUnion, own_results
from epp.pools.target import PoolStream, PoolTarget
from epp.seam import BodyState, Edits, Metadata, Outcome, Reply, Request, ResponseHead, Route, Stream
from tests.unit.decision.rig import FakeHead, FakeRequest, FakeStream, chunk, outcome, request

ROUTE = Route(Edits(), {})


class Pool:
    """A handler that notes its calls; by default it keeps its streams waiting."""

    def __init__(self, answer: Route | Reply | None = None, fails: bool = False) -> None:
        self.requests: list[Request] = []
        self.streams: list[Stream] = []
        self.calls: list[str] = []
        self._answer = answer
        self._fails = fails

    def request(self, stream: Stream, request: Request) -> None:
        assert stream.state is None
        stream.state = self
        self.streams.append(stream)
        self.requests.append(request)
        self.calls.append("request")
        if self._fails:
            raise RuntimeError("defect")
        if self._answer is not None:
            stream.answer(self._answer)

    def response_headers(self, stream: Stream, head: ResponseHead) -> Edits | None:
        assert stream.state is self
        self.calls.append("response_headers")
        return Edits((("x", "y"),))

    def response_body(self, stream: Stream, chunks: Any) -> None:
        assert stream.state is self
        self.calls.append("response_body")

    def finished(self, stream: Stream, outcome: Outcome) -> Metadata | None:
        assert stream.state is self
        self.calls.append("finished")
        return {"n": {"k": 1}}


class Port:
    """A shared port with pools behind it."""

    def __init__(self, **pools: Pool | None) -> None:
        self.refused: list[tuple[str, str]] = []
        self.choice = PoolChoice(lambda pool, reason: self.refused.append((pool, reason)))
        self.targets = {name: PoolTarget(name) for name in pools}
        for name, pool in pools.items():
            self.targets[name].handler = pool
        self.use()

    def use(self, default: str = "", *names: str) -> None:
        names = names or tuple(self.targets)
        self.choice.use([Rule(Match((f"{name}.example",)), self.targets[name], name == default) for name in names])

    def send(self, authority: str, *, path: str = "/v1/completions", body: bytes = b"{}", **more: Any) -> FakeStream:
        stream = FakeStream()
        asked = request(body, path=path, headers={":authority": authority, ":method": "POST"}, **more)
        self.choice.request(stream, asked)
        return stream

    def end(self, stream: FakeStream) -> Metadata | None:
        return self.choice.finished(stream, outcome())


def test_a_stream_stays_with_its_pool() -> None:
    a, b = Pool(ROUTE), Pool(ROUTE)
    port = Port(a=a, b=b)
    stream = port.send("a.example")
    assert stream.answers == [ROUTE]
    port.use("b", "b")  # the pool is gone; what has begun ends there
    assert port.choice.response_headers(stream, FakeHead()) == Edits((("x", "y"),))
    port.choice.response_body(stream, [chunk(b"x")])
    assert port.end(stream) == {"n": {"k": 1}}
    assert a.calls == ["request", "response_headers", "response_body", "finished"]
    port.end(port.send("a.example"))
    assert (b.calls, b.streams[0].state) == (["request", "finished"], b)


def test_the_default_comes_last_wherever_it_stands() -> None:
    a, b = Pool(ROUTE), Pool(ROUTE)
    port = Port(a=a, b=b)
    port.use("a")
    for authority in ("b.example", "a.example", "other"):
        port.end(port.send(authority))
    assert (a.calls.count("request"), b.calls.count("request")) == (2, 1)


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/v1/chat/completions", lambda body: json.loads(body)["error"]["code"]),
        ("/v1/messages", lambda body: json.loads(body)["error"]["type"]),
        ("/other", lambda body: body.decode().partition(" - ")[0]),
    ],
)
def test_refusals_have_the_shape_of_the_api(path: str, shape: Callable[[bytes], str]) -> None:
    port = Port(a=None)
    unknown, unloaded = port.send("x", path=path), port.send("a.example", path=path)
    assert (unknown.reply.status, unloaded.reply.status) == (404, 503)
    assert shape(unknown.reply.body) in ("NotFound", "not_found_error", "inference error: NotFound")
    assert b"'x'" in unknown.reply.body
    assert b"/debug/pools" in unloaded.reply.body
    assert port.refused == [("", NO_POOL), ("a", NOT_LOADED)]
    for stream in (unknown, unloaded):
        assert port.end(stream) is None
        assert port.choice.response_headers(stream, FakeHead()) is None


# ── memory ──


def test_a_pool_has_room_again_when_a_request_is_decided_about_or_over() -> None:
    pool = Pool()
    port = Port(a=pool)
    target = port.targets["a"]
    target.limit_bytes = 10
    first, second = port.send("a.example", body=b"123456"), port.send("a.example", body=b"1234")
    assert (target.held_bytes, target.open) == (10, 2)
    assert port.refused == []
    third = port.send("a.example", body=b"1")
    assert [asked.body_state for asked in pool.requests][-1] is BodyState.NO_MEMORY
    assert bytes(pool.requests[-1].body) == b""
    assert port.refused == [("a", NO_MEMORY)]
    pool.streams[0].answer(ROUTE)
    pool.streams[0].answer(Reply(429, b""))  # an eviction later
    assert (target.held_bytes, first.answers) == (4, [ROUTE, Reply(429, b"")])
    for stream in (first, second, third):
        port.end(stream)
    assert (target.held_bytes, target.open) == (0, 0)


def test_a_handler_that_fails_leaves_nothing_behind() -> None:
    port = Port(a=Pool(fails=True))
    port.targets["a"].limit_bytes = 10
    stream = FakeStream()
    with pytest.raises(RuntimeError):
        port.choice.request(stream, request(b"123", headers={":authority": "a.example"}))
    port.end(stream)
    assert (port.targets["a"].held_bytes, port.targets["a"].open) == (0, 0)


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 12), st.sampled_from("ras")), max_size=30))
def test_what_is_held_is_what_waits_and_never_above_the_limit(steps: list[tuple[str, int, str]]) -> None:
    """Of each pool by itself: bodies that were taken and are neither answered nor over; all is given back in the end."""
    pools = {"a": Pool(), "b": Pool()}
    port = Port(**pools)
    port.targets["a"].limit_bytes = 20
    open_streams: dict[str, list[FakeStream]] = {"a": [], "b": []}
    waiting: dict[str, dict[int, int]] = {"a": {}, "b": {}}
    for name, size, step in steps:
        pool, target = pools[name], port.targets[name]
        if step == "r" or not open_streams[name]:
            stream = port.send(f"{name}.example", body=b"x" * size)
            open_streams[name].append(stream)
            if pool.requests[-1].body_state is BodyState.COMPLETE and target.limit_bytes:
                waiting[name][id(stream)] = size
        elif step == "a":
            stream = open_streams[name][0]
            inner = stream.state
            assert isinstance(inner, PoolStream)
            inner.answer(ROUTE)
            waiting[name].pop(id(stream), None)
        else:
            stream = open_streams[name].pop()
            port.end(stream)
            waiting[name].pop(id(stream), None)
        assert target.held_bytes == sum(waiting[name].values())
        assert not target.limit_bytes or target.held_bytes <= target.limit_bytes
        assert target.open == len(open_streams[name])
    for streams in open_streams.values():
        for stream in streams:
            port.end(stream)
    assert [(target.held_bytes, target.open) for target in port.targets.values()] == [(0, 0), (0, 0)]


def test_a_retired_pool_tells_when_its_last_request_is_over() -> None:
    told: list[str] = []
    port = Port(a=Pool())
    first, second = port.send("a.example"), port.send("a.example")
    port.targets["a"].retire(lambda: told.append("idle"))
    port.end(first)
    assert told == []
    port.end(second)
    assert told == ["idle"]
    port.targets["a"].retire(lambda: told.append("at once"))
    assert told == ["idle", "at once"]


# ── readers ──


def read_by(port: Port, *results: object) -> FakeRequest:
    asked = request(headers={":authority": "a.example"})
    asked.read = results
    port.choice.request(FakeStream(), asked)
    return asked


def test_a_request_is_shown_as_it_is_where_all_readers_are_the_pools_own() -> None:
    pool = Pool()
    port = Port(a=pool)
    asked = read_by(port, 1, 2)
    assert pool.requests[-1] is asked, "no readers of its own"
    port.targets["a"].use_places((0, 1))
    asked = read_by(port, 1, 2)
    assert pool.requests[-1] is asked


def test_a_pool_gets_its_own_results_in_its_own_order() -> None:
    pool = Pool()
    port = Port(a=pool)
    port.targets["a"].use_places((2, 0))
    asked = read_by(port, "x", "y", "z")
    shown = pool.requests[-1]
    assert shown.read == ("z", "x")
    assert (shown.headers, shown.body, shown.at_s, shown.metadata) == (asked.headers, asked.body, asked.at_s, asked.metadata)
    read_by(port, "x", "y")
    assert pool.requests[-1].read == (), "a stream that is older than one of the readers"


@given(st.lists(st.lists(st.sampled_from("abcdef"), unique=True, max_size=4), max_size=8))
def test_what_was_read_before_a_change_is_never_taken_for_another_readers(asked: list[list[str]]) -> None:
    """Places never change: of any older state of the union a pool gets its own results, or none."""
    union = ReaderUnion()
    states: list[tuple[str, ...]] = []
    wanted: list[tuple[list[str], tuple[int, ...]]] = []
    for names in asked:
        wanted.append((names, union.places(names)))
        states.append(union.names)
    for names, places in wanted:
        for state in states:
            results = own_results(state, places)  # each reader's result is its own name
            assert list(results) in ([], names)
        assert list(own_results(union.names, places)) == names
