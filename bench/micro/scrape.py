"""What reading metrics costs: one page scan, and the collector as a whole.

Run: ``python -m bench.micro.scrape [--endpoints 100] [--seconds 5]``. The page is that of a vLLM server with one engine, 62 KB;
the collector reads it from every endpoint every 50 ms over loopback. The first line is the speed of the machine (see
``bench.calibration``).
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import cast

import uvloop

from bench.calibration import calibrate
from epp.datalayer.collector import Collector
from epp.datalayer.scrape import ExtractorBinding, SourceBinding
from epp.datalayer.store import EndpointStore
from epp.framework.interfaces import Extractor
from epp.framework.testing import make_plugin
from epp.framework.types import UNSCRAPED, Endpoint, EndpointMetrics
from plugins.datalayer import core_metrics, metrics_source

PAGE_BYTES = 62_000
_ROUNDS = 2_000
_BOUNDS = ("0.001", "0.005", "0.01", "0.02", "0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0", "30.0", "120.0", "+Inf")
_LABELS = 'engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"'
_LOAD = f"""\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{{_LABELS}}} 6.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{{{_LABELS}}} 2.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{{{_LABELS}}} 0.4175
"""
_INFO = """\
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",cache_dtype="auto",engine="0",num_gpu_blocks="27832",sliding_window="None"} 1.0
"""


def vllm_page(size_bytes: int = PAGE_BYTES) -> bytes:
    """A page of about this size: the load first, the cache configuration last, histograms between, no adapters."""
    blocks = [_LOAD]
    size = len(_LOAD) + len(_INFO)
    while size < size_bytes:
        family = f"vllm:stage_{len(blocks)}_seconds"
        lines = [f"# HELP {family} Histogram of a stage in seconds.", f"# TYPE {family} histogram"]
        lines += [f'{family}_bucket{{{_LABELS},le="{bound}"}} {len(blocks)}.0' for bound in _BOUNDS]
        lines += [f"{family}_count{{{_LABELS}}} 5.0", f"{family}_sum{{{_LABELS}}} 5.0", ""]
        blocks.append("\n".join(lines))
        size += len(blocks[-1])
    return "".join([*blocks, _INFO]).encode()


def scan_us(extractor: Extractor, page: bytes) -> float:
    """Microseconds of CPU to read one page."""
    endpoint = Endpoint.of("a", "127.0.0.1", 8000)
    start = time.process_time()
    for _ in range(_ROUNDS):
        extractor.extract(page, endpoint, UNSCRAPED, 0.0)
    return (time.process_time() - start) / _ROUNDS * 1e6


class _PageServer(asyncio.Protocol):
    """Answers every request with the page; parses nothing."""

    answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, _data: bytes) -> None:
        self._transport.write(self.answer)


def _serve(ports: Connection) -> None:
    async def main() -> None:
        page = vllm_page()
        _PageServer.answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(page) + page
        server = await asyncio.get_running_loop().create_server(_PageServer, "127.0.0.1", 0)
        ports.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(main())


class _Failures:
    """Collects what should not happen."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def datalayer_poll_error(self, source_type: str) -> None:
        self.seen.append(source_type)

    def datalayer_extract_error(self, source_type: str, extractor_type: str) -> None:
        self.seen.append(f"{source_type} {extractor_type}")


class _Counted:
    """An extractor, with a count of its pages."""

    input = "prometheus-text"

    def __init__(self, extractor: Extractor) -> None:
        self._extractor = extractor
        self.pages = 0

    def extract(
        self, payload: bytes, endpoint: Endpoint, previous: EndpointMetrics, now_s: float
    ) -> tuple[EndpointMetrics, Sequence[str]]:
        """As the extractor does."""
        self.pages += 1
        return self._extractor.extract(payload, endpoint, previous, now_s)


async def collect(port: int, endpoints: int, seconds: float, extractor: Extractor) -> tuple[float, float, int]:
    """(share of a core, scrapes per second, failures) of a collector that runs for some seconds."""
    store, failures, counted = EndpointStore(), _Failures(), _Counted(extractor)
    store.replace_all([Endpoint.of(f"e{i}", "127.0.0.1", port) for i in range(endpoints)])
    bound = (ExtractorBinding(core_metrics.TYPE, counted),)
    binding = SourceBinding("scrape", metrics_source.TYPE, make_plugin(metrics_source.PLUGIN), bound)
    collector = Collector(store, [binding], failures)
    await collector.start()
    await asyncio.sleep(1.0)
    counted.pages, cpu, start = 0, time.process_time(), time.monotonic()
    await asyncio.sleep(seconds)
    elapsed = time.monotonic() - start
    share = (time.process_time() - cpu) / elapsed
    await collector.stop()
    return share, counted.pages / elapsed, len(failures.seen)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="Cost of reading metrics.")
    parser.add_argument("--endpoints", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    print(f"calibration: {calibrate():.1f} ns per step of a Python loop")
    extractor, page = make_plugin(core_metrics.PLUGIN), vllm_page()
    print(f"one scan of {len(page)} bytes: {min(scan_us(extractor, page) for _ in range(5)):.1f} us")
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,), daemon=True)
    server.start()
    try:
        share, rate, failures = uvloop.run(collect(ours.recv(), options.endpoints, options.seconds, extractor))
    finally:
        server.terminate()
    print(
        f"{options.endpoints} endpoints every 50 ms: {share:.3f} core, {rate:.0f} scrapes/s, "
        f"{share / rate * 1e6:.0f} us per scrape, {failures} failures"
    )


if __name__ == "__main__":
    main()
