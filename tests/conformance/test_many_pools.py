"""Several pools in one real process: who gets which request, and what a pool that fails or overflows does to the others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from grpc import aio
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from epp.demo.picker import PickerError, PickerProcess
from epp.simulate.options import EngineOptions, ServerOptions
from epp.simulate.server import SimulatedPool
from tests.conformance.wire import (
    Refusal,
    Stream,
    request_body,
    request_headers,
    respond,
    response_body,
    response_headers,
    std_body,
)
from tests.transport.transports import TRANSPORTS

CHAT, CODE, OWN, OTHER = "127.0.0.1:7", "127.0.0.1:9", "127.0.0.1:11", "127.0.0.1:13"
PROMPTLY_S = 20.0
FLAGS = ("--secure-serving=false", "--drain-timeout=0s", "--refresh-metrics-interval=1s")
HEADER = {"apiVersion": "llm-d.ai/v1alpha1", "kind": "EndpointPickerConfig"}
QUEUE = {
    **HEADER,
    "plugins": [{"type": "queue-scorer"}],
    "schedulingProfiles": [{"name": "default", "plugins": [{"pluginRef": "queue-scorer"}]}],
}
CONTROLLED = {
    **HEADER,
    "featureGates": ["flowControl"],
    "plugins": [
        {"type": "inflight-load-producer"},
        {"type": "concurrency-detector", "parameters": {"maxConcurrency": 1}},
        {"type": "max-score-picker"},
    ],
    "schedulingProfiles": [{"name": "default", "plugins": [{"pluginRef": "max-score-picker"}]}],
    "flowControl": {"saturationDetector": {"pluginRef": "concurrency-detector"}, "defaultRequestTTL": "60s"},
}
"""One request runs, the others wait."""

CHAT_POOL: dict[str, Any] = {
    "name": "chat",
    "configFile": "chat.yaml",
    "endpoints": [CHAT],
    "match": {"authorities": ["chat.example.com"]},
}
CODE_POOL: dict[str, Any] = {
    "name": "code",
    "configFile": "code.yaml",
    "endpoints": [CODE],
    "match": {"authorities": ["*.code.example.com"]},
}
OWN_POOL: dict[str, Any] = {"name": "own", "endpoints": [OWN], "grpcPort": 0}


def prefix_document(block_tokens: int) -> dict[str, Any]:
    """Prompts are read in blocks of this size."""
    scorer = {"type": "prefix-cache-scorer", "parameters": {"blockSizeTokens": block_tokens, "autoTune": False}}
    profile = {"name": "default", "plugins": [{"pluginRef": "prefix-cache-scorer"}]}
    return {**HEADER, "plugins": [scorer], "schedulingProfiles": [profile]}


class Folder:
    """The files of a process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pools_file = path / "pools.yaml"
        self.write("chat.yaml", QUEUE)
        self.write("code.yaml", QUEUE)

    def pools(self, *pools: dict[str, Any]) -> None:
        self.write("pools.yaml", {"apiVersion": HEADER["apiVersion"], "kind": "EndpointPickerPools", "pools": list(pools)})

    def write(self, name: str, document: dict[str, Any] | str) -> None:
        """In one step, as an operator's tools do."""
        beside = self.path / f".{name}"
        beside.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
        beside.replace(self.path / name)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


