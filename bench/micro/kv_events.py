"""What KV events cost: applying them, and what a flood of them does to requests that are looked up meanwhile.

Run: ``python -m bench.micro.kv_events [--pods 500] [--rate 100000] [--seconds 5]``. A process of its own publishes for all
pods, each on an address of its own in 127.0.0.0/8, blocks of 16 tokens, ``--batch`` of them in a message; half of what is
stored is removed again. The picker's thread receives and applies them, while its event loop looks up ``--requests`` prompts
of 4,096 tokens a second, at times that nobody coordinates. ``late`` is from the moment a request was due to its answer. The
first line is the speed of the machine (see ``bench.calibration``).
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import random
import resource
import time
from collections.abc import Callable, Sequence
from multiprocessing.synchronize import Event
from typing import NamedTuple

import msgspec
import uvloop
import zmq

from bench.calibration import calibrate
from bench.load.process import free_port
from epp.framework.types import Endpoint
from plugins.kvcache.event_index import EventIndex, IndexSettings, make_index
from plugins.kvcache.event_processor import Source
from plugins.kvcache.receiver_settings import ReceiverSettings
from plugins.kvcache.request_keys import token_bytes
from plugins.kvcache.subscriber import EventReceiver

BLOCK = 16
PROMPT_TOKENS = 4_096
_AT_S = 1_700_000_000.5
_APPLY_BLOCKS = 200_000


class Load(NamedTuple):
    """What is published."""

    pods: int
    rate: int
    """Blocks a second, of all pods together."""
    batch: int
    """Blocks in a message."""


class Chain:
    """One pod's messages: it stores chains of blocks, and removes the older half of them again."""

    def __init__(self, pod: int, batch: int) -> None:
        self._random = random.Random(pod)
        self._batch = batch
        self._next = pod << 40 | 1
        self._parent: int | None = None
        self._held: list[list[int]] = []

    def message(self) -> bytes:
        """The next payload; about as many blocks are stored as removed once there are enough."""
        if len(self._held) > 64 and self._random.random() < 0.5:
            return self._encoded(["BlockRemoved", self._held.pop(0), "GPU"])
        if self._random.random() < 0.1:
            self._parent = None
        hashes = list(range(self._next, self._next + self._batch))
        self._next += self._batch
        tokens = [self._random.getrandbits(17) for _ in range(self._batch * BLOCK)]
        event = ["BlockStored", hashes, self._parent, tokens, BLOCK, None, "GPU"]
        self._parent = hashes[-1]
        self._held.append(hashes)
        return self._encoded(event)

    @staticmethod
    def _encoded(event: Sequence[object]) -> bytes:
        return msgspec.msgpack.encode([_AT_S, [event], 0])


def address(pod: int) -> str:
    """Of a pod, in 127.0.0.0/8."""
    return f"127.{1 + pod // 62_500}.{pod // 250 % 250}.{1 + pod % 250}"


