"""An index in Redis or Valkey that several pickers share, llm-d's in Go among them.

A block is a hash under its key in decimal, with one field for each entry: a pod, a tier. An engine's key is a sorted set under
``engine:<key>``, its members the blocks' keys by their position. Writing is done by the thread of the events, in one pipeline
for each message; reading by the event loop, within a deadline.
Source: llm-d-router: pkg/kvcache/kvblock/redis.go; older fields: llm-d-kv-cache v0.7: pkg/kvcache/kvblock/redis.go
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from epp.framework import log
from plugins.kvcache.block_index import BlockIndex, Match
from plugins.kvcache.event_index import PythonEventIndex
from plugins.kvcache.pods import Pod
from plugins.kvcache.tiers import ASSUMED, ASSUMED_WEIGHT, Tiers

_logger = log.get(__name__)

DEFAULT_ADDRESS = "redis://127.0.0.1:6379"
DEADLINE_S = 0.05
"""Of a look-up; a request waits for it."""
CONNECT_S = 5.0
"""Of the first connection."""
SILENCE_S = 1.0
"""Longest silence of a server while events are written."""
PAUSE_S = 1.0
"""Nothing is written for so long after a failure: what is said meanwhile is lost, and told again only when it is cached
anew."""
CHUNK = 128
"""Blocks that are asked for at once; most prompts match none or few."""
LINK_TTL_S = 86_400
"""Of an engine's key that is not stored again."""
_SCAN = 1024


class IndexUnavailableError(Exception):
    """The server cannot be reached, is too slow, or answered with an error; the text says which."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where the index is."""

    address: str = DEFAULT_ADDRESS
    key_prefix: str = ""
    """In front of every key, so that pools can share a database; Go pickers know none."""

    @property
    def url(self) -> str:
        """The address as the client library takes it."""
        address = self.address or DEFAULT_ADDRESS
        for scheme, plain in (("valkey://", "redis://"), ("valkeys://", "rediss://")):
            if address.startswith(scheme):
                return plain + address.removeprefix(scheme)
        return address if "://" in address else f"redis://{address}"


