"""Pools of one process that are lost or late: nothing of it reaches the others."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
import yaml

from epp.errors import UsageError
from epp.process import many_pools, pool_place
from epp.process import process as process_module
from epp.process.door import sum_of
from epp.process.many_pools import ManyPools
from epp.process.options import Options
from epp.process.pool_place import PoolPlace, State
from epp.process.process import Process
from epp.process.served_pool import ServedPool
from epp.process.startup import load_pools_file
from epp.seam import Port, Reply, RequestHandler, Settings, TransportStats
from tests.unit.decision.rig import FakeStream, outcome, request
from tests.unit.process.test_process import NoTransport

PATIENCE_S = 10.0


class Listening(NoTransport):
    """Keeps the handler that it was started with."""

    def __init__(self) -> None:
        self.handler: RequestHandler
        self.listens = asyncio.Event()

    async def start(self, handler: RequestHandler, settings: Settings, ports: Sequence[Port]) -> list[int]:
        self.handler = handler
        self.listens.set()
        return [1] * len(ports)

    def send(self, authority: str) -> FakeStream:
        stream = FakeStream()
        self.handler.request(stream, request(headers={":authority": authority}))
        return stream

    def status(self, authority: str) -> int:
        """Of a refusal; 0 of a route. The stream is over then."""
        stream = self.send(authority)
        [answer] = stream.answers
        self.handler.finished(stream, outcome())
        return answer.status if isinstance(answer, Reply) else 0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module.gc, "freeze", lambda: None)
    monkeypatch.setattr(process_module, "READINESS_EVERY_S", 0.01)
    monkeypatch.setattr(many_pools, "START_S", 0.2)


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[ManyPools, Listening, Process]]:
    """A process with the pools ``a`` and ``b``."""
    file = folder / "pools.yaml"
    pools = [{"name": name, "endpoints": ["127.0.0.1:1"], "match": {"authorities": [name]}} for name in "ab"]
    file.write_text(yaml.safe_dump({"apiVersion": "llm-d.ai/v1", "kind": "EndpointPickerPools", "pools": pools}))
    options = Options(pools_file=str(file), bind_address="127.0.0.1", metrics_port=0, secure_serving=False, tracing=False)
    transport = Listening()
    picker = Process(options, load_pools_file(options), transport=transport)
    serving = asyncio.create_task(picker.serve())
    await asyncio.wait_for(transport.listens.wait(), PATIENCE_S)
    assert isinstance(picker.pools, ManyPools)
    yield picker.pools, transport, picker
    picker.stop_on(signal.SIGINT)
    assert await asyncio.wait_for(serving, PATIENCE_S) == 0


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 — states that nobody announces
            await asyncio.sleep(0.005)


def lose_discovery(place: PoolPlace) -> None:
    """Its discovery fails, as one does whose source is gone."""

    async def fails() -> None:
        raise OSError("the source is gone")

    assert place.served is not None
    task = place.served.pool._discovering = asyncio.create_task(fails())
    lost = place.served.pool.discovery_lost
    task.add_done_callback(lambda _: lost.set())


async def test_a_pool_whose_discovery_ends_is_loaded_anew_and_running_requests_end_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_place, "RETRY_S", 0.3)
    async with running(tmp_path) as (pools, transport, picker):
        place, former = pools.places["a"], pools.places["a"].served
        assert former is not None
        open_stream = transport.send("a")
        assert open_stream.route
        lose_discovery(place)
        await until(lambda: place.state is State.NOT_LOADED)
        assert (transport.status("a"), transport.status("b")) == (503, 0)
        assert place.last is not None
        assert place.last.problems == ("the source is gone",)
        assert picker.health.ready
        assert [place.health.ready for place in pools.places.values()] == [False, True]
        await until(lambda: place.state is State.SERVED)
        assert place.served is not former
        assert transport.status("a") == 0
        assert not former.is_stopped, "a request of it still runs"
        transport.handler.finished(open_stream, outcome())
        await until(lambda: former.is_stopped)


async def test_where_all_pools_are_lost_the_process_is_not_ready_and_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_place, "RETRY_S", 60.0)
    async with running(tmp_path) as (pools, transport, picker):
        for place in pools.places.values():
            lose_discovery(place)
        await until(lambda: not picker.health.ready)
        [reason] = picker.health.why()
        assert "a: pool: not loaded: the source is gone" in reason
        picker.reload()
        await until(lambda: picker.health.ready)
        await until(lambda: transport.status("b") == 0)


async def test_a_pool_that_does_not_get_ready_holds_nobody_up_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin, usual = asyncio.Event(), ServedPool.start

    async def start(served: ServedPool) -> None:
        if served.options.pool == "a":
            await begin.wait()
        await usual(served)

    monkeypatch.setattr(ServedPool, "start", start)
    async with running(tmp_path) as (pools, transport, _):
        assert pools.places["a"].state is State.STARTING
        assert (transport.status("a"), transport.status("b")) == (503, 0)
        begin.set()
        await until(lambda: pools.places["a"].state is State.SERVED)
        assert transport.status("a") == 0


async def test_a_stop_while_a_pool_still_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = ServedPool.start

    async def start(served: ServedPool) -> None:
        if served.options.pool == "a":
            await asyncio.Event().wait()
        await usual(served)

    monkeypatch.setattr(ServedPool, "start", start)
    async with running(tmp_path):
        pass


async def test_a_stop_while_another_file_is_taken_up_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, made = ServedPool.start, list[ServedPool]()

    async def start(served: ServedPool) -> None:
        if served.options.pool == "c":
            made.append(served)
            await asyncio.Event().wait()
        await usual(served)

    monkeypatch.setattr(ServedPool, "start", start)
    monkeypatch.setattr(many_pools, "START_S", 60.0)
    async with running(tmp_path) as (_, transport, picker):
        file = tmp_path / "pools.yaml"
        added = {"name": "c", "endpoints": ["127.0.0.1:1"], "match": {"authorities": ["c"]}}
        document = yaml.safe_load(file.read_text())
        file.write_text(yaml.safe_dump({**document, "pools": [*document["pools"], added]}))
        picker.reload()
        await until(lambda: bool(made))
        assert (transport.status("a"), transport.status("c")) == (0, 404), "it is not taken up yet"
    assert made[0].is_stopped


async def test_the_counts_of_several_ports_are_added_up() -> None:
    one = TransportStats(1, {"OK": 2}, (1, 0), 0.5, 10, (3,), 0.1)
    other = TransportStats(2, {"OK": 1, "CANCELLED": 4}, (0, 2), 1.0, 5)
    assert sum_of([one, other]) == TransportStats(3, {"OK": 3, "CANCELLED": 4}, (1, 2), 1.5, 15, (3,), 0.1)
    assert sum_of([]) == TransportStats(0, {}, (), 0.0, 0)


def test_a_port_that_the_process_has_is_refused_for_a_pool(tmp_path: Path) -> None:
    file = tmp_path / "pools.yaml"
    pools = [{"name": "a"}, {"name": "b", "grpcPort": 9003}]
    file.write_text(yaml.safe_dump({"apiVersion": "llm-d.ai/v1", "kind": "EndpointPickerPools", "pools": pools}))
    with pytest.raises(UsageError, match="--grpc-health-port and grpcPort of the pool b are both 9003"):
        load_pools_file(Options(pools_file=str(file)))


async def test_a_lost_pool_that_cannot_be_stopped_is_told_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as (pools, transport, _):
        place = pools.places["a"]
        lost = place.served
        assert lost is not None

        async def fails() -> None:
            raise OSError("it does not stop")

        with monkeypatch.context() as patched:
            patched.setattr(lost, "stop", fails)
            lose_discovery(place)
            await until(lambda: "pool not stopped in order" in caplog.text)
        assert transport.status("b") == 0
        place.reload()
        await until(lambda: place.served is not None)
        assert transport.status("a") == 0
        await lost.stop()


async def test_a_defect_in_looking_after_a_pool_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as (pools, transport, _):
        place = pools.places["a"]

        async def broken(_served: object) -> None:
            raise ZeroDivisionError

        with monkeypatch.context() as patched:
            patched.setattr(place, "_lose", broken)
            lose_discovery(place)
            await until(lambda: "pool is not looked after any more" in caplog.text)
        assert transport.status("b") == 0
