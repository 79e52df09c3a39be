"""Explanations by a running picker: what it keeps, its pages, ``epp explain``, the response header."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from grpc import aio

from epp.demo.picker import PickerProcess
from tests.conformance.wire import (
    Stream,
    json_response,
    request_body,
    request_headers,
    respond,
    response_body,
    response_headers,
    std_body,
)
from tests.transport.transports import TRANSPORTS

FIRST, SECOND = "127.0.0.1:7", "127.0.0.1:9"
ROLES = """\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: by-label, parameters: {label: tier, validValues: [gold]}}
- {type: queue-scorer}
schedulingProfiles:
- {name: default, plugins: [{pluginRef: by-label}, {pluginRef: queue-scorer, weight: 2}]}
"""


class Explained:
    """A picker, and what it says."""

    def __init__(self, picker: PickerProcess, channel: aio.Channel) -> None:
        self.picker = picker
        self.channel = channel

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.picker.metrics_port}"

    async def ask(self, path: str, document: object = None) -> tuple[int, Any]:
        """Status and JSON of a page; with a document it is posted."""
        async with aiohttp.ClientSession() as session:
            method = "GET" if document is None else "POST"
            async with session.request(method, self.url + path, json=document) as response:
                return response.status, await response.json()

    async def send(self, request_id: str, headers: Mapping[str, str] | None = None) -> Stream:
        """A request."""
        stream = Stream(self.channel)
        await stream.send(request_headers(headers or {}, request_id=request_id), request_body(std_body("m", "p")))
        return stream

    async def explain(self, *arguments: str) -> tuple[int, str, str]:
        """``epp explain``: status, output, complaints."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "epp", "explain", f"--url={self.url}", *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, complaints = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), complaints.decode()


@contextlib.asynccontextmanager
async def explained(*flags: str, endpoints: Sequence[str] = (f"{FIRST},tier=gold", SECOND)) -> AsyncIterator[Explained]:
    """A picker among two endpoints, one of them golden."""
    named = [f"--endpoint={endpoint}" for endpoint in endpoints]
    async with (
        PickerProcess([*named, "--secure-serving=false", f"--config-text={ROLES}", *flags]) as picker,
        aio.insecure_channel(f"127.0.0.1:{picker.grpc_port}") as channel,
    ):
        yield Explained(picker, channel)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_request_is_explained_from_its_decision_to_its_end(transport: str) -> None:
    async with explained("--explain-share=1", f"--transport={transport}") as served:
        stream = await served.send("r-1")
        assert (await stream.routed()).target == FIRST
        status, page = await served.ask("/debug/decisions/r-1")
        assert (status, page["decisions"][0]["outcome"]) == (200, None)
        usage = {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}}
        await respond(stream, *json_response({"object": "text_completion", "usage": usage}))
        await stream.closes()
        code, text, _ = await served.explain("r-1", "--json")
        record = json.loads(text)
        assert code == 0
        assert (record["schema"], record["why"], record["picked"]) == (1, "share", [FIRST])
        assert record["profiles"][0]["filters"] == [{"plugin": "by-label", "dropped": [SECOND], "kept": 1, "error": ""}]
        assert record["profiles"][0]["scorers"][0]["weighted"] == {FIRST: 2.0}
        assert record["inputs"][SECOND] == dict.fromkeys(("waiting_queue", "running_requests", "kv_cache_usage", "age_s"))
        outcome = record["outcome"]
        assert (outcome["status"], outcome["served"], outcome["cached_tokens"]) == (200, FIRST, 8)
        _, text, _ = await served.explain("r-1")
        assert f"picked {FIRST} (profile default)" in text
        assert "cached prompt tokens: - expected, 8 reported" in text
        _, text, _ = await served.explain("r-1", f"--why-not={SECOND}")
        assert text == f"profile default: {SECOND} was dropped by the filter by-label, which kept 1.\n"


async def test_every_refusal_is_kept_with_who_dropped_whom() -> None:
    async with explained("--explain-share=0", endpoints=[FIRST, SECOND]) as served:
        assert (await (await served.send("r-429")).refused()).status == 429
        bad = Stream(served.channel)
        await bad.send(request_headers(request_id="r-400"), request_body("{"))
        assert (await bad.refused()).status == 400
        _, page = await served.ask("/debug/decisions?status=4xx")
        assert [(kept["request_id"], kept["status"], kept["why"]) for kept in page["decisions"]] == [
            ("r-400", 400, "refused"),
            ("r-429", 429, "refused"),
        ]
        _, text, _ = await served.explain("r-429", "--why-not", SECOND)
        assert text == f"profile default: {SECOND} was dropped by the filter by-label, which kept 0.\n"


