"""The whole way through a real Envoy: forms of requests, leaving clients, dying pickers and servers, forged headers."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from epp.demo.stack import Stack, StackOptions
from epp.simulate.faults import Fault, FaultKind
from epp.simulate.options import DEFAULT_MODEL, EngineOptions, ServerOptions

pytestmark = pytest.mark.envoy

SLOW_STREAM = ServerOptions(engine=EngineOptions(ttft_ms=1.0, tpot_ms=20.0))


@pytest.fixture
async def stack(envoy_binary: Path) -> AsyncIterator[Stack]:
    """Two slow model servers behind the picker."""
    async with Stack(StackOptions(servers=2, server=SLOW_STREAM)) as stack:
        yield stack


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of Envoy."""
    async with aiohttp.ClientSession(stack.url, timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield session


def chat(prompt: str = "Hello!", **more: object) -> dict[str, object]:
    """A chat completion request."""
    return {"model": DEFAULT_MODEL, "messages": [{"role": "user", "content": prompt}], "max_tokens": 4} | more


async def metric(stack: Stack, name: str) -> float:
    """Sum of a family's series at the picker."""
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{stack.picker.metrics_port}/metrics"
        async with session.get(url) as response:
            text = await response.text()
    families = text_string_to_metric_families(text)
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)


async def until(stack: Stack, name: str, value: float) -> None:
    """Wait until a metric has a value; pages are cached for a second."""
    async with asyncio.timeout(10):
        while await metric(stack, name) != value:  # noqa: ASYNC110 — a metrics page can only be polled
            await asyncio.sleep(0.05)


async def test_c113_post_streamed_and_not(stack: Stack, client: aiohttp.ClientSession) -> None:
    async with client.post("/v1/chat/completions", json=chat()) as response:
        assert response.status == 200
        assert response.headers["x-went-into-resp-headers"] == "true"
        assert response.headers["x-served-by"] in stack.pool.addresses
        assert (await response.json())["usage"]["completion_tokens"] == 4
    async with client.post("/v1/chat/completions", json=chat(stream=True)) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert (await response.text()).rstrip().endswith("data: [DONE]")
    await until(stack, "llm_d_epp_request_total", 2)
    await until(stack, "llm_d_epp_request_running", 0)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_c113_without_a_body(client: aiohttp.ClientSession, method: str) -> None:
    async with client.request(method, "/v1/models") as response:
        assert response.status == 200


async def test_c113_a_body_of_more_than_a_megabyte_arrives_whole(client: aiohttp.ClientSession) -> None:
    prompt = "word " * 250_000
    async with client.post("/v1/messages/count_tokens", data=io.BytesIO(json.dumps(chat(prompt)).encode())) as response:
        assert response.status == 200
        assert (await response.json())["input_tokens"] >= 250_000


async def test_c113_a_client_that_leaves_is_noticed(stack: Stack, client: aiohttp.ClientSession) -> None:
    async with client.post("/v1/chat/completions", json=chat(stream=True, max_tokens=2000)) as response:
        await response.content.readline()
        await until(stack, "llm_d_epp_request_running", 1)
    await until(stack, "llm_d_epp_request_running", 0)


async def test_c113_a_killed_picker_breaks_the_connection_instead_of_ending_a_cut_answer(
    stack: Stack, client: aiohttp.ClientSession
) -> None:
    async with client.post("/v1/chat/completions", json=chat(stream=True, max_tokens=2000)) as response:
        await response.content.readline()
        os.kill(stack.picker.process.pid, signal.SIGKILL)
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_c113_a_forged_destination_has_no_effect(stack: Stack, client: aiohttp.ClientSession) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.set()
        writer.close()

    reached = asyncio.Event()
    trap = await asyncio.start_server(refuse, "127.0.0.1", 0)
    address = f"127.0.0.1:{trap.sockets[0].getsockname()[1]}"
    forged = {"x-gateway-destination-endpoint": address, "x-gateway-destination-endpoint-subset": address}
    async with trap:
        for method, path, body in (("POST", "/v1/chat/completions", chat()), ("GET", "/v1/models", None)):
            async with client.request(method, path, json=body, headers=forged) as response:
                assert response.status == 200
    assert not reached.is_set()