def publish(port: int, load: Load, ready: Event, go: Event, stop: Event) -> None:
    """In a process of its own: publish at the rate from ``go`` to ``stop``."""
    _raise_open_files_limit()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 65_536)
    sockets = []
    for pod in range(load.pods):
        raw = context.socket(zmq.PUB)
        raw.setsockopt(zmq.SNDHWM, 100_000)
        raw.bind(f"tcp://{address(pod)}:{port}")
        sockets.append(raw)
    chains = [Chain(pod, load.batch) for pod in range(load.pods)]
    # Encoding costs more than applying: what is sent was made before.
    ring = [[chain.message() for _ in range(max(8, 20_000 // load.pods))] for chain in chains]
    numbers = [0] * load.pods
    ready.set()
    go.wait()
    begun, sent, pod = time.perf_counter(), 0, 0
    while not stop.is_set():
        due = int((time.perf_counter() - begun) * load.rate / load.batch)
        while sent < due:
            payload = ring[pod][numbers[pod] % len(ring[pod])]
            sockets[pod].send_multipart([b"kv@pod@m", numbers[pod].to_bytes(8, "big"), payload])
            numbers[pod] += 1
            sent += 1
            pod = (pod + 1) % load.pods
        time.sleep(0.0005)
    context.destroy(linger=0)


def apply_per_s(index: EventIndex, batch: int) -> float:
    """Blocks of events that one core applies in a second."""
    chains = [Chain(pod, batch) for pod in range(10)]
    payloads = [(Source(f"10.0.0.{n % 10}:8000"), chains[n % 10].message()) for n in range(_APPLY_BLOCKS // batch)]
    apply = index.apply
    begun = time.process_time()
    for source, payload in payloads:
        apply(source, payload)
    return _APPLY_BLOCKS / (time.process_time() - begun)


async def late_ms(index: EventIndex, per_s: int, seconds: float) -> list[float]:
    """How late the answers to requests were, sorted."""
    random_ = random.Random(1)
    prompts = [token_bytes([random_.getrandbits(17) for _ in range(PROMPT_TOKENS)]) for _ in range(16)]
    late: list[float] = []
    begun = due = time.perf_counter()
    while due < begun + seconds:
        due += random_.expovariate(per_s)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        keys = index.keys("m", prompts[len(late) % len(prompts)], (), is_adapter=False)
        index.lookup(keys, time.monotonic())
        late.append((time.perf_counter() - due) * 1e3)
    return sorted(late)


async def flood(make: Callable[[], EventIndex], load: Load, per_s: int, seconds: float) -> None:
    """Requests before and while events flood; prints both."""
    port = free_port()
    ready, go, stop = (multiprocessing.Event() for _ in range(3))
    process = multiprocessing.Process(target=publish, args=(port, load, ready, go, stop), daemon=True)
    process.start()
    index = make()
    receiver = EventReceiver(index, ReceiverSettings(port=port))
    await asyncio.to_thread(ready.wait)
    receiver.start()
    receiver.follow([Endpoint.of(f"pod-{pod}", address(pod), 8000) for pod in range(load.pods)])
    for _ in range(600):
        if sum(receiver.connected().values()) == load.pods:
            break
        await asyncio.sleep(0.1)
    quiet = await late_ms(index, per_s, seconds)
    go.set()
    await asyncio.sleep(0.5)
    before, begun, cpu = sum(receiver.counts().received.values()), time.perf_counter(), time.process_time()
    busy = await late_ms(index, per_s, seconds)
    elapsed, used = time.perf_counter() - begun, time.process_time() - cpu
    messages = sum(receiver.counts().received.values()) - before
    stop.set()
    print(f"  {load.pods} pods, {messages * load.batch / elapsed:10,.0f} block events/s received, {used / elapsed:5.2f} cores")
    for name, late in (("quiet", quiet), ("flood", busy)):
        p50, p99 = late[len(late) // 2], late[len(late) * 99 // 100]
        print(f"  {name}: late p50 {p50:7.3f} ms, p99 {p99:7.3f} ms, worst {late[-1]:7.3f} ms of {len(late)} requests")
    counts, received = index.counts(), receiver.counts()
    print(f"  {counts.keys:,} keys, {received.gaps} gaps, {sum(counts.decode_errors.values())} errors")
    await asyncio.to_thread(receiver.stop)
    process.join()


def _raise_open_files_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    """Measure each implementation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, default=500)
    parser.add_argument("--rate", type=int, default=100_000, help="block events a second")
    parser.add_argument("--batch", type=int, default=8, help="blocks in a message")
    parser.add_argument("--requests", type=int, default=200, help="a second")
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    _raise_open_files_limit()
    print(f"calibration {calibrate():.1f} ns per step of a pure-Python loop")
    load = Load(arguments.pods, arguments.rate, arguments.batch)
    for name in ("python", "native"):
        try:
            index = make_index(IndexSettings(), implementation=name)
        except ImportError:
            print(f"{name}: not installed")
            continue
        print(f"{name}: applies {apply_per_s(index, load.batch):12,.0f} blocks/s on one core")
        make = lambda name=name: make_index(IndexSettings(), implementation=name)  # noqa: E731
        uvloop.run(flood(make, load, arguments.requests, arguments.seconds))


if __name__ == "__main__":
    main()
