"""What reading metrics costs: one page scan, and the collector as a whole, by the event loop and by native code.

Run: ``python -m bench.micro.scrape [--endpoints 100] [--seconds 5] [--page-bytes 62000]``. The page is that of a vLLM server
with one engine; the collector reads it from every endpoint every 50 ms over loopback. The first line is the speed of the
machine (see ``bench.calibration``).
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import time
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from typing import cast

import uvloop

from bench.calibration import calibrate
from epp.datalayer.collector import TIMEOUT_S, Collector
from epp.datalayer.page_rounds import PageReader, make_page_reader
from epp.datalayer.scrape import ExtractorBinding, SourceBinding
from epp.datalayer.store import EndpointStore
from epp.framework.interfaces import Extractor
from epp.framework.prometheus_text import MAX_PAGE_BYTES
from epp.framework.testing import make_plugin
from epp.framework.types import UNSCRAPED, Endpoint
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
        extractor.extract(page, endpoint, UNSCRAPED)
    return (time.process_time() - start) / _ROUNDS * 1e6


class _PageServer(asyncio.Protocol):
    """Answers every request with one of two pages in turn, so that each has news; parses nothing."""

    answers: tuple[bytes, ...] = ()
    served: Synchronized[int]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, _data: bytes) -> None:
        self._transport.write(self.answers[self.served.value % 2])
        self.served.value += 1


def _serve(ports: Connection, page: bytes, served: Synchronized[int]) -> None:
    async def main() -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(page)
        _PageServer.answers = (head + page, head + page.replace(b"} 2.0\n", b"} 3.0\n", 1))
        _PageServer.served = served
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


async def collect(
    port: int, endpoints: int, seconds: float, pages: PageReader | None, served: Synchronized[int]
) -> tuple[float, float, int]:
    """(share of a core, scrapes per second, failures) of a collector that runs for some seconds.

    Args:
        pages: native code that reads; None = the event loop does.
        served: pages that the server has given.
    """
    store, failures = EndpointStore(), _Failures()
    store.replace_all([Endpoint.of(f"e{i}", "127.0.0.1", port) for i in range(endpoints)])
    bound = (ExtractorBinding(core_metrics.TYPE, make_plugin(core_metrics.PLUGIN)),)
    binding = SourceBinding("scrape", metrics_source.TYPE, make_plugin(metrics_source.PLUGIN), bound)
    collector = Collector(store, [binding], failures, pages=pages)
    await collector.start()
    await asyncio.sleep(1.0)
    before, cpu, start = served.value, time.process_time(), time.monotonic()
    await asyncio.sleep(seconds)
    elapsed = time.monotonic() - start
    share = (time.process_time() - cpu) / elapsed
    reads = served.value - before
    await collector.stop()
    return share, reads / elapsed, len(failures.seen)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="Cost of reading metrics.")
    parser.add_argument("--endpoints", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--page-bytes", type=int, default=PAGE_BYTES)
    options = parser.parse_args()
    print(f"calibration: {calibrate():.1f} ns per step of a Python loop")
    extractor, page = make_plugin(core_metrics.PLUGIN), vllm_page(options.page_bytes)
    print(f"one scan of {len(page)} bytes in Python: {min(scan_us(extractor, page) for _ in range(5)):.1f} us")
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    served = context.Value("q", 0, lock=True)
    server = context.Process(target=_serve, args=(theirs, page, served), daemon=True)
    server.start()
    try:
        port = ours.recv()
        for name, pages in (("event loop", None), ("native", make_page_reader(MAX_PAGE_BYTES, TIMEOUT_S))):
            if name == "native" and pages is None:
                print("native: the extension is not built")
                continue
            share, rate, failures = uvloop.run(collect(port, options.endpoints, options.seconds, pages, served))
            print(
                f"{name}: {options.endpoints} endpoints every 50 ms: {share:.3f} core, {rate:.0f} scrapes/s, "
                f"{share / rate * 1e6:.0f} us per scrape, {failures} failures"
            )
    finally:
        server.terminate()


if __name__ == "__main__":
    main()
