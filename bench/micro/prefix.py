"""What prefix-cache awareness costs: ``python -m bench.micro.prefix``.

1. A decision with 100 endpoints, from the complete request to the answer, with queue and KV cache alone and with
   prefix-cache-scorer beside them, for chats of 1,000 and of 100,000 tokens (4 bytes each) that are looked at wholly. Their
   first half was sent before. ``read`` = the transport has hashed the body; how long that took it stands beside.
2. A look-up of 6,000 keys among 1,000 endpoints and a million blocks, held in whole, by depths, and by nobody.
3. Memory for each block that an endpoint holds, where no two hold the same, and where eight hold each.

Each with the twins that are there. The first line is the speed of the machine (see ``bench.calibration``).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import statistics
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from unittest import mock

import orjson

from bench.calibration import calibrate
from bench.micro.request import BenchRequest, BenchStream, make_director
from epp.decision.director import Director
from epp.framework.prompt_blocks import body_blocks
from epp.seam import Route
from plugins.prefix import keys, lru_index, twins
from plugins.prefix.twins import PrefixIndex

ENDPOINTS = 100
POOL = 1000
BLOCKS = 1_000_000
PROMPT_BLOCKS = 6000
_LOAD = """
apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: max-score-picker
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: kv-cache-utilization-scorer, weight: 2}
  - pluginRef: max-score-picker