class RedisStore:
    """Writes the index. It remembers what this picker knows itself, so that each entry is written once.

    Args:
        server: where to.
        local: of this process.
        tiers: by number.
        clock: seconds.

    Raises:
        ValueError: the client library is missing, or the address is wrong.
    """

    def __init__(self, server: Server, local: BlockIndex, tiers: Tiers, clock: Callable[[], float] = time.monotonic) -> None:
        library = _library("redis")
        self._failures: tuple[type[Exception], ...] = (library.RedisError, OSError, ValueError)
        self._refusal: type[Exception] = library.ResponseError
        self._client: Any = library.Redis.from_url(
            server.url, socket_timeout=SILENCE_S, socket_connect_timeout=SILENCE_S, decode_responses=True
        )
        self._prefix = server.key_prefix
        self._local = local
        self._tiers = tiers
        self._clock = clock
        self._pipeline: Any = self._client.pipeline(transaction=False)
        self._quiet_until_s = float("-inf")
        self.errors = 0
        """Messages and questions that failed."""

    def add(self, pod: Pod, tier: int, key: int) -> bool:
        """A pod holds a block; False if that was known here."""
        is_new = self._local.add(pod, tier, key)
        if is_new:
            self._pipeline.hset(f"{self._prefix}{key}", entry_field(pod.name, self._tiers.names[tier]), "")
        return is_new

    def remove(self, pod: Pod, tier: int, key: int) -> None:
        """A pod holds a block no longer. The server drops hashes without a field itself."""
        self._local.remove(pod, tier, key)
        name = self._tiers.names[tier]
        self._pipeline.hdel(f"{self._prefix}{key}", entry_field(pod.name, name), f"{pod.name}@{name}")

    def linked(self, engine_key: int, keys: Sequence[int]) -> None:
        """An engine's key stands for these."""
        name = f"{self._prefix}engine:{engine_key}"
        self._pipeline.zadd(name, {str(key): position for position, key in enumerate(keys)})
        self._pipeline.expire(name, LINK_TTL_S)

    def find_parent(self, engine_key: int) -> int | None:
        """The last key that another picker says an engine's key stands for."""
        if self._clock() < self._quiet_until_s:
            return None
        name = f"{self._prefix}engine:{engine_key}"
        try:
            try:
                found = self._client.zrevrange(name, 0, 0)
            except self._refusal:
                found = [self._client.get(name)]  # of an older release
            return int(found[0]) if found and found[0] else None
        except self._failures as error:
            self._failed(error)
            return None

    def renamed(self, old: str, new: str, entries: int) -> None:
        """A pod has another name; what was written under the old one goes."""
        self._local.renamed(old, new, entries)
        self.cleared(old)

    def cleared(self, pod_name: str) -> None:
        """Take out what anybody has written about a pod."""
        self.flush()
        if self._clock() < self._quiet_until_s:
            return
        try:
            cursor = None
            while cursor != 0:
                cursor, names = self._client.scan(cursor or 0, match=f"{self._prefix}*", count=_SCAN)
                self._clear_some(pod_name, [name for name in names if not name.startswith(f"{self._prefix}engine:")])
        except self._failures as error:
            self._failed(error)

    def flush(self) -> None:
        """Send what a message changed."""
        pipeline, self._pipeline = self._pipeline, self._client.pipeline(transaction=False)
        if not len(pipeline) or self._clock() < self._quiet_until_s:
            return
        try:
            pipeline.execute()
        except self._failures as error:
            self._failed(error)

    def close(self) -> None:
        """Disconnect."""
        self._client.close()

    def _clear_some(self, pod_name: str, names: Sequence[str]) -> None:
        asking = self._client.pipeline(transaction=False)
        for name in names:
            asking.hkeys(name)
        answers = asking.execute(raise_on_error=False) if names else []
        removing = self._client.pipeline(transaction=False)
        for name, fields in zip(names, answers, strict=True):
            of_pod = [field for field in fields if read_field(field)[0] == pod_name] if isinstance(fields, list) else []
            if of_pod:
                removing.hdel(name, *of_pod)
        if len(removing):
            removing.execute()

    def _failed(self, error: Exception) -> None:
        self.errors += 1
        self._quiet_until_s = self._clock() + PAUSE_S
        _logger.warning("the shared index is not written", error=str(error), pause_s=PAUSE_S)


class SharedLookup:
    """Reads the index.

    Args:
        server: where it is.
        index: of this process, for what it assumes.
        tiers: by number.
        store: that writes; closed with this.

    Raises:
        ValueError: the client library is missing, or the address is wrong.
    """

    def __init__(self, server: Server, index: PythonEventIndex, tiers: Tiers, store: RedisStore) -> None:
        library = _library("redis.asyncio")
        self._failures: tuple[type[Exception], ...] = (_library("redis").RedisError, OSError)
        self._server = server
        self._client: Any = library.Redis.from_url(server.url, socket_connect_timeout=CONNECT_S, decode_responses=True)
        self._index = index
        self._tiers = tiers
        self._store = store

    @property
    def write_errors(self) -> int:
        """Messages that were not written."""
        return self._store.errors

    async def start(self) -> None:
        """Check that the server is there.

        Raises:
            OSError: it is not.
        """
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._client.ping()
        except self._failures as error:
            await self.stop()
            raise OSError(
                f"the block index at {self._server.address} cannot be reached: {str(error) or 'no answer'}"
            ) from error

    async def stop(self) -> None:
        """Disconnect."""
        await self._client.aclose()
        self._store.close()

    async def lookup(self, keys: Sequence[int], now_s: float) -> dict[str, Match]:
        """What each pod holds of a prompt, by its name.

        Raises:
            IndexUnavailableError: the server cannot tell in time.
        """
        self._index.assumed.sweep(now_s)
        runs = _Runs(self._tiers)
        try:
            async with asyncio.timeout(DEADLINE_S):
                for start in range(0, len(keys), CHUNK):
                    chunk = keys[start : start + CHUNK]
                    pipeline = self._client.pipeline(transaction=False)
                    for key in chunk:
                        pipeline.hkeys(f"{self._server.key_prefix}{key}")
                    for key, fields in zip(chunk, await pipeline.execute(), strict=True):
                        if not runs.add(self._entries(key, fields, now_s)):
                            return runs.matches()
        except TimeoutError as error:
            raise IndexUnavailableError(f"no answer within {DEADLINE_S:g} s") from error
        except self._failures as error:
            raise IndexUnavailableError(str(error)) from error
        return runs.matches()

    def _entries(self, key: int, fields: Sequence[str], now_s: float) -> dict[str, set[str]]:
        """Pod → tiers in which it has a block."""
        found: dict[str, set[str]] = {}
        for field in fields:
            pod, tier = read_field(field)
            if pod:
                found.setdefault(pod, set()).add(tier)
        for pod in self._index.assumed_at(key, now_s):
            found.setdefault(pod, set()).add(ASSUMED)
        return found


