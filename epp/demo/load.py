"""Requests for the demo: conversations of several turns, every other request streamed, to one set-up or mirrored to several."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from typing import Any

import aiohttp

from epp.demo.conversation import Conversation, Message, next_script
from epp.demo.result import LoadResult
from epp.simulate.options import DEFAULT_MODEL

_TIMEOUT_S = 60.0
_ANSWER_TOKENS = 16


class Load:
    """Holds conversations.

    Each turn goes to all targets at the same moment and the next one begins when all have answered, so that they get the same
    load. Their conversations differ in the answers only.

    Args:
        urls: base URL of Envoy of each target.
        concurrency: conversations at once.
        seed: of conversations and their order.
    """

    def __init__(self, urls: Sequence[str], concurrency: int, seed: int = 1) -> None:
        self.results = [LoadResult() for _ in urls]
        self._urls = [f"{url}/v1/chat/completions" for url in urls]
        self._concurrency = concurrency
        self._rng = random.Random(seed)
        self._sent = 0

    async def run(self, requests: int | None) -> Sequence[LoadResult]:
        """Send this many requests to each target, or until cancelled if None."""
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        connector = aiohttp.TCPConnector(limit=0)
        workers = self._concurrency if requests is None else min(self._concurrency, requests)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session, asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._worker(session, requests))
        return self.results

    async def _worker(self, session: aiohttp.ClientSession, requests: int | None) -> None:
        while requests is None or self._sent < requests:
            script = next_script(self._rng)
            conversations = [Conversation.begun(script) for _ in self._urls]
            for question in script.questions:
                if requests is not None and self._sent >= requests:
                    return
                self._sent += 1
                streams = self._sent % 2 == 0
                await asyncio.gather(
                    *(
                        self._turn(session, target, conversation, question, streams)
                        for target, conversation in enumerate(conversations)
                    )
                )

    async def _turn(
        self, session: aiohttp.ClientSession, target: int, conversation: Conversation, question: str, streams: bool
    ) -> None:
        result = self.results[target]
        result.sent += 1
        begun = time.monotonic()
        answer = ""
        try:
            answer = await self._one(session, target, conversation.ask(question), streams)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            result.failures.append(f"{type(error).__name__}: {error}")
        else:
            result.succeeded += 1
            result.latencies_s.append(time.monotonic() - begun)
        conversation.hear(answer)

    async def _one(self, session: aiohttp.ClientSession, target: int, messages: Sequence[Message], streams: bool) -> str:
        body: dict[str, Any] = {"model": DEFAULT_MODEL, "messages": messages, "max_tokens": _ANSWER_TOKENS}
        if streams:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        result = self.results[target]
        begun = time.monotonic()
        async with session.post(self._urls[target], json=body) as response:
            if response.status != 200:
                raise ValueError(f"status {response.status}: {(await response.text())[:200]}")
            server = response.headers.get("x-served-by", "unknown")
            result.served_by[server] = result.served_by.get(server, 0) + 1
            if streams:
                return await self._read_stream(response, result, begun)
            document = await response.json()
        _count_usage(result, document)
        return str(document["choices"][0]["message"]["content"])

    @staticmethod
    async def _read_stream(response: aiohttp.ClientResponse, result: LoadResult, begun: float) -> str:
        said: list[str] = []
        is_whole = False
        async for line in response.content:
            if not line.startswith(b"data: "):
                continue
            if line.startswith(b"data: [DONE]"):
                is_whole = True
                break
            chunk = json.loads(line[6:])
            if not said:
                result.ttfts_s.append(time.monotonic() - begun)
            said += [choice["delta"].get("content") or "" for choice in chunk["choices"]]
            _count_usage(result, chunk)
        if not is_whole:
            raise ValueError("the stream was cut")
        return "".join(said)


def _count_usage(result: LoadResult, document: dict[str, Any]) -> None:
    usage = document.get("usage")
    if not isinstance(usage, dict):
        return
    result.prompt_tokens += int(usage.get("prompt_tokens") or 0)
    details = usage.get("prompt_tokens_details")
    if isinstance(details, dict):
        result.cached_tokens += int(details.get("cached_tokens") or 0)
