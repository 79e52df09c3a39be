"""Receiving over real sockets: attribution, gaps and replays, restarts, garbage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from epp.framework.types import Endpoint
from plugins.kvcache.attribution import Attribution, Topic, parse_topic
from plugins.kvcache.event_index import IndexSettings, make_index
from plugins.kvcache.event_processor import Source
from plugins.kvcache.receiver_settings import ReceiverSettings, binds, matches_selector, socket_address
from plugins.kvcache.request_keys import token_bytes
from plugins.kvcache.strangers import PATIENCE_S, Strangers
from plugins.kvcache.subscriber import EventReceiver
from tests.unit.plugins.kvcache.indexes import MAKERS
from tests.unit.plugins.kvcache.payloads import payload, stored
from tests.unit.plugins.kvcache.publishers import WAIT_S, Publisher, Replayer, publisher


def endpoint(address: str = "127.0.0.1", port: int = 8000, rank: int = 0, pod: str = "pod", **labels: str) -> Endpoint:
    return Endpoint.of(f"{pod}-rank-{rank}", address, port, labels, pod_name=pod, rank_index=rank)


# ── topics ──

ONE, OTHER = endpoint(), endpoint(port=8001, rank=1)
SIX = endpoint("fd00::5", pod="six")
POOL = Attribution([ONE, OTHER, SIX, endpoint("10.0.0.1", pod="alone")])
BOTH = ["127.0.0.1:8000", "127.0.0.1:8001"]

TOPICS: list[Any] = [
    pytest.param("kv@10.0.0.1@m", Source("10.0.0.1:8000", (), "m"), id="prefix 65: a bare address"),
    pytest.param("kv@127.0.0.1@m", Source(BOTH[0], BOTH, "m"), id="prefix 66: two ranks at an address"),
    pytest.param("kv@10.0.0.1:8000@org/m@v2", Source("10.0.0.1:8000", (), "org/m@v2"), id="prefix 69: a model with an @"),
    pytest.param("kv@127.0.0.1:8001@m", Source(BOTH[1], (), "m"), id="the port of a rank"),
    pytest.param("kv@[fd00::5]:8000@m", Source("[fd00::5]:8000", (), "m"), id="IPv6 with a port"),
    pytest.param("kv@[fd00::5]@m", Source("[fd00::5]:8000", (), "m"), id="IPv6 in brackets"),
    pytest.param("kv@fd00::5@m", Source("[fd00::5]:8000", (), "m"), id="IPv6"),
    pytest.param("kv@pod@m", Source(BOTH[0], BOTH, "m"), id="a pod's name"),
    pytest.param("kv@default/six@m", Source("[fd00::5]:8000", (), "m"), id="namespace and name"),
    pytest.param("default/pod-rank-1", Source(BOTH[1], (), ""), id="an endpoint's name as the whole topic"),
    pytest.param("kv@10.0.0.9@m", None, id="nobody"),
    pytest.param("", None, id="nothing"),
]


@pytest.mark.parametrize(("topic", "expected"), TOPICS)
def test_topics_name_endpoints(topic: str, expected: Source | None) -> None:
    assert POOL.of_topic(parse_topic(topic)) == expected


def test_a_connection_is_an_endpoint_whatever_the_topic_says() -> None:
    assert POOL.of_connection("10.0.0.1:8000", Topic("elsewhere", "m")) == Source("10.0.0.1:8000", (), "m")
    assert POOL.of_connection(BOTH[1], Topic("")) == Source(BOTH[1], BOTH)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        pytest.param("tcp://0.0.0.0:5557", True, id="prefix 93: all addresses"),
        pytest.param("tcp://relay.ns:5557", False, id="prefix 93: another host"),
        ("tcp://*:5557", True),
        ("tcp://[::]:5557", True),
        ("tcp://127.0.0.1:5557", True),
        ("tcp://203.0.113.7:5557", False),
        ("ipc:///tmp/events", True),
        ("inproc://events", True),
    ],
)
def test_an_address_is_ours_or_not(address: str, expected: bool) -> None:
    assert binds(address) is expected


def test_addresses_of_sockets() -> None:
    assert socket_address(endpoint(rank=2), 5557) == "tcp://127.0.0.1:5559"
    assert socket_address(SIX, 5557) == "tcp://[fd00::5]:5557"


@pytest.mark.parametrize(
    ("selector", "expected"),
    [("a=b", True), ("a==b,c", True), ("a!=b", False), ("!d", True), ("d", False), ("", True), ("a=b,d=e", False)],
)
def test_selectors(selector: str, expected: bool) -> None:
    assert matches_selector(selector)({"a": "b", "c": ""}) is expected
    with pytest.raises(ValueError, match="is not key=value"):
        matches_selector("a in (b)")


def test_strangers_have_a_minute() -> None:
    strangers = Strangers()
    assert strangers.admits("x", 0.0)
    assert strangers.expired(PATIENCE_S - 1) == []
    assert strangers.admits("x", PATIENCE_S - 1)
    assert strangers.expired(PATIENCE_S) == ["x"]
    assert not strangers.admits("x", PATIENCE_S)
    assert strangers.expired(PATIENCE_S + 3_600) == []
    assert strangers.admits("x", PATIENCE_S + 3_600)
    assert sum(strangers.admits(f"s{n}", 0.0) for n in range(5_000)) == 999


# ── sockets ──


class Received:
    """A receiver with its index."""

    def __init__(self, *, implementation: str = "python", pause_s: float = 0.0, **settings: Any) -> None:
        self.index = make_index(IndexSettings(block_size=4), implementation=implementation)
        self.later_s = 0.0
        self.receiver = EventReceiver(self.index, ReceiverSettings(**settings), self.clock, first_pause_s=pause_s)
        self.receiver.start()

    def clock(self) -> float:
        """The time, ``later_s`` later than it is."""
        return time.monotonic() + self.later_s

    def blocks(self, last: int) -> dict[str, int]:
        """Leading blocks of a prompt 1..last that each pod holds."""
        keys = self.index.keys("m", token_bytes(range(1, last + 1)), (), is_adapter=False)
        return {pod: match.blocks for pod, match in self.index.lookup(keys, self.clock()).items()}

    def waits(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so."""
        for _ in range(10_000):
            if condition():
                return
            assert self.receiver.applied.wait(WAIT_S)
            self.receiver.applied.clear()
        raise AssertionError("it never came")

    def sees(self, last: int, expected: dict[str, int]) -> None:
        """Wait until the pods hold these."""
        self.waits(lambda: self.blocks(last) == expected)


