"""The parts of the load benchmark that can lie without anybody noticing."""

from __future__ import annotations

import asyncio
import sys
from typing import Self, cast

import pytest

from bench.load.client import ClosedLoop, OpenLoop, Segment
from bench.load.payload import FULL_PAGE_BYTES, SSE_CHUNKS, json_response, metrics_responses, requests, sse_response
from bench.load.pickers import parse_picker
from bench.load.process import expand
from bench.load.stats import Estimate, estimate, percentile, ratio


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
