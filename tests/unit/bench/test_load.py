"""The parts of the load benchmark that can lie without anybody noticing."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import replace
from typing import Self, cast

import pytest

from bench.load.client import ClosedLoop, OpenLoop, Segment
from bench.load.payload import FULL_PAGE_BYTES, SSE_CHUNKS, json_response, metrics_responses, requests, sse_response
from bench.load.pickers import Picker, parse_picker, with_bare_reader
from bench.load.process import expand
from bench.load.report import as_text
from bench.load.run import Measured
from bench.load.run import Segment as Measurement
from bench.load.stats import Estimate, estimate, percentile, ratio
from bench.load.workloads import WORKLOADS


@pytest.mark.parametrize(
    ("values", "fraction", "expected"),
    [
        pytest.param([], 0.5, 0.0, id="no values"),
        pytest.param([7.0], 0.99, 7.0, id="one value"),
        pytest.param([3.0, 1.0, 2.0], 0.5, 2.0, id="unsorted"),
        pytest.param(list(range(100)), 0.99, 99, id="p99 of a hundred"),
    ],
)
def test_percentile(values: list[float], fraction: float, expected: float) -> None:
    assert percentile(values, fraction) == expected


def test_an_estimate_of_equal_values_has_no_width() -> None:
    assert estimate([2.0] * 5) == Estimate(2.0, 2.0, 2.0)


def test_an_estimate_contains_its_median_and_is_repeatable() -> None:
    values = [1.0, 5.0, 2.0, 8.0, 3.0]
    median, low, high = estimate(values)
    assert low <= median == 3.0 <= high
    assert estimate(values) == (median, low, high)


def test_a_ratio_is_paired_by_round() -> None:
    assert ratio([2.0, 20.0, 200.0], [1.0, 10.0, 100.0]) == Estimate(2.0, 2.0, 2.0)


def test_a_ratio_with_nothing_below_is_none() -> None:
    assert ratio([1.0, 1.0], [1.0, 0.0]) is None


def test_only_known_placeholders_are_filled_in() -> None:
    words = expand("""python -m epp --port {port} --json '{"a": {}}' {other}""", {"port": "7"})
    assert words == [sys.executable, "-m", "epp", "--port", "7", "--json", '{"a": {}}', "{other}"]


@pytest.mark.parametrize("text", ["naive", "=x", "a b=x", "naive= "])
def test_a_picker_without_name_or_command_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not of the form name=command"):
        parse_picker(text)


def test_metrics_pages_have_the_wanted_size_families_and_changing_values() -> None:
    full, small = metrics_responses("full"), metrics_responses("small")
    assert all(FULL_PAGE_BYTES <= len(page) < FULL_PAGE_BYTES * 1.1 for page in full)
    assert all(len(page) < 1500 for page in small)
    assert len(set(full)) == len(full)
    for name in (b"num_requests_running", b"num_requests_waiting", b"kv_cache_usage_perc", b"lora_requests_info"):
        assert all(b"\nvllm:" + name + b"{" in page for page in (*full, *small))


def test_a_stream_has_the_promised_number_of_chunks() -> None:
    _, chunks = sse_response()
    assert len(chunks) == SSE_CHUNKS
    assert chunks[-1].endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


class Server:
    """Answers every request with prepared bytes, but none before `release`."""

    def __init__(self, *, released: bool = False) -> None:
        self.transports: list[asyncio.Transport] = []
        self.released = released
        self.waiting: list[asyncio.Transport] = []
        self.crowded = asyncio.Event()
        """More than thirty requests wait."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.get_running_loop().create_server(lambda: Link(self), "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        self.abort()
        await asyncio.sleep(0)  # the loop closes aborted transports in its next turn

    def answer(self, transport: asyncio.Transport) -> None:
        if self.released:
            transport.write(json_response())
        else:
            self.waiting.append(transport)
            if len(self.waiting) > 30:
                self.crowded.set()

    def abort(self) -> None:
        for transport in self.transports:
            transport.abort()

    def release(self) -> None:
        self.released = True
        for transport in self.waiting:
            self.answer(transport)