async def test_an_error_of_the_model_server_is_kept() -> None:
    async with explained("--explain-share=0") as served:
        for request_id, answer in (("good", "200"), ("bad", "500")):
            stream = await served.send(request_id)
            await stream.routed()
            await respond(stream, response_headers(status=answer), response_body(b"{}"))
            await stream.closes()
        _, page = await served.ask("/debug/decisions")
        [kept] = page["decisions"]
        assert (kept["request_id"], kept["status"], kept["why"], kept["picked"]) == ("bad", 500, "failed", [FIRST])
        code, _, complaints = await served.explain("good")
        assert code == 1
        assert "nothing is kept of 'good'" in complaints


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(("team", "told"), [("core", True), ("other", False)])
async def test_only_allowed_callers_are_told_in_the_response(transport: str, team: str, told: bool) -> None:
    flags = ("--explain-share=0", "--explain-callers=x-team=core", f"--transport={transport}")
    async with explained(*flags) as served:
        stream = await served.send("r-1", {"x-epp-explain": "1", "x-team": team})
        routed = await stream.routed()
        assert "x-epp-explain" in routed.headers.removed
        [head] = await respond(stream, response_headers())
        assert ("x-epp-explain" in head.headers) is told
        if told:
            assert head.headers["x-epp-explain"].startswith(f"picked={FIRST}; candidates=2; profile=default; scores={FIRST}=2;")
        await respond(stream, response_body(b"{}"))
        await stream.closes()


async def test_a_refused_caller_is_told_too() -> None:
    async with explained("--explain-callers=x-team=*", endpoints=[FIRST]) as served:
        refusal = await (await served.send("r-1", {"x-epp-explain": "1", "x-team": "any"})).refused()
        assert refusal.status == 429
        assert refusal.headers["x-epp-explain"].startswith("picked=none; candidates=1")


async def test_a_rehearsal_decides_and_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    file.write_text(json.dumps({"model": "m", "messages": [{"role": "user", "content": "p"}]}))
    async with explained("--explain-share=1") as served:
        code, text, complaints = await served.explain("--dry-run", str(file), "--json")
        assert code == 0, complaints
        record = json.loads(text)
        assert (record["why"], record["path"], record["picked"]) == ("rehearsed", "/v1/chat/completions", [FIRST])
        assert record["profiles"][0]["filters"][0]["dropped"] == [SECOND]
        _, page = await served.ask("/debug/decisions")
        assert page["decisions"] == []
        async with aiohttp.ClientSession() as session, session.get(served.url + "/metrics") as response:
            metrics = await response.text()
        for family in ("request_total", "request_running", "request_error_total", "scheduler_attempts_total"):
            assert f"llm_d_epp_{family}{{" not in metrics
        _, text, _ = await served.explain("--dry-run", str(file), f"--subset={SECOND}")
        assert "refused with 429" in text


ONE_AT_A_TIME = """\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl]
plugins: [{type: queue-scorer}, {type: concurrency-detector, parameters: {maxConcurrency: 1}}]
saturationDetector: {pluginRef: concurrency-detector}
flowControl: {defaultRequestTTL: 20s, defaultPriorityBand: {maxRequests: 1}}
schedulingProfiles: [{name: default, plugins: [{pluginRef: queue-scorer}]}]
"""