class Served:
    """A picker of several pools, as a data plane and an operator see it."""

    def __init__(self, picker: PickerProcess, channel: aio.Channel, http: aiohttp.ClientSession) -> None:
        self.picker = picker
        self.channel = channel
        self.http = http

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.picker.metrics_port}"

    async def begin(
        self, authority: str, body: bytes | None = None, *, channel: aio.Channel | None = None, **headers: str
    ) -> Stream:
        """A request; whether it is answered at once is the pool's."""
        stream = Stream(channel or self.channel)
        extra = {":authority": authority, **{name.replace("_", "-"): value for name, value in headers.items()}}
        await stream.send(request_headers(extra), request_body(body or std_body("m", "p")))
        return stream

    async def end(self, stream: Stream) -> None:
        await respond(stream, response_headers(), response_body(b"{}"))
        await stream.closes()

    async def target(self, authority: str, *, channel: aio.Channel | None = None, **headers: str) -> str:
        """Where a whole request goes."""
        stream = await self.begin(authority, channel=channel, **headers)
        routed = await stream.routed()
        await self.end(stream)
        return routed.target

    async def refusal(self, authority: str, body: bytes | None = None, **headers: str) -> Refusal:
        return await (await self.begin(authority, body, **headers)).refused()

    async def models(self, authority: str, path: str = "/v1/models", **headers: str) -> Refusal:
        """The answer to a GET, which the picker gives itself."""
        stream = Stream(self.channel)
        await stream.send(request_headers({":authority": authority, **headers}, end=True, method="GET", path=path))
        return await stream.refused()

    async def page(self, path: str, *, status: int = 200) -> Any:
        async with self.http.get(self.url + path) as response:
            assert response.status == status, await response.text()
            return await (response.json() if response.content_type == "application/json" else response.text())

    async def metric(self, line: str) -> None:
        """Wait for a line of ``/metrics``, which is rendered once a second."""
        async with asyncio.timeout(PROMPTLY_S):
            while f"{line}\n" not in await self.page("/metrics"):  # noqa: ASYNC110 — another process
                await asyncio.sleep(0.1)

    async def pool(self, name: str, until: Callable[[Any], bool] = lambda _: True) -> Any:
        """A pool of ``/debug/pools``, as soon as it is so."""
        return await self.until(lambda page: next((p for p in page["pools"] if p["name"] == name and until(p)), None))

    async def until(self, wanted: Callable[[Any], Any]) -> Any:
        """What is wanted of ``/debug/pools``, as soon as it is there."""
        async with asyncio.timeout(PROMPTLY_S):
            while not (found := wanted(await self.page("/debug/pools"))):  # noqa: ASYNC110 — another process
                await asyncio.sleep(0.05)
        return found


@contextlib.asynccontextmanager
async def serving(folder: Folder, *flags: str) -> AsyncIterator[Served]:
    async with (
        PickerProcess([f"--pools-file={folder.pools_file}", *FLAGS, *flags]) as picker,
        aio.insecure_channel(f"127.0.0.1:{picker.grpc_port}") as channel,
        aiohttp.ClientSession() as http,
    ):
        yield Served(picker, channel, http)
        assert await picker.stop() == 0


# ── who gets which request ──


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_authority_header_port_and_default_choose_the_pool(transport: str, folder: Folder) -> None:
    by_header = {
        "name": "gold",
        "endpoints": [OTHER],
        "match": {"authorities": ["chat.example.com"], "headers": {"X-Tier": "gold"}},
    }
    rest = {"name": "rest", "endpoints": [CODE], "default": True}
    folder.pools(by_header, {**CODE_POOL, "endpoints": [CODE]}, CHAT_POOL, OWN_POOL, rest)
    async with serving(folder, f"--transport={transport}") as served:
        assert await served.target("chat.example.com") == CHAT
        assert await served.target("CHAT.example.com:8443") == CHAT
        assert await served.target("chat.example.com", x_tier="gold") == OTHER
        assert await served.target("chat.example.com", x_tier="silver") == CHAT
        assert await served.target("a.b.code.example.com") == CODE
        assert await served.target("elsewhere.example.com", x_tier="gold") == CODE, "headers count only with the authority"
        assert await served.target("nobody.example.com") == CODE
        port = (await served.pool("own"))["grpcPort"]
        async with aio.insecure_channel(f"127.0.0.1:{port}") as own:
            assert await served.target("chat.example.com", channel=own) == OWN
            assert await served.target("nobody.example.com", channel=own) == OWN


async def test_a_request_that_no_pool_is_for_is_told_what_it_asked_for(folder: Folder) -> None:
    folder.pools(CHAT_POOL, CODE_POOL)
    async with serving(folder) as served:
        refused = await served.refusal("code.example.com")
        assert refused.status == 404
        assert "no pool is served for the authority 'code.example.com'" in refused.message
        assert "match.authorities" in refused.message
        assert json.loads(refused.body)["error"]["type"] == "not_found_error"
        await served.metric('llm_d_epp_pool_refusals_total{pool="",reason="no-pool"} 1')