@contextmanager
def receiving(**settings: Any) -> Iterator[Received]:
    received = Received(**settings)
    try:
        yield received
    finally:
        received.receiver.stop()


def block(number: int) -> bytes:
    """A message that stores block ``number`` of the prompt 1, 2, 3, ..., from 0 on."""
    tokens = range(number * 4 + 1, number * 4 + 5)
    return payload(stored([number + 1], tokens, parent=number or None))


POD = "127.0.0.1:8000"


def test_prefix_70_without_a_filter_the_topics_of_pods_do_not_matter() -> None:
    with publisher() as engine, receiving(port=engine.port) as received:
        received.receiver.follow([endpoint()])
        assert engine.subscribed() == b""
        engine.send(block(0))
        received.sees(8, {POD: 1})


def test_prefix_67_the_connection_names_the_pod() -> None:
    with publisher(topic="") as engine, publisher() as other, receiving(port=engine.port) as received:
        received.receiver.follow([endpoint(), endpoint("127.0.0.2", pod="silent")])
        engine.subscribed()
        engine.send(block(0), block(1))
        received.sees(8, {POD: 2})
        other.send(block(0))


def test_a_filter_that_was_given_is_honoured() -> None:
    with publisher(topic="kv@x@m") as engine, receiving(port=engine.port, pod_topic_filter="kv@") as received:
        received.receiver.follow([endpoint()])
        assert engine.subscribed() == b"kv@"
        engine.send(block(0))
        received.sees(4, {POD: 1})


def test_prefix_68_a_central_socket_needs_topics() -> None:
    with receiving(central="tcp://127.0.0.1:0", follows_pods=False, topic_filter="") as received:
        received.receiver.follow([endpoint()])
        address = f"tcp://127.0.0.1:{received.receiver.central_port}"
        with publisher(address) as engine:
            engine.subscribed()
            engine.send(block(0))
            received.waits(lambda: received.receiver.counts().dropped == {"topic": 1})
        with publisher(address, topic="kv@127.0.0.1@m") as engine:
            engine.subscribed()
            engine.send(block(0))
            received.sees(4, {POD: 1})


