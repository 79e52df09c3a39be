"""Prefix-cache awareness through a real Envoy: the preset, simulated servers with caches of their own, every transport."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from epp.demo.data_files import data_path
from epp.demo.envoy import EnvoyProcess, render
from epp.demo.picker import PickerProcess
from epp.simulate.options import EngineOptions, ServerOptions
from epp.simulate.server import SERVED_BY, SimulatedPool
from tests.envoy.test_plugins import TRANSPORTS

pytestmark = pytest.mark.envoy

PRESET = data_path("presets") / "prefix-load.yaml"
SERVERS = 3


@dataclass
class Answer:
    """What a client learns."""

    server: str
    prompt_tokens: int
    cached_tokens: int
    """What the server's own cache had."""


@dataclass
class Chain:
    """Envoy, the picker and the servers."""

    proxy: str
    picker: PickerProcess
    http: aiohttp.ClientSession

    async def chat(self, *contents: str, **headers: str) -> Answer:
        """A chat of these messages."""
        roles = ("user", "assistant")
        messages = [{"role": roles[n % 2], "content": content} for n, content in enumerate(contents)]
        body = {"model": "m", "messages": messages, "max_tokens": 1}
        async with self.http.post(f"{self.proxy}/v1/chat/completions", json=body, headers=headers) as response:
            assert response.status == 200, await response.text()
            usage = (await response.json())["usage"]
            cached = usage["prompt_tokens_details"]["cached_tokens"]
            return Answer(response.headers[SERVED_BY], usage["prompt_tokens"], cached)

    async def debug(self, page: str) -> Any:
        async with self.http.get(f"http://127.0.0.1:{self.picker.metrics_port}/debug/{page}") as response:
            return await response.json()


@pytest.fixture(params=TRANSPORTS)
async def chain(request: pytest.FixtureRequest, envoy_binary: Path) -> AsyncIterator[Chain]:
    async with AsyncExitStack() as stack:
        options = ServerOptions(engine=EngineOptions(time_scale=0.0), models=("m",))
        pool = await stack.enter_async_context(SimulatedPool(SERVERS, options))
        flags = [f"--config-file={PRESET}", f"--transport={request.param}", "--secure-serving=false"]
        flags += [f"--endpoint={address}" for address in pool.addresses]
        picker = await stack.enter_async_context(PickerProcess(flags))
        bootstrap = render("full-duplex", epp_port=picker.grpc_port, endpoints=pool.addresses, secure=False)
        proxy = await stack.enter_async_context(EnvoyProcess(bootstrap, binary=envoy_binary))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield Chain(proxy.url, picker, http)


async def test_conversations_stay_where_they_are_cached_and_new_ones_are_spread(chain: Chain) -> None:
    homes: dict[str, Answer] = {}
    for name in "abcdef":
        homes[name] = await chain.chat(f"{name} " * 400)
    assert [answer.cached_tokens for answer in homes.values()] == [0] * 6, "nobody had them"
    assert Counter(answer.server for answer in homes.values()).most_common() == [
        (server, 2) for server in dict.fromkeys(answer.server for answer in homes.values())
    ], "new prompts balance"
    for name, first in homes.items():
        again = await chain.chat(f"{name} " * 400, "an answer", f"and more of {name}")
        assert again.server == first.server
        assert again.cached_tokens > 0.8 * first.prompt_tokens, "the server's own cache says so"


async def test_what_was_predicted_is_what_the_servers_report(chain: Chain) -> None:
    for _ in range(25):
        answer = await chain.chat("the same prompt " * 50)
    [shown] = [e for e in (await chain.debug("endpoints"))["endpoints"] if e["cachedPrefixes"]]
    assert shown["address"] == answer.server
    [truth] = shown["cachedPrefixes"]
    assert (truth["producer"], truth["mismatch"]) == ("prefix-cache-scorer", None)
    assert truth["responses"] in (23, 24), "all but the first; a client has its answer before the picker hears of the end"
    assert truth["predictedTokens"] == pytest.approx(truth["reportedTokens"], rel=0.3)


async def test_a_conditional_request_goes_only_where_it_is_cached(chain: Chain) -> None:
    url = f"{chain.proxy}/v1/chat/completions"
    body = {"model": "m", "messages": [{"role": "user", "content": "is it there? " * 50}], "max_tokens": 1}
    statuses = []
    for headers in ({"prefer": "if-available"}, {}, {"prefer": "if-available"}):
        async with chain.http.post(url, json=body, headers=headers) as response:
            await response.read()
            statuses.append(response.status)
    assert statuses == [412, 200, 200]