class Link(asyncio.Protocol):
    """One connection to a `Server`."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server.transports.append(self._transport)

    def data_received(self, data: bytes) -> None:
        self._server.answer(self._transport)


async def test_an_open_loop_counts_the_time_that_requests_waited() -> None:
    async with Server() as server:
        asyncio.get_running_loop().call_later(0.3, server.release)
        segment = Segment(requests(200, "json"), server.port, seed=1)
        await OpenLoop(segment, rate=100, seconds=0.3, seed=1).run()
    assert segment.errors == 0
    late = [latency for latency in segment.latencies_s if latency > 0.15]
    assert len(late) >= len(segment.latencies_s) / 3  # arrivals of the first half waited for the second


async def test_an_open_loop_counts_what_its_own_slowness_adds() -> None:
    async with Server(released=True) as server:
        segment = Segment(requests(200, "json"), server.port, seed=1)
        asyncio.get_running_loop().call_later(0.1, time.sleep, 0.1)  # nothing is sent meanwhile
        await OpenLoop(segment, rate=200, seconds=0.3, seed=1).run()
    assert max(segment.lates_s) > 0.05
    assert sum(latency > 0.05 for latency in segment.latencies_s) >= sum(late > 0.05 for late in segment.lates_s) > 0


async def test_an_open_loop_keeps_its_rate_when_nothing_is_answered() -> None:
    async with Server() as server:
        loop = OpenLoop(Segment(requests(200, "json"), server.port, seed=1), rate=200, seconds=0.3, seed=1, connections=3)
        running = asyncio.create_task(loop.run())
        await server.crowded.wait()  # three connections would have carried three
        server.release()
        await running
    assert loop.segment.errors == 0
    assert len(loop.segment.latencies_s) == len(loop.segment.lates_s) > 30


def measurement(**changed: float) -> Measurement:
    """A second of 100 requests in which nobody was slow."""
    given: dict[str, float] = {
        "requests": 100, "errors": 0, "elapsed_s": 1.0, "p50_ms": 1.0, "p99_ms": 2.0, "first_p50_ms": 1.0, "picker_cpu_s": 0.1,
        "envoy_cpu_s": 0.1, "picker_resident_bytes": 1 << 20, "scrapes": 20, "late_p99_ms": 0.1, "client_cpu_s": 0.1,
        "seconds": 1.0,
    }  # fmt: skip
    return Measurement(**(given | changed))  # type: ignore[arg-type]  # whole floats pass for integers here


@pytest.mark.parametrize(
    ("changed", "warnings"),
    [
        pytest.param({}, [], id="all kept up"),
        pytest.param({"elapsed_s": 1.6, "p50_ms": 550.0}, [], id="streams that just take long"),
        pytest.param(
            {"elapsed_s": 2.0, "p50_ms": 500.0}, ["warning: b could not keep the rate in 2 of 2 segments"], id="picker"
        ),
        pytest.param(
            {"client_cpu_s": 0.9},
            ["warning: the client needed 0.90 cores beside b; its own slowness is in the latencies"],
            id="client",
        ),
    ],
)
def test_an_open_loop_tells_its_rate_and_who_did_not_keep_it(changed: dict[str, float], warnings: list[str]) -> None:
    load = replace(WORKLOADS["small-json"], rate=60.0)
    results = {"direct": [measurement()] * 2, "a": [measurement()] * 2, "b": [measurement(**changed)] * 2}
    text = as_text(Measured(load, results, {"a": 200.0, "b": 100.0}))
    assert "rate: 60 requests/s in an open loop, the same for all; 0.60 of what b holds in a closed one (a 200, b 100)" in text
    assert [line for line in text.splitlines() if line.startswith("warning")] == warnings


def test_an_idle_picker_is_put_beside_the_bare_reader_round_by_round() -> None:
    results = {
        "ours": [measurement(picker_cpu_s=cores) for cores in (0.3, 0.5)],
        "bare": [measurement(picker_cpu_s=cores) for cores in (0.1, 0.3)],
    }
    text = as_text(Measured(WORKLOADS["idle"], results, {}))
    assert any(line.split()[:4] == ["added", "cores", "0.2", "[0.2,"] for line in text.splitlines()), text


def test_a_picker_may_take_the_place_of_the_bare_reader() -> None:
    mine = Picker("bare", "mine")
    assert with_bare_reader([mine]) == [mine]
    assert [picker.name for picker in with_bare_reader([Picker("ours", "x")])] == ["ours", "bare"]


async def test_a_closed_loop_sends_the_next_request_after_the_last_answer() -> None:
    async with Server(released=True) as server:
        segment = Segment(requests(200, "json"), server.port, seed=1)
        await ClosedLoop(segment, connections=2, seconds=0.1).run()
    assert segment.errors == 0
    assert len(segment.latencies_s) > 10
    assert len(server.transports) == 2


async def test_broken_connections_are_errors_and_end_the_loop() -> None:
    async with Server() as server:
        asyncio.get_running_loop().call_later(0.05, server.abort)
        segment = Segment(requests(200, "json"), server.port, seed=1)
        await ClosedLoop(segment, connections=3, seconds=0.1).run()
    assert (segment.errors, len(segment.latencies_s)) == (3, 0)