class _Runs:
    """Consecutive blocks of each pod, block by block."""

    def __init__(self, tiers: Tiers) -> None:
        self._tiers = tiers
        self._count = 0
        self._alive: dict[str, set[str]] = {}
        """Pods that have all blocks so far, with the tiers that each have all of them."""
        self._blocks: dict[str, int] = {}
        self._weights: dict[str, float] = {}
        self._by_tier: dict[str, dict[str, int]] = {}

    def add(self, entries: Mapping[str, set[str]]) -> bool:
        """The next block; whether any pod has all so far."""
        first = not self._count
        self._count += 1
        alive = {
            pod: tiers if first else self._alive[pod] & tiers for pod, tiers in entries.items() if first or pod in self._alive
        }
        for pod, tiers in alive.items():
            self._blocks[pod] = self._count
            self._weights[pod] = self._weights.get(pod, 0.0) + max(map(self._weight, entries[pod]))
            by_tier = self._by_tier.setdefault(pod, {})
            for tier in tiers:
                by_tier[tier] = self._count
        self._alive = alive
        return bool(alive)

    def matches(self) -> dict[str, Match]:
        """What was found."""
        return {pod: Match(blocks, self._weights[pod], self._by_tier[pod]) for pod, blocks in self._blocks.items()}

    def _weight(self, tier: str) -> float:
        if tier == ASSUMED:
            return ASSUMED_WEIGHT
        number = self._tiers.number(tier)
        return self._tiers.weights[number] if number is not None else 0.0


def entry_field(pod: str, tier: str) -> str:
    """The field of an entry, as Go encodes it."""
    entry = {"PodIdentifier": pod, "DeviceTier": tier, "Speculative": False, "HasGroup": False, "GroupIdx": 0}
    return orjson.dumps(entry).decode()


def read_field(field: str) -> tuple[str, str]:
    """Pod and tier of an entry, in both forms; ("", "") for something else."""
    if field.startswith("{"):
        try:
            entry = orjson.loads(field)
        except orjson.JSONDecodeError:
            return "", ""
        pod, tier = entry.get("PodIdentifier"), entry.get("DeviceTier")
        if not isinstance(pod, str) or not isinstance(tier, str):
            return "", ""
        return pod, ASSUMED if entry.get("Speculative") else tier.lower() or "gpu"
    pod, _, tier = field.rpartition("@")
    if tier.endswith("[speculative]"):
        return pod, ASSUMED
    return pod, tier.lower() or "gpu"


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"an index in Redis needs its client, which is not installed ({error}): pip install 'endpoint-picker[redis]'"
        ) from error