async def test_each_pool_gets_the_results_of_its_own_request_readers(folder: Folder) -> None:
    folder.write("chat.yaml", prefix_document(16))
    folder.write("code.yaml", prefix_document(4))
    folder.pools(CHAT_POOL, CODE_POOL)
    prompt = "x" * 6400
    async with serving(folder, "--explain-share=1") as served:
        for pool, authority, size in (("chat", "chat.example.com", 64), ("code", "a.code.example.com", 16)):
            for _ in range(2):  # the second one is a prompt that was sent before
                stream = await served.begin(authority, std_body("m", prompt))
                await stream.routed()
                await served.end(stream)
            page = await served.page(f"/pools/{pool}/debug/decisions/test-request-id")
            [prefix] = page["decisions"][0]["prefixes"]
            blocks = min(256, len(prompt) // size)
            assert (prefix["matched_blocks"], prefix["total_blocks"]) == (blocks, blocks)


# ── a pool that fails ──


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_broken_document_is_503_for_its_pool_alone_until_it_is_mended(transport: str, folder: Folder) -> None:
    folder.write("code.yaml", {**QUEUE, "nonsense": 1})
    folder.pools(CHAT_POOL, CODE_POOL, {**OWN_POOL, "configFile": "own.yaml"})
    async with serving(folder, "--watch-config-file", f"--transport={transport}") as served:
        assert await served.target("chat.example.com") == CHAT
        refused = await served.refusal("a.code.example.com")
        assert (refused.status, "the pool 'code' is not loaded" in refused.message) == (503, True)
        port = (await served.pool("own"))["grpcPort"]
        async with aio.insecure_channel(f"127.0.0.1:{port}") as own:
            stream = await served.begin("any", channel=own)
            assert (await stream.refused()).status == 503, "its port is there, its file is not"
        code = await served.pool("code")
        assert (code["state"], code["ready"], code["reload"]["result"]) == ("not loaded", False, "failure")
        assert any("CFG031" in problem for problem in code["reload"]["problems"])
        assert "CFG031" in served.picker.log
        assert '"pool":"code"' in served.picker.log
        await served.metric('llm_d_epp_pool_loaded{pool="code"} 0')
        await served.metric('llm_d_epp_pool_refusals_total{pool="code",reason="not-loaded"} 1')
        assert (await served.page("/readyz"))["status"] == "ready"
        assert (await served.page("/pools/code/readyz", status=503))["status"] == "not ready"
        assert "CFG031" in json.dumps(await served.page("/pools/code/debug/config", status=503))
        folder.write("code.yaml", QUEUE)
        folder.write("own.yaml", QUEUE)
        await served.pool("code", lambda pool: pool["state"] == "served")
        assert await served.target("a.code.example.com") == CODE
        await served.pool("own", lambda pool: pool["state"] == "served")
        async with aio.insecure_channel(f"127.0.0.1:{port}") as own:
            assert await served.target("any", channel=own) == OWN
        await served.metric('llm_d_epp_pool_loaded{pool="code"} 1')


async def test_hangup_loads_a_pool_that_was_mended_and_reloads_the_others(folder: Folder) -> None:
    folder.write("code.yaml", "kind: [")
    folder.pools(CHAT_POOL, CODE_POOL)
    async with serving(folder) as served:
        before = await served.page("/pools/chat/debug/config")
        folder.write("code.yaml", QUEUE)
        folder.write("chat.yaml", {**QUEUE, "plugins": [{"type": "queue-scorer"}, {"type": "active-request-scorer"}]})
        served.picker.process.send_signal(signal.SIGHUP)
        await served.pool("code", lambda pool: pool["state"] == "served")
        await served.pool("chat", lambda pool: pool["config"]["sha256"] != before["sha256"])
        assert await served.target("a.code.example.com") == CODE
        # a document that breaks later changes nothing
        folder.write("code.yaml", "kind: [")
        served.picker.process.send_signal(signal.SIGHUP)
        code = await served.pool("code", lambda pool: pool["reload"]["result"] == "failure")
        assert code["state"] == "served"
        assert await served.target("a.code.example.com") == CODE


async def test_a_pool_whose_discovery_fails_touches_no_other(folder: Folder) -> None:
    file_discovery = {"type": "file-discovery", "parameters": {"path": str(folder.path / "none.yaml")}}
    discovery = {"dataLayer": {"discovery": {"pluginRef": "file-discovery"}}}
    folder.write("code.yaml", {**QUEUE, **discovery, "plugins": [{"type": "queue-scorer"}, file_discovery]})
    code = {key: value for key, value in CODE_POOL.items() if key != "endpoints"}
    folder.pools(CHAT_POOL, code)
    async with serving(folder) as served:
        assert await served.target("chat.example.com") == CHAT
        assert (await served.refusal("a.code.example.com")).status == 503
        assert (await served.pool("code"))["state"] == "not loaded"
        (folder.path / "none.yaml").write_text(
            f'endpoints: [{{name: a, address: 127.0.0.1, port: "{CODE.rpartition(":")[2]}"}}]'
        )
        served.picker.process.send_signal(signal.SIGHUP)
        await served.pool("code", lambda pool: pool["state"] == "served")
        assert await served.target("a.code.example.com") == CODE


async def test_where_all_pools_fail_the_process_says_why_and_ends(folder: Folder) -> None:
    folder.write("chat.yaml", "kind: [")
    folder.write("code.yaml", {**QUEUE, "nonsense": 1})
    folder.pools(CHAT_POOL, CODE_POOL)
    with pytest.raises(PickerError, match=r"status 1[\s\S]*CFG005[\s\S]*CFG031"):
        async with serving(folder):
            pass


# ── a pool that overflows ──


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_pool_has_a_limit_of_its_own_for_bodies_that_wait(transport: str, folder: Folder) -> None:
    folder.write("code.yaml", CONTROLLED)
    folder.pools(CHAT_POOL, {**CODE_POOL, "maxBufferedBytes": 10_000})
    large = std_body("m", "x" * 6000)
    async with serving(folder, f"--transport={transport}") as served:
        running = await served.begin("a.code.example.com", large)
        assert (await running.routed()).target == CODE
        waiting = await served.begin("a.code.example.com", large)
        await served.pool("code", lambda pool: pool["bufferedBytes"] > 6000)
        refused = await served.refusal("a.code.example.com", large)
        assert (refused.status, "too many request bodies in memory" in refused.message) == (503, True)
        other = await served.begin("chat.example.com", large)
        assert (await other.routed()).target == CHAT, "the limit is that of one pool"
        await served.end(other)
        await served.metric('llm_d_epp_pool_refusals_total{pool="code",reason="no-memory"} 1')
        await served.end(running)
        assert (await waiting.routed()).target == CODE
        await served.pool("code", lambda pool: pool["bufferedBytes"] == 0)
        await served.end(waiting)


# ── what is shown ──


async def test_metrics_of_all_pools_have_its_name_and_those_of_one_do_not(folder: Folder) -> None:
    folder.pools(CHAT_POOL, CODE_POOL, OWN_POOL)
    async with serving(folder, "--enable-grpc-stream-metrics") as served:
        await served.target("chat.example.com")
        await served.target("a.code.example.com")
        labels = 'model_name="m",target_model_name="m",fairness_id="default-flow",priority="0"'
        for path, pool in (("/metrics", ',pool="chat"'), ("/pools/chat/metrics", "")):
            page = await served.page(path)
            assert f"llm_d_epp_request_total{{{labels}{pool}}} 1\n" in page
            legacy = [line for line in page.splitlines() if line.startswith("inference_objective_request_total{")]
            assert [line.endswith(f"{pool}}} 1") for line in legacy if 'pool="code"' not in line] == [True], legacy
        page = await served.page("/metrics")
        assert f'llm_d_epp_request_total{{{labels},pool="code"}} 1\n' in page
        for once in ("llm_d_epp_info{", "llm_d_epp_extproc_streams_inflight ", "process_resident_memory_bytes "):
            assert len([line for line in page.splitlines() if line.startswith(once)]) == 1, once
        heads = [line for line in page.splitlines() if line.startswith("# TYPE")]
        assert len(heads) == len(set(heads))


async def test_each_pool_has_its_pages_and_commands_take_its_url(folder: Folder) -> None:
    folder.pools(CHAT_POOL, CODE_POOL)
    async with serving(folder, "--explain-share=1") as served:
        await served.target("chat.example.com")
        listed = await served.page("/")
        for text in ('href="pools/chat/"', "chat.example.com", "*.code.example.com", "ready"):
            assert text in listed
        assert 'src="page/page.js"' in await served.page("/pools/chat/")
        assert 'src="page/page.js"' in await served.page("/pools/chat"), "without the slash it is led there"
        for path in ("page/page.js", "page/page.css", "debug/endpoints", "debug/config", "debug/plugins/state", "readyz"):
            await served.page(f"/pools/chat/{path}")
        several = await served.page("/debug/config", status=404)
        assert several["paths"] == ["/pools/chat/debug/config", "/pools/code/debug/config"]
        nothing = await served.page("/pools/none/debug/config", status=404)
        assert "/pools/chat/" in nothing["paths"]
        async with aiohttp.ClientSession() as http, http.get(f"{served.url}/pools/chat/page/events") as events:
            async for line in events.content:
                if line.startswith(b"data: ") and b'"pool"' in line:
                    assert json.loads(line[6:])["pool"]["name"] == "chat"
                    break
        explained = await epp("explain", "test-request-id", f"--url={served.url}/pools/chat/")
        assert f"picked {CHAT}" in explained
        body = folder.path / "body.json"
        body.write_bytes(std_body("m", "p"))
        assert f"picked {CODE}" in await epp("explain", f"--dry-run={body}", f"--url={served.url}/pools/code")
        assert "no shadow configuration" in await epp("shadow", f"--url={served.url}/pools/chat", status=1)
        doctor = await epp("doctor", f"--picker={served.url}/pools/chat", status=None)
        assert "the picker" in doctor
        assert "cannot be read" not in doctor


async def test_the_pages_of_an_only_pool_are_also_there_without_its_name(folder: Folder) -> None:
    folder.pools({**CHAT_POOL, "match": {}})
    async with serving(folder) as served:
        assert await served.target("whatever") == CHAT
        assert (await served.page("/debug/config"))["sha256"] == (await served.page("/pools/chat/debug/config"))["sha256"]
        body = folder.path / "body.json"
        body.write_bytes(std_body("m", "p"))
        assert f"picked {CHAT}" in await epp("explain", f"--dry-run={body}", f"--url={served.url}")


async def test_health_answers_by_the_name_of_a_pool(folder: Folder) -> None:
    folder.write("code.yaml", "kind: [")
    folder.pools(CHAT_POOL, CODE_POOL)
    async with (
        serving(folder, "--watch-config-file") as served,
        aio.insecure_channel(f"127.0.0.1:{served.picker.grpc_health_port}") as channel,
    ):
        stub = HealthStub(channel)
        statuses = health_pb2.HealthCheckResponse

        async def status(service: str) -> Any:
            return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status

        assert await status("chat") == statuses.SERVING
        assert await status("code") == statuses.NOT_SERVING
        assert await status("") == statuses.SERVING
        folder.write("code.yaml", QUEUE)
        await served.pool("code", lambda pool: pool["ready"])
        assert await status("code") == statuses.SERVING


# ── the file itself ──


async def test_another_file_changes_choice_adds_and_removes_pools(folder: Folder) -> None:
    folder.pools(CHAT_POOL, CODE_POOL)
    async with serving(folder, "--watch-config-file") as served:
        leaving = await served.begin("a.code.example.com")
        assert (await leaving.routed()).target == CODE
        kept = await served.page("/pools/chat/debug/config")
        added = {"name": "other", "endpoints": [OTHER], "match": {"headers": {"x-pool": "other"}}}
        folder.pools({**CHAT_POOL, "match": {"authorities": ["talk.example.com"]}, "default": True}, added)
        await served.until(lambda page: page["reload"] and page["reload"]["result"] == "success")
        assert [pool["name"] for pool in (await served.page("/debug/pools"))["pools"]] == ["chat", "other"]
        assert await served.target("talk.example.com") == CHAT
        assert await served.target("a.code.example.com") == CHAT, "the default has it now"
        assert await served.target("any", x_pool="other") == OTHER
        assert (await served.page("/pools/chat/debug/config"))["loadedAt"] == kept["loadedAt"], "it was not made anew"
        await served.page("/pools/code/debug/config", status=404)
        await served.end(leaving)
        await served.metric('llm_d_epp_pools_file_reloads_total{result="success"} 1')


async def test_a_pool_that_is_another_one_takes_the_place_of_the_former(folder: Folder) -> None:
    folder.pools(CHAT_POOL, OWN_POOL)
    async with serving(folder, "--watch-config-file") as served:
        running = await served.begin("chat.example.com")
        await running.routed()
        folder.pools({**CHAT_POOL, "endpoints": [OTHER]}, {**OWN_POOL, "endpoints": [CODE]})
        await served.until(lambda page: page["reload"] and page["reload"]["result"] == "success")
        assert await served.target("chat.example.com") == OTHER
        async with aio.insecure_channel(f"127.0.0.1:{(await served.pool('own'))['grpcPort']}") as own:
            assert await served.target("any", channel=own) == CODE, "its port is the same"
        await served.end(running)
        folder.pools({**CHAT_POOL, "configFile": "none.yaml"}, {**OWN_POOL, "endpoints": [CODE]})
        failed = await served.until(lambda page: page["reload"]["result"] == "failure" and page["reload"])
        assert any("chat: the pool in use stays" in problem for problem in failed["problems"])
        assert await served.target("chat.example.com") == OTHER
        folder.write("none.yaml", QUEUE)
        served.picker.process.send_signal(signal.SIGHUP)
        await served.until(lambda page: page["reload"]["result"] == "success")
        assert await served.target("chat.example.com") == CHAT, "the same file, which can be used now"


async def test_a_file_that_cannot_be_used_changes_nothing(folder: Folder) -> None:
    folder.pools(CHAT_POOL, OWN_POOL)
    async with serving(folder, "--watch-config-file") as served:
        folder.pools({**CHAT_POOL, "nonsense": 1}, OWN_POOL)
        failed = await served.until(lambda page: page["reload"])
        assert (failed["result"], "CFG031" in failed["problems"][0]) == ("failure", True)
        folder.pools({**CHAT_POOL, "match": {"authorities": ["b.example.com"]}}, {**OWN_POOL, "grpcPort": 65000})
        restart = await served.until(lambda page: page["reload"]["result"] == "restart_required" and page["reload"])
        assert restart["problems"] == ["pools: own: grpcPort"]
        assert "restart required" in served.picker.log
        assert await served.target("chat.example.com") == CHAT


# ── models ──


def models(*names: str) -> ServerOptions:
    return ServerOptions(engine=EngineOptions(time_scale=0), models=names)


async def test_the_models_of_all_pools_are_told_where_no_pool_is_meant(folder: Folder) -> None:
    async with (
        SimulatedPool(2, lambda index: models("m-chat", "shared") if index else models("m-chat-old")) as chat,
        SimulatedPool(1, models("a-code", "shared")) as code,
    ):
        folder.pools(
            {**CHAT_POOL, "endpoints": chat.addresses}, {**CODE_POOL, "endpoints": [*code.addresses, "127.0.0.1:1"]}, OWN_POOL
        )
        async with serving(folder) as served:
            told = await served.models("any.example.com")
            assert told.status == 200
            document = json.loads(told.body)
            assert document["object"] == "list"
            assert [model["id"] for model in document["data"]] == ["a-code", "m-chat", "m-chat-old", "shared"]
            assert (await served.models("any.example.com", "/v1/models/a-code")).status == 200
            assert (await served.models("any.example.com", "/v1/models/none")).status == 404
            # a pool that is meant is asked itself
            stream = Stream(served.channel)
            await stream.send(request_headers({":authority": "chat.example.com"}, end=True, method="GET", path="/v1/models"))
            assert (await stream.answer("request_headers")).headers["x-gateway-destination-endpoint"] in chat.addresses
            stream.cancel()


async def test_models_are_503_where_no_server_tells(folder: Folder) -> None:
    folder.pools(CHAT_POOL, CODE_POOL)
    async with serving(folder) as served:
        assert (await served.models("any")).status == 503


# ── the command line ──


async def epp(*words: str, status: int | None = 0) -> str:
    """What a command says."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "epp", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    text = output.decode()
    assert status is None or process.returncode == status, text
    return text


async def test_flags_that_concern_one_pool_are_refused_with_the_key(folder: Folder) -> None:
    folder.pools(CHAT_POOL)
    said = await epp("serve", f"--pools-file={folder.pools_file}", f"--endpoint={CHAT}", "--pool-name=x", status=2)
    assert "--endpoint concerns one pool and cannot be used with --pools-file; write it as endpoints" in said
    assert "--pool-name concerns one pool" in said


async def test_check_judges_the_file_and_every_document(folder: Folder) -> None:
    folder.pools(CHAT_POOL, CODE_POOL)
    assert "valid: 2 pools, 2 documents, 0 warnings" in await epp("check", str(folder.pools_file))
    assert "valid: 2 pools" in await epp("serve", "--check-config", f"--pools-file={folder.pools_file}")
    folder.write("code.yaml", {**QUEUE, "nonsense": 1})
    assert "code.yaml" in await epp("check", str(folder.pools_file), status=1)
    assert "names several pools: pass it with --pools-file" in await epp(
        "serve", f"--config-file={folder.pools_file}", f"--endpoint={CHAT}", status=1
    )
