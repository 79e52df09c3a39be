"""Requests for the demo: chat completions of a few conversations, half of them streamed."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from dataclasses import dataclass, field

import aiohttp

from epp.simulate.options import DEFAULT_MODEL

_TOPICS = ("the sea", "old maps", "sourdough", "gravity", "trains", "bees", "chess openings", "volcanoes")
_TIMEOUT_S = 60.0


@dataclass(slots=True)
class LoadResult:
    """What became of the requests so far."""

    sent: int = 0
    succeeded: int = 0
    failures: list[str] = field(default_factory=list)
    """One line for each failed request."""
    latencies_s: list[float] = field(default_factory=list)
    served_by: dict[str, int] = field(default_factory=dict)
    """Requests by the server that answered."""
    cached_tokens: int = 0
    prompt_tokens: int = 0

    def summary(self) -> str:
        """Some lines for people."""
        lines = [f"{self.succeeded} of {self.sent} requests succeeded"]
        if self.latencies_s:
            ordered = sorted(self.latencies_s)
            p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
            lines.append(f"latency: median {statistics.median(ordered) * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms")
        if self.prompt_tokens:
            lines.append(f"prompt tokens from prefix caches: {100 * self.cached_tokens / self.prompt_tokens:.0f} %")
        lines += [f"  {server}: {count}" for server, count in sorted(self.served_by.items())]
        lines += [f"  failed: {text}" for text in self.failures[:5]]
        if len(self.failures) > 5:
            lines.append(f"  and {len(self.failures) - 5} more failures")
        return "\n".join(lines)


class Load:
    """Sends chat completions.

    Args:
        url: base URL of Envoy.
        concurrency: requests under way at once.
        seed: of conversations and their order.
    """

    def __init__(self, url: str, concurrency: int, seed: int = 1) -> None:
        self.result = LoadResult()
        self._url = f"{url}/v1/chat/completions"
        self._concurrency = concurrency
        self._rng = random.Random(seed)

    async def run(self, requests: int | None) -> LoadResult:
        """Send this many requests, or until cancelled if None."""
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        connector = aiohttp.TCPConnector(limit=self._concurrency)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session, asyncio.TaskGroup() as group:
            for _ in range(min(self._concurrency, requests) if requests is not None else self._concurrency):
                group.create_task(self._worker(session, requests))
        return self.result

    async def _worker(self, session: aiohttp.ClientSession, requests: int | None) -> None:
        result = self.result
        while requests is None or result.sent < requests:
            result.sent += 1
            begun = time.monotonic()
            try:
                await self._one(session, streams=result.sent % 2 == 0)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                result.failures.append(f"{type(error).__name__}: {error}")
                continue
            result.succeeded += 1
            result.latencies_s.append(time.monotonic() - begun)

    async def _one(self, session: aiohttp.ClientSession, *, streams: bool) -> None:
        topic = self._rng.choice(_TOPICS)
        system = f"You know everything about {topic}. " * 20
        question = f"Question {self._rng.randrange(1000)} about {topic}?"
        body = {
            "model": DEFAULT_MODEL,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": question}],
            "max_tokens": 16,
        }
        if streams:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        async with session.post(self._url, json=body) as response:
            text = await response.text()
            if response.status != 200:
                raise ValueError(f"status {response.status}: {text[:200]}")
            if streams and "data: [DONE]" not in text:
                raise ValueError("the stream was cut")
            server = response.headers.get("x-served-by", "unknown")
            self.result.served_by[server] = self.result.served_by.get(server, 0) + 1
            if not streams:
                self._count_usage(await response.json())

    def _count_usage(self, document: dict[str, object]) -> None:
        usage = document.get("usage")
        if not isinstance(usage, dict):
            return
        self.result.prompt_tokens += int(usage.get("prompt_tokens") or 0)
        details = usage.get("prompt_tokens_details")
        if isinstance(details, dict):
            self.result.cached_tokens += int(details.get("cached_tokens") or 0)