@pytest.mark.parametrize(
    ("body", "content_type", "status", "text"),
    [
        pytest.param(b"no healthy upstream", "application/json", 400, "error unmarshaling request bodyMap", id="not JSON"),
        pytest.param(b"[" * 50_000, "application/json", 400, "error unmarshaling request bodyMap", id="nested deeply"),
        pytest.param(b'{"messages": [{"role": "user"}]}', "application/json", 400, "model not found", id="no model"),
        pytest.param(json.dumps(chat()).encode(), "text/plain", 200, "chat.completion", id="wrong content type"),
    ],
)
async def test_bad_bodies(client: aiohttp.ClientSession, body: bytes, content_type: str, status: int, text: str) -> None:
    async with client.post("/v1/chat/completions", data=body, headers={"content-type": content_type}) as response:
        assert response.status == status
        assert text in await response.text()
        assert response.headers["content-type"].startswith("application/json")


@pytest.mark.parametrize("target", ["", DEFAULT_MODEL], ids=["as it came", "with another model"])
async def test_a_compressed_body(client: aiohttp.ClientSession, target: str) -> None:
    """The server undoes the coding, or gets a body that has none any more and says so nowhere."""
    body = gzip.compress(json.dumps(chat("word " * 10_000, model=DEFAULT_MODEL if not target else "another")).encode())
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    if target:
        headers["x-llm-d-model-name-rewrite"] = target
    async with client.post("/v1/chat/completions", data=body, headers=headers) as response:
        assert response.status == 200, await response.text()
        assert (await response.json())["usage"]["prompt_tokens"] >= 10_000


async def test_a_body_in_a_coding_that_is_not_read(client: aiohttp.ClientSession) -> None:
    headers = {"content-encoding": "br", "content-type": "application/json"}
    async with client.post("/v1/chat/completions", data=b"\x0b\x02\x80", headers=headers) as response:
        assert response.status == 415
        assert response.headers["accept-encoding"] == "gzip, deflate, zstd"
        assert "content-encoding 'br' is not supported" in (await response.json())["error"]["message"]


async def test_a_chunked_body_that_is_empty(client: aiohttp.ClientSession) -> None:
    async def nothing() -> AsyncIterator[bytes]:
        yield b""

    async with client.post("/v1/chat/completions", data=nothing()) as response:
        assert response.status == 400
        assert "error unmarshaling request bodyMap" in (await response.json())["error"]["message"]


async def test_an_unknown_path_is_passed_on(client: aiohttp.ClientSession) -> None:
    async with client.post("/no/such/api", data=b"\xff\x00 anything") as response:
        assert response.status == 404
        assert "x-served-by" in response.headers


async def answering_server(client: aiohttp.ClientSession) -> str | None:
    """The server that answered a request well; None if none did within a second."""
    try:
        async with client.post("/v1/chat/completions", json=chat(), timeout=aiohttp.ClientTimeout(total=1)) as response:
            await response.read()
            return response.headers["x-served-by"] if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError):
        return None


@pytest.mark.parametrize("kind", [FaultKind.RESET, FaultKind.HANG, FaultKind.REFUSE, FaultKind.METRICS_HALF])
async def test_a_faulty_server_disturbs_nobody_else(stack: Stack, client: aiohttp.ClientSession, kind: FaultKind) -> None:
    bad, good = stack.pool.servers
    await bad.set_faults([Fault(kind)])
    answers = await asyncio.gather(*(answering_server(client) for _ in range(12)))
    assert good.address in answers
    assert set(answers) <= {good.address, bad.address, None}
    await bad.set_faults([])
    async with client.post("/v1/chat/completions", json=chat()) as response:
        assert response.status == 200
    await until(stack, "llm_d_epp_request_running", 0)


async def test_responses_that_nobody_reads_arrive_whole(client: aiohttp.ClientSession) -> None:
    async def count() -> int:
        async with client.post("/v1/messages/count_tokens", json=chat()) as response:
            assert response.status == 200
            tokens: int = (await response.json())["input_tokens"]
            return tokens

    for _ in range(20):
        assert all(await asyncio.gather(*(count() for _ in range(16))))