"""
_PLUGIN = "- type: prefix-cache-scorer\n  parameters: {maxPrefixBlocksToMatch: 0, maxPrefixTokensToMatch: 0}\n"
_PREFIX = _LOAD.replace("plugins:\n- type: queue", f"plugins:\n{_PLUGIN}- type: queue").replace(
    "  - pluginRef: max", "  - {pluginRef: prefix-cache-scorer, weight: 3}\n  - pluginRef: max"
)
_HAS_NATIVE = twins.SLICE_BLOCKS is None


@contextlib.contextmanager
def python_twins() -> Iterator[None]:
    """Use the reference, whatever is installed."""
    with (
        mock.patch.object(twins, "chain", keys.chain),
        mock.patch.object(twins, "content_hashes", keys.content_hashes),
        mock.patch.object(twins, "SLICE_BLOCKS", 1024),
        mock.patch.object(twins, "READS_BODIES", False),
        mock.patch.object(twins, "make_index", lru_index.LruIndex),
    ):
        yield


TWINS: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {"python": python_twins}
if _HAS_NATIVE:
    TWINS["native"] = contextlib.nullcontext


def chat(tokens: int, tail: str) -> bytes:
    """A body of so many tokens, of which the first half is the same for all."""
    words = random.Random(tokens).choices(range(10**7), k=tokens // 2)
    text = "".join(f"{word:08d}" for word in words)
    messages = [{"role": "system", "content": text[: 2 * tokens]}, {"role": "user", "content": f"{tail:4}" * (tokens // 2)}]
    return orjson.dumps({"model": "m", "messages": messages, "max_tokens": 100})


async def decide(director: Director, body: bytes, read: tuple[object, ...]) -> float:
    """Seconds of one decision, turns of the loop included."""
    request, stream = BenchRequest(body, read), BenchStream()
    begun = time.perf_counter()
    director.request(stream, request)
    while stream.answered is None:  # noqa: ASYNC110 — turns of the loop are a part of it
        await asyncio.sleep(0)
    elapsed = time.perf_counter() - begun
    assert isinstance(stream.answered, Route)
    return elapsed


async def decision_us(config: str, tokens: int, rounds: int, *, is_read: bool) -> float:
    """Median of decisions about prompts whose first half is known."""
    director, _ = make_director(ENDPOINTS, config)

    def read(body: bytes) -> tuple[object, ...]:
        known = director.pipeline.readings
        return tuple(body_blocks(body, 64, 0) for _ in known) if is_read else (b"",) * len(known)

    for number in range(30):
        body = chat(tokens, f"w{number}")
        await decide(director, body, read(body))
    times = []
    for number in range(rounds):
        body = chat(tokens, f"{number}")
        times.append(await decide(director, body, read(body)))
    return statistics.median(times) * 1e6


def best_us(call: Callable[[], object], rounds: int = 20) -> float:
    """Microseconds of one call in the best of some rounds."""
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return min(times) * 1e6


async def decisions() -> None:
    """Print the first table."""
    print(f"\ndecision with {ENDPOINTS} endpoints, median us")
    for tokens, rounds in ((1_000, 300), (100_000, 30)):
        body = chat(tokens, "x")
        without = await decision_us(_LOAD, tokens, rounds, is_read=False)
        print(f"{tokens:>7} tokens, {len(body):>7} bytes: {without:8.1f} without prefix")
        for name, use in TWINS.items():
            with use():
                parsed = await decision_us(_PREFIX, tokens, rounds, is_read=False)
                print(f"{'':24} {name:>7}: {parsed:8.1f} (+{parsed - without:.1f}) hashed at the decision")
                if twins.READS_BODIES:
                    known = await decision_us(_PREFIX, tokens, rounds, is_read=True)
                    took = best_us(lambda body=body: _native_blocks(body))  # type: ignore[misc]
                    print(f"{'':24} {name:>7}: {known:8.1f} (+{known - without:.1f}) read, {took:.1f} off the event loop")


def _native_blocks(body: bytes) -> object:
    import epp_native

    return epp_native.prompt_blocks(body, 64, 0)  # type: ignore[attr-defined, unused-ignore]


def packed(numbers: list[int]) -> bytes:
    """64 bits each."""
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def look_ups() -> None:
    """Print the second table."""
    print(f"\nlook-up of {PROMPT_BLOCKS} keys, {POOL} endpoints, {BLOCKS} blocks, best us")
    rng = random.Random(5)
    prompt = [rng.getrandbits(64) for _ in range(PROMPT_BLOCKS)]
    cold = packed([rng.getrandbits(64) for _ in range(PROMPT_BLOCKS)])
    for name, use in TWINS.items():
        for what, depths in (
            ("in whole by 100", [PROMPT_BLOCKS] * 100 + [0] * (POOL - 100)),
            ("by depths", [rng.randrange(1, 2 * BLOCKS // POOL) for _ in range(POOL)]),
        ):
            with use():
                index = twins.make_index()
            for slot, depth in enumerate(depths):
                index.add(slot, packed(prompt[:depth]), 10**6)
            fill(index, BLOCKS - len(index), range(POOL), rng)
            warm = packed(prompt)
            print(f"{name:>7}: {best_us(lambda: index.match(warm)):8.1f} held {what}")  # noqa: B023 — called at once
        print(f"{name:>7}: {best_us(lambda: index.match(cold)):8.1f} held by nobody")  # noqa: B023


def fill(index: PrefixIndex, entries: int, slots: range, rng: random.Random) -> None:
    """Add prompts of 100 blocks of their own."""
    for number in range(max(entries, 0) // 100):
        index.add(slots[number % len(slots)], packed([rng.getrandbits(64) for _ in range(100)]), 10**6)


def memory() -> None:
    """Print the third table."""
    print("\nmemory, bytes per block and endpoint")
    for name in TWINS:
        for holders in (1, 8):
            with ProcessPoolExecutor(1, get_context("spawn")) as fresh:  # memory that was freed is used again
                each = fresh.submit(entry_bytes, name, holders).result()
            print(f"{name:>7}: {each:6.0f} where {holders} hold{'s' * (holders == 1)} each block")


def entry_bytes(name: str, holders: int) -> float:
    """Growth of this process for each block and endpoint."""
    with TWINS[name]():
        index = twins.make_index()
    rng = random.Random(3)
    gc.collect()
    before = resident_bytes()
    for number in range(BLOCKS // 100 // holders):
        block = packed([rng.getrandbits(64) for _ in range(100)])
        for holder in range(holders):
            index.add((number + holder) % ENDPOINTS, block, 10**6)
    gc.collect()
    return (resident_bytes() - before) / len(index)


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Print all tables."""
    print(f"calibration: {calibrate():.1f} ns per step of a Python loop")
    asyncio.run(decisions())
    look_ups()
    memory()


if __name__ == "__main__":
    main()
