"""EndpointStore: membership, snapshots, look-ups, listeners."""

from __future__ import annotations

import logging

import pytest

from epp.datalayer.store import EndpointStore
from epp.framework.interfaces import EndpointNotifier
from epp.framework.types import UNSCRAPED, Endpoint, EndpointChange, EndpointId, EndpointMetrics

_NOTIFIER: type[EndpointNotifier] = EndpointStore
BUSY = EndpointMetrics(waiting_queue=7)


class Recorder:
    """A listener that writes down what it is told."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.batches: list[EndpointChange] = []

    def endpoints_changed(self, change: EndpointChange) -> None:
        self.batches.append(change)
        self.events += [f"-{endpoint.name}@{endpoint.host_port}" for endpoint in change.removed]
        self.events += [f"~{endpoint.name}" for endpoint in change.updated]
        self.events += [f"+{endpoint.name}@{endpoint.host_port}" for endpoint in change.added]


class Broken(Recorder):
    """A listener with a bug."""

    def endpoints_changed(self, change: EndpointChange) -> None:
        raise RuntimeError("a bug")


def endpoint(name: str, port: int = 8000, address: str = "10.0.0.1", **labels: str) -> Endpoint:
    return Endpoint.of(name, address, port, labels)


def id_of(name: str) -> EndpointId:
    return EndpointId(f"default/{name}")


@pytest.fixture
def store() -> EndpointStore:
    """a, b and c on three ports of one address."""
    store = EndpointStore()
    store.replace_all([endpoint("a", 8001), endpoint("b", 8002), endpoint("c", 8003)])
    return store


@pytest.fixture
def recorder(store: EndpointStore) -> Recorder:
    recorder = Recorder()
    store.subscribe(recorder)
    recorder.events.clear()
    recorder.batches.clear()
    return recorder


def names(store: EndpointStore) -> str:
    return "".join(e.name for e in store.snapshot().endpoints)


def test_endpoints_keep_the_order_of_their_declaration(store: EndpointStore) -> None:
    store.upsert(endpoint("b", 8002, role="decode"))
    store.delete(id_of("a"))
    store.upsert(endpoint("a", 8001))
    assert names(store) == "bca"


def test_replace_all_takes_the_new_order_and_the_last_of_a_doubled_id(store: EndpointStore) -> None:
    store.replace_all([endpoint("c", 8003), endpoint("a", 8001), endpoint("c", 9000)])
    assert names(store) == "ca"
    assert store.snapshot().endpoints[0].port == 9000


def test_a_changed_label_keeps_the_metrics(store: EndpointStore, recorder: Recorder) -> None:
    store.set_metrics(id_of("b"), BUSY)
    store.upsert(endpoint("b", 8002, role="decode"))
    assert store.metrics(id_of("b")) is BUSY
    assert recorder.events == ["~b"]


@pytest.mark.parametrize("changed", [{"port": 9000}, {"port": 8002, "address": "10.0.0.2"}], ids=["port", "address"])
def test_a_changed_address_is_another_server(store: EndpointStore, recorder: Recorder, changed: dict[str, object]) -> None:
    store.set_metrics(id_of("b"), BUSY)
    moved = Endpoint.of("b", str(changed.get("address", "10.0.0.1")), int(str(changed["port"])))
    store.upsert(moved)
    assert store.metrics(id_of("b")) is UNSCRAPED
    assert recorder.events == ["-b@10.0.0.1:8002", f"+b@{moved.host_port}"]
    assert names(store) == "abc"


def test_an_equal_upsert_is_nothing_new(store: EndpointStore, recorder: Recorder) -> None:
    store.upsert(endpoint("b", 8002))
    store.replace_all([endpoint("a", 8001), endpoint("b", 8002), endpoint("c", 8003)])
    assert recorder.events == []


def test_listeners_hear_of_additions_and_removals(store: EndpointStore, recorder: Recorder) -> None:
    store.replace_all([endpoint("b", 8002), endpoint("d", 8004)])
    store.delete(id_of("nobody"))
    assert recorder.events == ["-a@10.0.0.1:8001", "-c@10.0.0.1:8003", "+d@10.0.0.1:8004"]


def test_a_change_is_told_at_once(store: EndpointStore, recorder: Recorder) -> None:
    b = endpoint("b", 8002, role="decode")
    c = endpoint("c", 9003)
    d = endpoint("d", 8004)
    a, moved = store.snapshot().endpoints[0], store.snapshot().endpoints[2]
    store.replace_all([b, c, d])
    assert recorder.batches == [EndpointChange(added=(c, d), updated=(b,), removed=(a, moved))]


def test_a_new_listener_hears_of_what_is_there_until_it_leaves(store: EndpointStore) -> None:
    recorder = Recorder()
    store.subscribe(recorder)
    assert recorder.batches == [EndpointChange(added=store.snapshot().endpoints)]
    store.unsubscribe(recorder)
    store.unsubscribe(recorder)
    store.delete(id_of("a"))
    assert len(recorder.events) == 3


def test_a_listener_that_raises_is_logged_and_passed_over(store: EndpointStore, caplog: pytest.LogCaptureFixture) -> None:
    store.replace_all([])
    store.subscribe(Broken())
    recorder = Recorder()
    store.subscribe(recorder)
    with caplog.at_level(logging.ERROR):
        store.upsert(endpoint("d"))
    assert recorder.events == ["+d@10.0.0.1:8000"]
    assert "a bug" in caplog.text


def test_a_snapshot_never_changes(store: EndpointStore) -> None:
    before = store.snapshot()
    store.set_metrics(id_of("a"), BUSY)
    store.delete(id_of("b"))
    assert [e.name for e in before.endpoints] == ["a", "b", "c"]
    assert before.metrics == (UNSCRAPED,) * 3
    assert store.snapshot().metrics == (BUSY, UNSCRAPED)
    assert store.candidates().waiting_queue == [7, None]


def test_a_snapshot_is_shared_until_something_changes(store: EndpointStore) -> None:
    assert store.snapshot() is store.snapshot()
    assert store.candidates() is store.snapshot().candidates
    before = store.snapshot()
    store.set_metrics(id_of("a"), BUSY)
    assert store.snapshot() is not before


def test_only_scraped_endpoints_can_be_asked_for(store: EndpointStore) -> None:
    before = store.snapshot()
    store.set_metrics(id_of("b"), BUSY, 1.0)
    assert [e.name for e in store.snapshot().scraped] == ["b"]
    assert store.snapshot() is not before
    assert len(store.snapshot()) == len(store) == len(list(store)) == 3


def test_metrics_that_say_the_same_again_change_their_age_alone(store: EndpointStore) -> None:
    store.set_metrics(id_of("a"), BUSY, 1.0)
    before = store.snapshot()
    before.candidates.memo["x"] = "computed once"
    part = before.candidates.where([True, False, True])
    store.set_metrics(id_of("a"), EndpointMetrics(waiting_queue=7), 2.0)
    assert store.snapshot() is before
    assert store.metrics(id_of("a")) is BUSY
    assert store.candidates().memo["x"] == "computed once"
    assert (store.updated_s(id_of("a")), store.updated_s(id_of("b"))) == (2.0, None)
    assert before.updated_s == [2.0, None, None]
    assert part.updated_s == part.select([0, 1]).updated_s == [2.0, None], "parts see true ages too"


def test_metrics_without_a_time_are_as_old_as_before(store: EndpointStore) -> None:
    store.set_metrics(id_of("a"), BUSY, 1.0)
    store.set_metrics(id_of("a"), EndpointMetrics(waiting_queue=7, attributes={"models": ("m",)}))
    assert store.updated_s(id_of("a")) == 1.0
    assert store.snapshot().metrics[0].attributes == {"models": ("m",)}


def test_the_age_goes_with_the_server(store: EndpointStore) -> None:
    store.set_metrics(id_of("b"), BUSY, 1.0)
    store.upsert(endpoint("b", 8002, role="decode"))
    assert store.updated_s(id_of("b")) == 1.0
    store.upsert(endpoint("b", 9000))
    assert store.updated_s(id_of("b")) is None
    assert store.updated_s(id_of("nobody")) is None


def test_metrics_of_an_endpoint_that_is_gone_are_not_written(store: EndpointStore) -> None:
    store.delete(id_of("a"))
    assert store.set_metrics(id_of("a"), BUSY) is False
    assert store.metrics(id_of("a")) is UNSCRAPED
    assert store.get(id_of("a")) is None


@pytest.mark.parametrize(
    ("before_s", "now_s", "is_other"),
    [
        pytest.param(100.0, 100.0, False, id="the same"),
        pytest.param(100.0, 101.0, False, id="a corrected clock"),
        pytest.param(100.0, 101.1, True, id="later"),
        pytest.param(100.0, 50.0, False, id="earlier"),
        pytest.param(None, 100.0, False, id="told for the first time"),
        pytest.param(100.0, None, False, id="told no more"),
        pytest.param(None, None, False, id="never told"),
    ],
)
def test_a_server_that_began_later_is_another_one(
    store: EndpointStore, recorder: Recorder, before_s: float | None, now_s: float | None, is_other: bool
) -> None:
    store.set_metrics(id_of("b"), EndpointMetrics(waiting_queue=7, started_s=before_s), 1.0)
    snapshot, now = store.snapshot(), EndpointMetrics(waiting_queue=8, started_s=now_s)
    assert store.set_metrics(id_of("b"), now, 2.0) is not is_other
    assert names(store) == "abc"
    if is_other:
        assert recorder.events == ["-b@10.0.0.1:8002", "+b@10.0.0.1:8002"]
        assert len(recorder.batches) == 1
        assert store.metrics(id_of("b")) == EndpointMetrics(started_s=now_s), "what the new one says is read anew"
        assert store.updated_s(id_of("b")) is None
        assert store.snapshot() is not snapshot
        assert store.set_metrics(id_of("b"), now, 3.0), "it is told of once"
    assert store.metrics(id_of("b")) == now
    assert len(recorder.batches) == int(is_other)


def test_workers_behind_one_address_are_taken_for_restarts_once(store: EndpointStore, recorder: Recorder) -> None:
    for started_s in (100.0, 200.0, 100.0, 200.0, 100.0):
        latest_s = max(started_s, store.metrics(id_of("b")).started_s or 0)  # as the reader of pages does
        store.set_metrics(id_of("b"), EndpointMetrics(started_s=latest_s), 1.0)
    assert len(recorder.batches) == 1


@pytest.mark.parametrize(
    ("host_port", "name"),
    [
        ("10.0.0.1:8002", "b"),
        ("10.0.0.1:9999", None),
        ("[2001:db8::1]:8000", "v6"),
        ("[2001:0DB8:0:0::1]:8000", "v6"),
        ("nonsense", None),
        ("", None),
    ],
)
def test_the_endpoint_at_an_address_and_port(store: EndpointStore, host_port: str, name: str | None) -> None:
    store.upsert(Endpoint.of("v6", "2001:db8::1", 8000))
    found = store.at(host_port)
    assert (found.name if found else None) == name


def test_the_endpoints_at_an_address(store: EndpointStore) -> None:
    store.upsert(Endpoint.of("v6", "2001:db8::1", 8000))
    assert [e.name for e in store.at_address("10.0.0.1")] == ["a", "b", "c"]
    assert [e.name for e in store.at_address("[2001:DB8::1]")] == ["v6"]
    assert store.at_address("10.0.0.9") == ()
    store.delete(id_of("a"))
    assert [e.name for e in store.at_address("10.0.0.1")] == ["b", "c"]


def test_of_two_endpoints_at_one_place_the_first_is_found(store: EndpointStore) -> None:
    store.upsert(endpoint("twin", 8001))
    assert store.at("10.0.0.1:8001") == store.get(id_of("a"))
    store.delete(id_of("a"))
    assert store.at("10.0.0.1:8001") == store.get(id_of("twin"))