def test_ranks_behind_one_address_of_a_central_socket() -> None:
    with receiving(central="tcp://127.0.0.1:0", follows_pods=False) as received:
        received.receiver.follow([endpoint(), endpoint(port=8001, rank=1)])
        with publisher(f"tcp://127.0.0.1:{received.receiver.central_port}", topic="kv@127.0.0.1@m") as engine:
            assert engine.subscribed() == b"kv@"
            engine.send(payload(stored([1], range(1, 5)), rank=1))
            received.sees(4, {"127.0.0.1:8001": 1})


def test_a_pod_that_is_found_later_keeps_what_it_said() -> None:
    with (
        receiving(central="tcp://127.0.0.1:0", follows_pods=False) as received,
        publisher(f"tcp://127.0.0.1:{received.receiver.central_port}", topic="kv@127.0.0.1@m") as engine,
    ):
        engine.subscribed()
        engine.send(block(0))
        received.sees(4, {"127.0.0.1": 1})
        received.receiver.follow([endpoint()])
        received.sees(4, {POD: 1})
        engine.send(block(1))
        received.sees(8, {POD: 2})


def test_prefix_61_frames_that_are_no_message() -> None:
    with publisher() as engine, receiving(port=engine.port) as received:
        received.receiver.follow([endpoint()])
        engine.subscribed()
        engine.send_frames([b"", bytes(8)])
        engine.send_frames([b"", b"1234", block(0)])
        engine.send_frames([b"", bytes(8), block(0), b"more"])
        engine.send(b"garbage", block(0))
        received.sees(4, {POD: 1})
        assert received.receiver.counts().dropped == {"frames": 3}
        assert received.index.counts().decode_errors == {"payload": 1}


def test_an_engine_that_restarts_holds_nothing() -> None:
    with publisher() as engine, receiving(port=engine.port) as received:
        received.receiver.follow([endpoint()])
        engine.subscribed()
        engine.send(block(0), block(1))
        received.sees(8, {POD: 2})
        engine.number = 0
        engine.send(block(0))
        received.sees(8, {POD: 1})
        assert received.receiver.counts().restarts == 1


def test_a_restart_is_that_of_all_ranks_behind_one_socket() -> None:
    with publisher() as engine, receiving(port=engine.port) as received:
        received.receiver.follow([endpoint(), endpoint(port=8001, rank=1)])
        engine.subscribed()
        engine.send(payload(stored([1], range(1, 5)), rank=0), payload(stored([1], range(1, 5)), rank=1))
        received.sees(4, {POD: 1, "127.0.0.1:8001": 1})
        engine.number = 0
        engine.send(payload(rank=0))
        received.sees(4, {})


def test_prefix_79_subscribers_follow_the_pool() -> None:
    with publisher() as engine, receiving(port=engine.port) as received:
        assert received.receiver.counts().subscribers == 0
        received.receiver.follow([endpoint()])
        engine.subscribed()
        received.receiver.follow([endpoint()])
        engine.send(block(0))
        received.sees(4, {POD: 1})
        assert received.receiver.counts().subscribers == 1
        received.receiver.follow([endpoint(port=9000)])
        received.waits(lambda: "127.0.0.1:9000" in received.index.counts().pods)
        assert received.index.counts().pods == {"127.0.0.1:9000": 0}
        assert received.receiver.counts().subscribers == 1
        received.receiver.follow([])
        received.waits(lambda: received.index.counts().pods == {})
        assert received.receiver.counts().subscribers == 0


def test_another_server_at_the_same_address_holds_nothing() -> None:
    with publisher() as engine, receiving(port=engine.port) as received:
        first, again = endpoint(), endpoint(pod="another")
        received.receiver.follow([first])
        engine.subscribed()
        engine.send(block(0), block(1))
        received.sees(8, {POD: 2})
        received.receiver.follow([], [first])
        received.receiver.follow([again])  # often before the thread has looked
        received.sees(8, {})

        def arrives() -> bool:
            engine.send(block(0))
            return received.blocks(8) == {POD: 1}

        received.waits(arrives)
        received.receiver.follow([first], [again])
        received.sees(8, {})


def test_nothing_is_kept_of_strangers_that_are_given_up() -> None:
    with (
        receiving(central="tcp://127.0.0.1:0", follows_pods=False) as received,
        publisher(f"tcp://127.0.0.1:{received.receiver.central_port}", topic="kv@10.9.9.9@m") as engine,
    ):
        engine.subscribed()
        engine.send(block(0))
        received.sees(4, {"10.9.9.9": 1})
        assert received.receiver.counts().received == {"10.9.9.9": 1}
        received.later_s = PATIENCE_S
        received.receiver.follow([])
        received.sees(4, {})
        assert received.receiver.counts().received == {}
        assert received.receiver.last_message_s == {}