async def test_a_rehearsal_tells_what_flow_control_would_do(tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    file.write_bytes(std_body("m", "p"))
    async with explained("--explain-share=1", f"--config-text={ONE_AT_A_TIME}", endpoints=[FIRST]) as served:

        async def rehearsed() -> tuple[dict[str, Any], str]:
            _, text, complaints = await served.explain("--dry-run", str(file), "--json")
            assert not complaints
            _, page, _ = await served.explain("--dry-run", str(file))
            record: dict[str, Any] = json.loads(text)
            return record, page

        record, page = await rehearsed()
        assert record["flow_control"]["verdict"] == "pass"
        assert (record["picked"], record["admission"]) == ([FIRST], None)
        assert "flow control: would let it pass at once (saturation 0.00, ceiling 1.00)" in page

        running = await served.send("r-1")
        await running.routed()
        record, page = await rehearsed()
        told = record["flow_control"]
        assert (told["verdict"], told["ahead"], told["longest_wait_s"]) == ("wait", 0, 20.0)
        assert (record["picked"], record["error"]) == ([FIRST], "")
        assert "would hold it as the first in band 0 and above: the pool is as full as its priority may fill it" in page
        assert f"if it went on now:\npicked {FIRST}" in page

        waiting = await served.send("r-2")
        async with asyncio.timeout(20):
            while (await served.ask("/debug/queues"))[1]["requests"] != 1:  # noqa: ASYNC110 — another process
                await asyncio.sleep(0.02)
        record, page = await rehearsed()
        assert record["flow_control"]["verdict"] == "refuse"
        assert (record["status"], record["picked"], record["admission"]["outcome"]) == (429, [], "refused")
        assert "flow control: would refuse it at once with 429" in page
        assert "the queue of its priority is at capacity" in page
        assert (await served.ask("/debug/queues"))[1]["requests"] == 1, "it was not put into the queue"

        await respond(running, response_headers(), response_body(b"{}"))
        await running.closes()
        assert (await waiting.routed()).target == FIRST
        await respond(waiting, response_headers(), response_body(b"{}"))
        await waiting.closes()
        _, kept, _ = await served.explain("r-2", "--json")
        assert json.loads(kept)["admission"]["held_s"] > 0
        async with aiohttp.ClientSession() as session, session.get(served.url + "/metrics") as response:
            metrics = await response.text()
        assert 'flow_control_requests_total{outcome="Dispatched",priority="0",inference_pool="epp"} 2\n' in metrics
        assert "Rejected" not in metrics.partition("flow_control_requests_total{")[2].partition("# ")[0]


async def test_a_rehearsal_in_an_empty_pool_tells_of_the_waiting_room(tmp_path: Path) -> None:
    (tmp_path / "endpoints.yaml").write_text("endpoints: []")
    discovery = f"{{type: file-discovery, parameters: {{path: {tmp_path / 'endpoints.yaml'}}}}}"
    text = ONE_AT_A_TIME.replace(
        "plugins: [", f"dataLayer: {{discovery: {{pluginRef: file-discovery}}}}\nplugins: [{discovery}, ", 1
    )
    (tmp_path / "request.json").write_bytes(std_body("m", "p"))
    async with explained(f"--config-text={text}", endpoints=[]) as served:
        _, page, _ = await served.explain("--dry-run", str(tmp_path / "request.json"))
        assert "would hold it as the first in band 0 and above: the pool has no endpoint; refused after 20 s" in page
        assert "if it went on now:\nrefused with 503" in page


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ([], 'an object with "body"'),
        ({"body": "{}", "headers": {"a": 1}}, '"headers" must be'),
        ({"body": "{}", "path": 1}, '"path" must be'),
    ],
)
async def test_what_cannot_be_rehearsed_is_told(document: object, problem: str) -> None:
    async with explained() as served:
        status, answer = await served.ask("/debug/explain", document)
        assert status == 400
        assert problem in answer["error"]


async def test_pages_tell_what_they_are_asked_wrongly() -> None:
    async with explained() as served:
        assert await served.ask("/debug/decisions/none") == (404, {"error": "nothing is known of 'none'"})
        status, answer = await served.ask("/debug/decisions?colour=red")
        assert (status, answer["error"]) == (
            400,
            "no filter is named 'colour'; there are cause, endpoint, model, status, why, limit",
        )
        assert (await served.ask("/debug/explain"))[0] == 405


async def test_explanations_are_behind_the_metrics_authentication(tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    file.write_text("{}")
    async with explained("--metrics-endpoint-auth=true") as served:
        for arguments in (["r-1"], ["--dry-run", str(file)]):
            code, _, complaints = await served.explain(*arguments)
            assert code == 1
            assert "refuses with 401 Unauthorized; pass a token" in complaints


async def test_a_token_is_passed_on(tmp_path: Path) -> None:
    """To whoever answers there: here a page that wants it."""
    seen: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        seen.append(request.headers.get("Authorization", ""))
        return web.json_response({"error": "Forbidden"}, status=403)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    file = tmp_path / "token"
    file.write_text("secret\n")
    url = f"--url=127.0.0.1:{runner.addresses[0][1]}"
    for arguments, complaint in (
        ([url, f"--token-file={file}", "r"], "refuses with 403 Forbidden"),
        ([url, "--token-file=/nowhere/token", "r"], "--token-file: "),
    ):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "epp", "explain", *arguments), stderr=asyncio.subprocess.PIPE
        )
        _, complaints = await process.communicate()
        assert process.returncode == 1
        assert complaint in complaints.decode()
    await runner.cleanup()
    assert seen == ["Bearer secret"]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [([], 2), (["r-1", "--dry-run", "-"], 2), (["--nonsense"], 2), (["--url=127.0.0.1:9", "r-1"], 1), (["--help"], 0)],
)
async def test_exit_statuses(arguments: list[str], status: int) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "epp", "explain", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    await process.communicate()
    assert process.returncode == status
