"""Servers come, go, die and misbehave while others serve."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import aiohttp
import pytest

from epp.simulate.faults import Fault, FaultKind
from epp.simulate.options import EngineOptions, MetricsPage, ServerOptions
from epp.simulate.server import SimulatedPool, SimulatedServer
from tests.simulate.conftest import MODEL, OPTIONS, eventually

COMPLETION = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 20}
NEVER_DONE = {**COMPLETION, "max_tokens": 60_000}


async def complete(client: aiohttp.ClientSession, server: SimulatedServer, **change: object) -> str:
    """The text of the answer, or the raw stream."""
    async with client.post(f"http://{server.address}/v1/completions", json={**COMPLETION, **change}) as response:
        assert response.status == 200, await response.text()
        return await response.text()


async def status(client: aiohttp.ClientSession, server: SimulatedServer, path: str = "/v1/completions") -> int:
    method = "POST" if path.startswith("/v1") else "GET"
    async with client.request(method, f"http://{server.address}{path}", json=COMPLETION) as response:
        await response.read()
        return response.status


async def test_servers_have_names_ports_and_engines_of_their_own(client: aiohttp.ClientSession) -> None:
    async with SimulatedPool(3, OPTIONS) as pool:
        assert [server.name for server in pool.servers] == ["sim-0", "sim-1", "sim-2"]
        assert len(set(pool.addresses)) == 3
        texts = {await complete(client, server) for server in pool.servers}
        assert len(texts) == 3
        assert [state.served for state in pool.states()] == [1, 1, 1]


async def test_the_same_pool_says_the_same_again(client: aiohttp.ClientSession) -> None:
    texts = []
    for _ in range(2):
        async with SimulatedPool(2, OPTIONS) as pool:
            bodies = [await (await client.post(f"http://{a}/v1/completions", json=COMPLETION)).json() for a in pool.addresses]
        texts.append([(body["id"], body["choices"]) for body in bodies])
    assert texts[0] == texts[1]


async def test_a_state_shows_queue_batch_and_cache(client: aiohttp.ClientSession) -> None:
    options = ServerOptions(engine=EngineOptions(max_num_seqs=2, kv_blocks=8000), models=(MODEL,))
    async with SimulatedPool(1, options) as pool:
        (server,) = pool.servers
        calls = [asyncio.create_task(complete(client, server, **NEVER_DONE)) for _ in range(3)]
        await eventually(lambda: server.state().waiting == 1)
        state = server.state()
        assert (state.running, state.served, state.is_up) == (2, 0, True)
        assert state.kv_usage_ratio > 0
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


async def test_added_servers_serve_and_removed_ones_end_what_they_began(client: aiohttp.ClientSession) -> None:
    async with SimulatedPool(1, OPTIONS) as pool:
        added = await pool.add()
        assert added.name == "sim-1"
        call = asyncio.create_task(complete(client, added, max_tokens=500))
        await eventually(lambda: added.state().running == 1)
        await pool.remove("sim-1")
        assert await call
        assert [server.name for server in pool.servers] == ["sim-0"]
        with pytest.raises(aiohttp.ClientConnectorError):
            await status(client, added)
        assert (await pool.add()).name == "sim-2"


async def test_a_name_is_taken_once() -> None:
    async with SimulatedPool(1, OPTIONS) as pool:
        with pytest.raises(ValueError, match="there is a server sim-0 already"):
            await pool.add(name="sim-0")
        assert len(pool.servers) == 1


async def test_draining_has_an_end(client: aiohttp.ClientSession) -> None:
    async with SimulatedPool(1, OPTIONS) as pool:
        (server,) = pool.servers
        call = asyncio.create_task(complete(client, server, **NEVER_DONE))
        await eventually(lambda: server.state().running == 1)
        await pool.remove("sim-0", drain_s=0.01)
        with pytest.raises(aiohttp.ClientError):
            await call


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_a_killed_server_resets_its_connections_and_can_be_revived(client: aiohttp.ClientSession, stream: bool) -> None:
    async with SimulatedPool(2, OPTIONS) as pool:
        victim, other = pool.servers
        call = asyncio.create_task(complete(client, victim, **{**NEVER_DONE, "stream": stream}))
        await eventually(lambda: victim.state().running == 1)
        await pool.kill(victim.name)
        with pytest.raises((ConnectionResetError, aiohttp.ClientPayloadError, aiohttp.ClientOSError)):
            await call
        assert not victim.state().is_up
        with pytest.raises(aiohttp.ClientConnectorError):
            await status(client, victim)
        assert await status(client, other) == 200
        address = victim.address
        await pool.restart(victim.name)
        assert victim.address == address
        assert await status(client, victim) == 200
        assert victim.state().prefix_hit_ratio == 0


async def test_closing_leaves_no_task_and_no_connection(client: aiohttp.ClientSession) -> None:
    before = asyncio.all_tasks()
    async with SimulatedPool(2, OPTIONS) as pool:
        calls = [asyncio.create_task(complete(client, server, **NEVER_DONE)) for server in pool.servers]
        await eventually(lambda: all(state.running for state in pool.states()))
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, aiohttp.ClientError) for result in results)
    await eventually(lambda: asyncio.all_tasks() == before)


async def test_a_port_that_is_taken_is_an_error_and_leaves_nothing() -> None:
    async with SimulatedPool(1, OPTIONS) as pool:
        with pytest.raises(OSError, match="in use"):
            async with SimulatedPool(2, OPTIONS, ports=[0, pool.servers[0].port]):
                raise AssertionError("must not start")


async def test_a_wildcard_address_is_reached_by_loopback(client: aiohttp.ClientSession) -> None:
    async with SimulatedPool(1, OPTIONS, host="0.0.0.0") as pool:
        (address,) = pool.addresses
        assert address.startswith("127.0.0.1:")
        async with client.get(f"http://{address}/health") as response:
            assert response.headers["x-served-by"] == address


async def test_a_hundred_servers_are_scraped_in_one_process(client: aiohttp.ClientSession) -> None:
    async with SimulatedPool(100, OPTIONS) as pool:

        async def scrape(address: str) -> int:
            async with client.get(f"http://{address}/metrics") as response:
                return len(await response.read())

        sizes = await asyncio.gather(*(scrape(address) for address in pool.addresses))
        assert all(size > 40_000 for size in sizes)


def with_fault(kind: FaultKind, rate: float = 1.0) -> ServerOptions:
    return replace(OPTIONS, faults=(Fault(kind, rate),))


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_reset_comes_in_the_middle_of_the_response(client: aiohttp.ClientSession, stream: bool) -> None:
    async with SimulatedPool(1, with_fault(FaultKind.RESET)) as pool:
        (server,) = pool.servers
        received = bytearray()

        async def read(response: aiohttp.ClientResponse) -> None:
            async for data in response.content.iter_any():
                received.extend(data)

        async with client.post(f"http://{server.address}/v1/completions", json={**COMPLETION, "stream": stream}) as response:
            assert response.status == 200
            with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientOSError)):
                await read(response)
        assert received
        assert b"[DONE]" not in received
        assert await status(client, server, "/metrics") == 200
        assert server.served == 0


async def test_an_error_rate_gives_errors_of_several_kinds(client: aiohttp.ClientSession) -> None:
    async with SimulatedPool(1, with_fault(FaultKind.ERROR, 0.5)) as pool:
        seen = [await status(client, pool.servers[0]) for _ in range(60)]
    assert 15 < seen.count(200) < 45
    assert {*seen} > {200, 500, 503}


@pytest.mark.parametrize(
    ("kind", "hit", "spared"),
    [(FaultKind.HANG, "/v1/completions", "/metrics"), (FaultKind.METRICS_HANG, "/metrics", "/v1/completions")],
)
async def test_a_hanging_path_never_answers_and_others_do(
    client: aiohttp.ClientSession, kind: FaultKind, hit: str, spared: str
) -> None:
    async with SimulatedPool(1, with_fault(kind)) as pool:
        (server,) = pool.servers
        hanging = asyncio.create_task(status(client, server, hit))
        assert await status(client, server, spared) == 200
        assert not hanging.done()
        await pool.kill(server.name)
        with pytest.raises(aiohttp.ClientError):
            await hanging


async def test_slow_is_a_second_late(client: aiohttp.ClientSession) -> None:
    async with SimulatedPool(1, with_fault(FaultKind.METRICS_SLOW)) as pool:
        (server,) = pool.servers
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        assert await status(client, server, "/metrics") == 200
        assert loop.time() - began_s >= 0.99


@pytest.mark.parametrize("page", list(MetricsPage), ids=str)
async def test_half_a_page_ends_within_a_line(client: aiohttp.ClientSession, page: MetricsPage) -> None:
    async with SimulatedPool(1, replace(with_fault(FaultKind.METRICS_HALF), metrics_page=page)) as pool:
        (server,) = pool.servers
        async with client.get(f"http://{server.address}/metrics") as response:
            half = await response.text()
        await server.set_faults(())
        async with client.get(f"http://{server.address}/metrics") as response:
            whole = await response.text()
    assert whole.startswith(half)
    assert not half.endswith("\n")
    assert len(half) < len(whole) * 0.51


async def test_refuse_closes_the_port_and_opens_it_again(client: aiohttp.ClientSession) -> None:
    async with SimulatedPool(1, with_fault(FaultKind.REFUSE)) as pool:
        (server,) = pool.servers
        address = server.address
        assert not server.is_up
        for _ in range(2):
            with pytest.raises(aiohttp.ClientConnectorError):
                await status(client, server, "/health")
            await server.set_faults(())
            assert await status(client, server, "/health") == 200
            await server.set_faults([Fault(FaultKind.REFUSE)])
        assert server.address == address