@pytest.mark.parametrize("layout", ["old", "new"])
def test_prefix_76_what_was_missed_is_replayed(layout: str) -> None:
    replayer = Replayer({n: block(n) for n in range(4)}, layout)
    try:
        with publisher() as engine, receiving(port=engine.port, replay_port=replayer.port) as received:
            received.receiver.follow([endpoint()])
            received.sees(16, {POD: 4})
            engine.subscribed()
            replayer.ring.update({n: block(n) for n in range(4, 7)})
            engine.number = 7
            engine.send(block(7))
            received.sees(32, {POD: 8})
            assert replayer.asked == [0, 4]
    finally:
        replayer.close()


@pytest.mark.parametrize("implementation", [name for name in ("python", "native") if name in ("python", *MAKERS)])
def test_a_flood_is_applied_in_its_order(implementation: str) -> None:
    with publisher() as engine, receiving(port=engine.port, implementation=implementation) as received:
        received.receiver.follow([endpoint()])
        engine.subscribed()
        for number in range(2_000):
            engine.send(block(number))
        received.sees(8_000, {POD: 2_000})
        assert received.receiver.counts().gaps == 0


class Defect:
    """A defect of the index in what it is asked to apply, for as long as it is wanted."""

    def __init__(self, received: Received, times: int) -> None:
        self._apply_all = received.index.apply_all
        self.left = times
        received.index.apply_all = self.apply_all  # type: ignore[method-assign]

    def apply_all(self, messages: Any) -> None:
        if self.left:
            self.left -= 1
            raise RuntimeError("a defect")
        self._apply_all(messages)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged, without what follows from it."""
    return [record.getMessage().partition(",")[0] for record in caplog.records]


DOWN, AGAIN = "KV events are not received for the moment", "KV events are received again"


@pytest.mark.parametrize("implementation", [name for name in ("python", "native") if name in ("python", *MAKERS)])
def test_after_a_defect_events_are_received_again(implementation: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with publisher() as engine, receiving(port=engine.port, implementation=implementation) as received:
        received.receiver.follow([endpoint()])
        engine.subscribed()
        engine.send(block(0), block(1))
        received.sees(8, {POD: 2})
        defect = Defect(received, times=1)
        engine.send(block(2))
        received.waits(lambda: received.receiver.restarts == 1)
        assert defect.left == 0
        assert (received.receiver.problem, received.receiver.last_problem) == ("", "RuntimeError: a defect")
        assert received.blocks(12) == {}, "nobody knows what was missed"
        assert received.index.counts().pods == {POD: 0}
        engine.subscribed()
        engine.send(block(0))
        received.sees(12, {POD: 1})
        counts = received.receiver.counts()
        assert (counts.received, counts.subscribers, counts.gaps) == ({POD: 4}, 1, 0), "it counts on"
        assert received.receiver.connected() == {POD: True}
    assert messages(caplog) == [DOWN, AGAIN]


def test_after_a_defect_blocks_are_asked_for_again() -> None:
    replayer = Replayer({n: block(n) for n in range(4)})
    try:
        with publisher() as engine, receiving(port=engine.port, replay_port=replayer.port) as received:
            received.receiver.follow([endpoint()])
            received.sees(16, {POD: 4})
            engine.subscribed()
            Defect(received, times=1)
            engine.number = 4
            engine.send(block(4))
            received.waits(lambda: received.receiver.restarts == 1)
            received.sees(16, {POD: 4})
            assert replayer.asked == [0, 0]
    finally:
        replayer.close()


def test_while_a_defect_keeps_it_down_nothing_is_known_and_the_pool_is_followed(caplog: pytest.LogCaptureFixture) -> None:
    with publisher() as engine, receiving(port=engine.port, pause_s=3_600.0) as received:
        gone = endpoint("127.0.0.9", pod="gone")
        received.receiver.follow([endpoint(), gone])
        engine.subscribed()
        engine.send(block(0))
        received.sees(4, {POD: 1})
        Defect(received, times=1)
        engine.send(block(1))
        received.waits(lambda: bool(received.receiver.problem) and received.receiver.counts().subscribers == 0)
        assert received.receiver.problem == "RuntimeError: a defect"
        assert received.receiver.counts().subscribers == 0
        assert received.receiver.connected() == {}
        assert received.receiver.restarts == 0
        for _ in range(3):
            received.receiver.follow([endpoint()], [gone])
        assert len(received.receiver._changes) == 1, "only who is there when it goes on counts"
    assert received.receiver._thread is None, "the end does not wait for the next attempt"
    assert received.blocks(8) == {}
    assert messages(caplog) == [DOWN]


def test_who_left_while_it_was_down_is_not_known_any_more() -> None:
    with publisher() as engine, receiving(port=engine.port) as received:
        received.receiver.follow([endpoint(), endpoint("127.0.0.9", pod="gone")])
        engine.subscribed()
        Defect(received, times=1)

        def leaves() -> None:
            received.receiver.follow([endpoint()])

        received.receiver._broken = tapped(received.receiver._broken, leaves)  # type: ignore[method-assign]
        engine.send(block(0))
        received.waits(lambda: received.receiver.restarts == 1)
        assert received.index.counts().pods == {POD: 0}


def tapped(before: Callable[[Exception], None], after: Callable[[], None]) -> Callable[[Exception], None]:
    """Both, one after the other."""

    def both(error: Exception) -> None:
        before(error)
        after()

    return both


def test_a_defect_that_comes_again_is_tried_again_and_again(caplog: pytest.LogCaptureFixture) -> None:
    with publisher() as engine, receiving(port=engine.port) as received:
        received.receiver.follow([endpoint()])
        for number in range(3):
            engine.subscribed()
            Defect(received, times=1)
            engine.send(block(0))
            received.waits(lambda reached=number + 1: received.receiver.restarts == reached)  # type: ignore[misc]
        engine.subscribed()
        engine.send(block(0))
        received.sees(4, {POD: 1})
    assert messages(caplog).count(DOWN) == 3


def test_an_address_that_is_taken_meanwhile_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    pauses: list[float | None] = []
    with receiving(central="tcp://127.0.0.1:0", follows_pods=False, pause_s=1.0) as received:
        settings, other = received.receiver._settings, Publisher()
        taken = replace(settings, central=f"tcp://127.0.0.1:{other.port}")
        received.receiver._stopping.wait = pausing(pauses, received, (taken, taken, settings))  # type: ignore[method-assign]
        with publisher(f"tcp://127.0.0.1:{received.receiver.central_port}", topic="kv@10.9.9.9@m") as engine:
            engine.subscribed()
            Defect(received, times=1)
            engine.send(block(0))
            received.waits(lambda: received.receiver.restarts == 1)
        other.close()
        assert "kvEventsConfig.zmqEndpoint" in received.receiver.last_problem
        assert received.receiver.problem == ""
        assert pauses == [1.0, 2.0, 4.0]
        assert received.index.counts().pods == {}, "nothing is kept of who is not in the pool"
    not_yet = "KV events cannot be received yet"
    assert messages(caplog) == [DOWN, not_yet, not_yet, AGAIN]


def pausing(pauses: list[float | None], received: Received, settings: tuple[ReceiverSettings, ...]) -> Callable[..., bool]:
    """A wait that is over at once, with other settings each time; then it is as it was."""
    left = list(settings)
    wait = received.receiver._stopping.wait

    def over(timeout: float | None = None) -> bool:
        if not left:
            return wait(timeout)
        pauses.append(timeout)
        received.receiver._settings = left.pop(0)
        return False

    return over


def test_an_address_that_is_taken_is_named() -> None:
    engine = Publisher()
    try:
        with pytest.raises(OSError, match=f"kvEventsConfig.zmqEndpoint tcp://127.0.0.1:{engine.port}: Address already in use"):
            Received(central=f"tcp://127.0.0.1:{engine.port}")
    finally:
        engine.close()


def test_it_stops_while_events_come() -> None:
    with publisher() as engine:
        with receiving(port=engine.port) as received:
            received.receiver.follow([endpoint()])
            engine.subscribed()
            engine.send(*[block(0)] * 100)
        assert received.receiver._thread is None


def test_a_selector_that_matches_no_endpoint_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    received = Received(wants=lambda endpoint: endpoint.labels.get("app") == "other")
    try:
        for _ in range(2):
            received.receiver.follow([Endpoint.of("a", "127.0.0.1", 8000, {"app": "mine"})])
    finally:
        received.receiver.stop()
    assert [record.getMessage().split(",")[0] for record in caplog.records] == [
        "podDiscoveryConfig matches no endpoint of the pool"
    ]
