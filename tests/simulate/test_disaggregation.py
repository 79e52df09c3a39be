"""Requests that several simulated servers work on: who does what, what is refused, what happens when one fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from epp.simulate.faults import Fault, FaultKind
from epp.simulate.options import DisaggregationOptions, EngineOptions, KvEventOptions, ServerOptions
from epp.simulate.server import SimulatedPool
from epp.simulate.transfers import PATH as TRANSFER_PATH
from tests.simulate.conftest import FAST, MODEL, eventually
from tests.simulate.subscriber import subscriber

Json = dict[str, Any]

LLM_D, HEIMDALL = "x-prefiller-host-port", "mif-prefill-endpoint"
CHAT: Json = {"model": MODEL, "messages": [{"role": "user", "content": "Where is the station? " * 20}]}
BODIES: dict[str, Json] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"model": MODEL, "prompt": "Once upon a time there was a queue. " * 10},
    "/v1/responses": {"model": MODEL, "input": "Once upon a time there was a queue. " * 10},
    "/v1/messages": {**CHAT, "max_tokens": 32},
}
PREFILL_ONLY = {"do_remote_decode": True, "do_remote_prefill": False}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
OTHER = {"type": "image_url", "image_url": {"url": "https://example.org/b.png"}}
INLINE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
SOUND = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}


class Servers:
    """One server for each role, and a client."""

    def __init__(self, pool: SimulatedPool, client: aiohttp.ClientSession) -> None:
        self.pool = pool
        self._client = client

    def address(self, name: str) -> str:
        return self.pool[name].address

    async def post(self, name: str, body: Json, path: str = "/v1/chat/completions", **headers: str) -> tuple[int, Json]:
        """Status and body of an answer; header names with ``_`` for ``-``."""
        sent = {header.replace("_", "-"): value for header, value in headers.items()}
        async with self._client.post(f"http://{self.address(name)}{path}", json=body, headers=sent) as response:
            return response.status, await response.json()

    async def metric(self, name: str, family: str) -> float:
        """Sum of a family at a server."""
        async with self._client.get(f"http://{self.address(name)}/metrics") as response:
            text = await response.text()
        families = text_string_to_metric_families(text)
        return sum(sample.value for each in families for sample in each.samples if sample.name == family)

    async def shares(self, family: str) -> dict[str, float]:
        """Of all servers."""
        return {server.name: await self.metric(server.name, family) for server in self.pool.servers}


@asynccontextmanager
async def serving(
    client: aiohttp.ClientSession,
    engine: EngineOptions = FAST,
    faults: dict[str, Fault] | None = None,
    kv_events: KvEventOptions | None = None,
    **disaggregation: Any,
) -> AsyncIterator[Servers]:
    shared = ServerOptions(
        engine=engine, models=(MODEL,), kv_events=kv_events, disaggregation=DisaggregationOptions(**disaggregation)
    )
    async with SimulatedPool(0) as pool:
        for role in ("decode", "prefill", "encode"):
            fault = (faults or {}).get(role)
            options = replace(shared, labels={"llm-d.ai/role": role}, faults=(fault,) if fault else ())
            await pool.add(options, name=role)
        await pool.add(shared, name="plain")
        yield Servers(pool, client)


@pytest.fixture
async def servers(client: aiohttp.ClientSession) -> AsyncIterator[Servers]:
    async with serving(client) as started:
        yield started


@pytest.mark.parametrize("header", [LLM_D, HEIMDALL])
@pytest.mark.parametrize("path", BODIES)
async def test_the_prompt_is_computed_once_and_elsewhere(servers: Servers, path: str, header: str) -> None:
    body = BODIES[path]
    alone = await servers.post("plain", body, path)
    status, answer = await servers.post("decode", body, path, **{header: servers.address("prefill")})
    assert status == alone[0] == 200
    usage = answer["usage"]
    size = usage.get("prompt_tokens", usage.get("input_tokens"))
    produced = usage.get("completion_tokens", usage.get("output_tokens"))
    assert produced == 32, "the answer is that of the server that decodes"
    assert "kv_transfer_params" not in answer
    computed = await servers.shares("vllm:request_prefill_kv_computed_tokens_sum")
    assert computed == {"decode": 1, "prefill": size, "encode": 0, "plain": size}
    assert await servers.shares("vllm:external_prefix_cache_hits_total") == {
        "decode": size,
        "prefill": 0,
        "encode": 0,
        "plain": 0,
    }
    assert await servers.shares("vllm:generation_tokens_total") == {"decode": 32, "prefill": 1, "encode": 0, "plain": 32}
    assert servers.pool["prefill"].state().kv_usage_ratio == 0, "its blocks were fetched and given up"


async def test_both_families_may_say_the_same_and_a_list_means_its_first(servers: Servers) -> None:
    address = servers.address("prefill")
    headers = {LLM_D: f"{address},203.0.113.1:1", HEIMDALL: f"{address},203.0.113.1:1"}
    status, _ = await servers.post("decode", {**CHAT, "stream": False}, **headers)
    assert status == 200
    assert await servers.metric("prefill", "vllm:request_success_total") == 1


@pytest.mark.parametrize("more", [{"n": 2}, {"prompt": ["one " * 40, "two " * 40]}, {"prompt": list(range(100))}], ids=str)
async def test_several_prompts_and_answers_are_one_transfer(servers: Servers, more: Json) -> None:
    body = BODIES["/v1/completions"] | more | {"max_tokens": 2}
    _, alone = await servers.post("plain", body, "/v1/completions")
    status, answer = await servers.post("decode", body, "/v1/completions", **{LLM_D: servers.address("prefill")})
    assert status == 200, answer
    assert [choice["index"] for choice in answer["choices"]] == [choice["index"] for choice in alone["choices"]]
    fetched = await servers.metric("decode", "vllm:external_prefix_cache_hits_total")
    assert fetched >= answer["usage"]["prompt_tokens"] == alone["usage"]["prompt_tokens"]
    assert servers.pool["prefill"].state().kv_usage_ratio == 0


@pytest.mark.parametrize("messages", [None, 1, "text", [1], [{"role": "user", "content": 1}]], ids=str)
async def test_nonsense_in_a_body_is_refused_as_ever(servers: Servers, messages: object) -> None:
    headers = {LLM_D: servers.address("prefill"), "x-encoder-hosts-ports": servers.address("encode")}
    status, answer = await servers.post("decode", {"model": MODEL, "messages": messages}, **headers)
    assert status == 400
    assert "messages" in answer["error"]["message"]


async def test_a_stream_comes_from_the_server_that_decodes(servers: Servers, client: aiohttp.ClientSession) -> None:
    url = f"http://{servers.address('decode')}/v1/chat/completions"
    body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 5}
    async with client.post(url, json=body, headers={LLM_D: servers.address("prefill")}) as response:
        assert response.headers["x-served-by-name"] == "decode"
        text = await response.text()
    assert text.endswith("data: [DONE]\n\n")
    assert '"completion_tokens":5' in text
    assert await servers.metric("prefill", "vllm:generation_tokens_total") == 1


async def test_the_transfer_takes_the_place_of_the_computation(client: aiohttp.ClientSession) -> None:
    slow = EngineOptions(ttft_ms=0, prefill_us_per_token=1000, transfer_us_per_token=10, tpot_ms=0.1)
    async with serving(client, slow) as servers:
        await servers.post("plain", CHAT)
        await servers.post("decode", CHAT, **{LLM_D: servers.address("prefill")})
        ttft_s = {name: servers.pool[name].state().ttft_s for name in ("plain", "prefill", "decode")}
    assert ttft_s["plain"] == pytest.approx(ttft_s["prefill"], rel=0.2)
    assert ttft_s["decode"] < ttft_s["plain"] / 5


async def test_both_servers_tell_that_they_hold_the_prompt(client: aiohttp.ClientSession) -> None:
    async with serving(client, kv_events=KvEventOptions()) as servers:
        decode, prefill = (servers.pool[name].kv_events for name in ("decode", "prefill"))
        assert decode is not None
        assert prefill is not None
        async with subscriber(decode.address) as first, subscriber(prefill.address) as second:
            await decode.subscribed()
            await prefill.subscribed()
            await servers.post("decode", {**CHAT, "max_tokens": 1}, **{LLM_D: servers.address("prefill")})
            told = [(await each.next()).events[0] for each in (first, second)]
    assert told[0] == told[1]
    assert len(told[0]["block_hashes"]) > 4


FORGED = {
    "two hosts": {LLM_D: "10.0.0.1:8000", HEIMDALL: "10.0.0.2:8000"},
    "two lists": {"x-encoder-hosts-ports": "10.0.0.1:8000", "mif-encode-endpoints": "10.0.0.1:8000,10.0.0.2:8000"},
    "no port": {LLM_D: "10.0.0.1"},
    "no host": {HEIMDALL: ":8000"},
    "port 0": {LLM_D: "10.0.0.1:0"},
    "a URL": {LLM_D: "http://10.0.0.1:8000"},
    "a path": {LLM_D: "10.0.0.1/x:8000"},
    "bare IPv6": {LLM_D: "fd00::5:8000"},
    "not IPv6": {LLM_D: "[fd00]:8000"},
    "empty": {LLM_D: " "},
    "one bad of two": {"mif-encode-endpoints": "10.0.0.1:8000,nobody"},
}


@pytest.mark.parametrize("headers", FORGED.values(), ids=FORGED)
async def test_headers_that_make_no_sense_are_refused(servers: Servers, headers: dict[str, str]) -> None:
    status, body = await servers.post("decode", CHAT, **headers)
    assert status == 400
    assert next(iter(headers)) in body["error"]["message"]
    assert await servers.metric("decode", "vllm:prompt_tokens_total") == 0


async def test_a_server_does_not_call_itself(servers: Servers) -> None:
    status, body = await servers.post("decode", CHAT, **{LLM_D: servers.address("decode")})
    assert (status, "this server itself" in body["error"]["message"]) == (400, True)


@pytest.mark.parametrize("name", ["prefill", "encode"])
@pytest.mark.parametrize("header", [LLM_D, "mif-encode-endpoints"])
async def test_only_servers_that_decode_take_the_headers(servers: Servers, name: str, header: str) -> None:
    status, body = await servers.post(name, CHAT, **{header: servers.address("plain")})
    assert status == 400
    assert body["error"]["message"].endswith(f"is for servers that decode; this one's role is {name}")


CONTRADICTIONS: dict[str, tuple[Json, str]] = {
    "not an object": ({"kv_transfer_params": 1}, "must be an object"),
    "both": ({"kv_transfer_params": {"do_remote_decode": True, "do_remote_prefill": True}}, "exclude each other"),
    "not a boolean": ({"kv_transfer_params": {"do_remote_decode": "yes"}}, "must be a boolean"),
    "nowhere": ({"kv_transfer_params": {"do_remote_prefill": True}}, "needs remote_engine_id"),
    "a stream": ({"kv_transfer_params": PREFILL_ONLY, "stream": True}, "without a stream"),
    "block ids": (
        {"kv_transfer_params": {"do_remote_prefill": True, "remote_engine_id": "e", "remote_request_id": "r",
         "remote_host": "h", "remote_port": 1, "remote_block_ids": "x"}},
        "must be a list of whole numbers",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("more", "message"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
async def test_transfer_parameters_that_make_no_sense_are_refused(servers: Servers, more: Json, message: str) -> None:
    status, body = await servers.post("plain", CHAT | more)
    assert status == 400
    assert message in body["error"]["message"]


async def test_a_prompt_is_not_computed_twice_elsewhere(servers: Servers) -> None:
    body = {**CHAT, "kv_transfer_params": PREFILL_ONLY}
    status, answer = await servers.post("decode", body, **{LLM_D: servers.address("prefill")})
    assert (status, "kv_transfer_params" in answer["error"]["message"]) == (400, True)


async def test_an_answer_says_where_its_blocks_wait_and_they_wait(servers: Servers) -> None:
    status, answer = await servers.post("prefill", {**CHAT, "max_tokens": 1, "kv_transfer_params": PREFILL_ONLY})
    assert status == 200
    params = answer["kv_transfer_params"]
    assert (params["do_remote_prefill"], params["do_remote_decode"]) == (True, False)
    assert f"{params['remote_host']}:{params['remote_port']}" == servers.address("prefill")
    assert servers.pool["prefill"].state().kv_usage_ratio == len(params["remote_block_ids"]) / FAST.kv_blocks
    status, decoded = await servers.post("plain", {**CHAT, "kv_transfer_params": params})
    assert status == 200
    assert decoded["usage"]["prompt_tokens_details"]["cached_tokens"] == decoded["usage"]["prompt_tokens"] - 1
    assert servers.pool["prefill"].state().kv_usage_ratio == 0


async def test_blocks_of_another_prompt_are_refused(servers: Servers) -> None:
    _, answer = await servers.post("prefill", {**CHAT, "max_tokens": 1, "kv_transfer_params": PREFILL_ONLY})
    other = {**CHAT, "messages": [{"role": "user", "content": "something else"}]}
    status, body = await servers.post("plain", {**other, "kv_transfer_params": answer["kv_transfer_params"]})
    assert (status, body["error"]["message"].endswith("those of another prompt")) == (400, True)


@pytest.mark.parametrize("lost", ["fetched", "expired", "restarted", "dead"])
async def test_a_prompt_whose_blocks_are_gone_is_computed_again(client: aiohttp.ClientSession, lost: str) -> None:
    async with serving(client, hold_s=0.0 if lost == "expired" else 60.0) as servers:
        _, answer = await servers.post("prefill", {**CHAT, "max_tokens": 1, "kv_transfer_params": PREFILL_ONLY})
        params = answer["kv_transfer_params"]
        match lost:
            case "fetched":
                assert (await servers.post("prefill", params, TRANSFER_PATH))[0] == 200
            case "expired":
                await eventually(lambda: servers.pool["prefill"].state().kv_usage_ratio == 0)
            case "restarted":
                await servers.pool.kill("prefill")
                await servers.pool.restart("prefill")
            case _:
                await servers.pool.kill("prefill")
        status, decoded = await servers.post("plain", {**CHAT, "kv_transfer_params": params})
        assert status == 200
        assert decoded["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


async def test_a_failed_prefill_is_the_answer(client: aiohttp.ClientSession) -> None:
    async with serving(client) as servers:
        body = {**CHAT, "messages": [{"role": "user", "content": "word " * 200_000}]}
        status, answer = await servers.post("decode", body, **{LLM_D: servers.address("prefill")})
        assert status == 400
        assert "maximum context length" in answer["error"]["message"]
        assert servers.pool["decode"].served == 0
    async with serving(client, faults={"prefill": Fault(FaultKind.ERROR)}) as servers:
        url = f"http://{servers.address('decode')}/v1/chat/completions"
        async with client.post(url, json=CHAT, headers={LLM_D: servers.address("prefill")}) as response:
            assert response.status in (500, 502, 503, 504)
            assert response.headers["x-served-by-name"] == "prefill"
            assert (await response.json())["error"]["message"] == "simulated failure"


async def test_a_prefill_server_that_is_away_is_a_502(servers: Servers) -> None:
    address = servers.address("prefill")
    await servers.pool.kill("prefill")
    status, answer = await servers.post("decode", CHAT, **{LLM_D: address})
    assert status == 502
    assert answer["error"]["message"].startswith(f"{address} gave no answer: ")


@asynccontextmanager
async def answering(statuses: list[int]) -> AsyncIterator[str]:
    """A prefill server that answers with these; the address."""

    async def answer(request: web.BaseRequest) -> web.Response:
        return web.json_response({}, status=statuses.pop(0))

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield "{}:{}".format(*runner.addresses[0])
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("statuses", "retries", "status", "left"),
    [
        ([503, 200], 0, 503, 1),
        ([503, 502, 504, 200], 3, 200, 0),
        ([503, 502, 504, 200], 2, 504, 1),
        ([500, 200], 3, 500, 1),
        ([429, 200], 3, 429, 1),
    ],
)
async def test_an_overloaded_prefill_server_is_asked_again_as_often_as_told(
    client: aiohttp.ClientSession, statuses: list[int], retries: int, status: int, left: int
) -> None:
    statuses = [*statuses]
    async with serving(client, prefill_retries=retries, retry_backoff_s=0.0) as servers, answering(statuses) as address:
        assert (await servers.post("decode", CHAT, **{LLM_D: address}))[0] == status
        assert len(statuses) == left
        # An answer without parameters of the transfer leaves the prompt to the server that decodes.
        computed = await servers.metric("decode", "vllm:request_prefill_kv_computed_tokens_sum")
        assert (computed > 0) is (status == 200)


async def test_each_media_part_is_encoded_once_in_turn(client: aiohttp.ClientSession) -> None:
    async with serving(client) as servers:
        await servers.pool.add(replace(servers.pool["encode"].options, labels={"mif.moreh.io/role": "encode"}), name="second")
        content = [{"type": "text", "text": "What is this?"}, IMAGE, INLINE, OTHER, SOUND]
        body = {**CHAT, "messages": [{"role": "user", "content": content}, {"role": "user", "content": [IMAGE, INLINE]}]}
        hosts = f"{servers.address('encode')},{servers.address('second')}"
        headers = {"mif-encode-endpoints": hosts, "x-encoder-hosts-ports": hosts, LLM_D: servers.address("prefill")}
        status, answer = await servers.post("decode", body, **headers)
        assert status == 200
        # The URL that comes twice counts once, inline data twice: five items, one after the other to each host.
        served = {server.name: server.served for server in servers.pool.servers}
        assert served == {"decode": 1, "prefill": 1, "encode": 3, "second": 2, "plain": 0}
        assert await servers.metric("encode", "vllm:generation_tokens_total") == 3
        assert await servers.metric("decode", "vllm:external_prefix_cache_hits_total") == answer["usage"]["prompt_tokens"]


async def test_without_media_nothing_is_encoded(servers: Servers) -> None:
    status, _ = await servers.post("decode", CHAT, x_encoder_hosts_ports=servers.address("encode"))
    assert status == 200
    assert (servers.pool["encode"].served, servers.pool["decode"].served) == (0, 1)


async def test_a_failed_encode_fails_the_request_before_anything_is_computed(client: aiohttp.ClientSession) -> None:
    async with serving(client, faults={"encode": Fault(FaultKind.ERROR)}) as servers:
        body = {**CHAT, "messages": [{"role": "user", "content": [IMAGE, OTHER]}]}
        headers = {"x-encoder-hosts-ports": servers.address("encode"), LLM_D: servers.address("prefill")}
        status, answer = await servers.post("decode", body, **headers)
        assert status in (500, 502, 503, 504)
        assert answer["error"]["message"] == "simulated failure"
        assert await servers.shares("vllm:prompt_tokens_total") == dict.fromkeys(["decode", "prefill", "encode", "plain"], 0)


async def test_a_strict_role_refuses_what_is_not_for_it(client: aiohttp.ClientSession) -> None:
    async with serving(client, strict_roles=True) as servers:
        media = {**CHAT, "messages": [{"role": "user", "content": [IMAGE]}]}
        handed_on = {**CHAT, "max_tokens": 1, "kv_transfer_params": PREFILL_ONLY}
        for name, body, status in (
            ("prefill", CHAT, 400), ("prefill", media, 400), ("prefill", handed_on, 200),
            ("encode", CHAT, 400), ("encode", handed_on, 400), ("encode", media, 200),
            ("decode", CHAT, 200), ("plain", CHAT, 200),
        ):  # fmt: skip
            assert (await servers.post(name, body))[0] == status, (name, body)
        _, refused = await servers.post("prefill", CHAT)
        expected = "this server's role is prefill: a request needs do_remote_decode in kv_transfer_params"
        assert refused["error"]["message"] == expected
        assert (await servers.post("decode", CHAT, **{LLM_D: servers.address("prefill")}))[0] == 200


async def test_a_client_that_leaves_ends_the_prefill(client: aiohttp.ClientSession) -> None:
    async with serving(client, EngineOptions(ttft_ms=60_000)) as servers:
        asking = asyncio.create_task(servers.post("decode", CHAT, **{LLM_D: servers.address("prefill")}))
        await eventually(lambda: servers.pool["prefill"].state().running == 1)
        asking.cancel()
        await eventually(lambda: servers.pool["prefill"].state().running == 0)
        assert servers.pool["prefill"].state().kv_usage_ratio == 0
