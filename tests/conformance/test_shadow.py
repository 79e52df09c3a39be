"""A running picker with a second configuration: it decides after the answers, learns what was done, and can take over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from grpc import aio

from epp.demo.picker import PickerProcess
from epp.framework.registry import ENTRY_POINT_GROUP
from tests.conformance.wire import Stream, request_body, request_headers, respond, response_body, response_headers, std_body
from tests.transport.transports import TRANSPORTS

GOLD, SILVER = "127.0.0.1:7", "127.0.0.1:9"
PROMPT = "a prompt of many blocks " * 100
PROMPTLY_S = 20.0


def document(*plugins: str) -> str:
    """One profile of these plugins."""
    named = [plugin.partition("{type: ")[2].partition(",")[0].rstrip("}") for plugin in plugins]
    refs = ", ".join(f"{{pluginRef: {name}}}" for name in named)
    return f"""\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{", ".join(plugins)}]
schedulingProfiles:
- {{name: default, plugins: [{refs}]}}
"""


def only(tier: str) -> str:
    """Requests go to the endpoint of this tier."""
    return document(f"{{type: by-label, parameters: {{label: tier, validValues: [{tier}]}}}}")


SPREADS = document("{type: active-request-scorer}")
BY_PREFIX = document("{type: prefix-cache-scorer}")


class Served:
    """A picker, its pages, and requests to it."""

    def __init__(self, picker: PickerProcess, channel: aio.Channel) -> None:
        self.picker = picker
        self._channel = channel

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.picker.metrics_port}"

    async def begin(self, request_id: str = "r", prompt: str = PROMPT) -> tuple[Stream, str]:
        """A request, and where it is sent; its response has not begun."""
        stream = Stream(self._channel)
        await stream.send(request_headers(request_id=request_id), request_body(std_body("m", prompt)))
        return stream, (await stream.routed()).target

    async def end(self, stream: Stream) -> None:
        await respond(stream, response_headers(), response_body(b"{}"))
        await stream.closes()

    async def whole(self, request_id: str = "r", prompt: str = PROMPT) -> str:
        """Where a whole request goes."""
        stream, target = await self.begin(request_id, prompt)
        await self.end(stream)
        return target

    async def page(self, path: str) -> Any:
        async with aiohttp.ClientSession() as session, session.get(self.url + path) as response:
            return await (response.text() if path == "/metrics" else response.json())

    async def compared(self, count: int) -> Any:
        """``/debug/shadow`` once so many requests were compared."""
        async with asyncio.timeout(PROMPTLY_S):
            while (shown := await self.page("/debug/shadow"))["compared"] < count:  # noqa: ASYNC110 — another process
                await asyncio.sleep(0.02)
        return shown

    async def reload(self, file: Path, text: str) -> str:
        """What becomes of another document."""
        await asyncio.to_thread(file.write_text, text)
        self.picker.process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(PROMPTLY_S):
            while (attempt := (await self.page("/debug/config"))["reload"]) is None:  # noqa: ASYNC110 — another process
                await asyncio.sleep(0.05)
        result: str = attempt["result"]
        return result

    async def command(self, *arguments: str) -> tuple[int, str, str]:
        """``epp shadow``: status, output, complaints."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "epp", "shadow", f"--url={self.url}", *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, complaints = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), complaints.decode()


@contextlib.asynccontextmanager
async def serving(folder: Path, live: str, shadow: str = "", *flags: str) -> AsyncIterator[Served]:
    """A picker among two endpoints of two tiers."""
    (folder / "live.yaml").write_text(live)
    arguments = [f"--endpoint={GOLD},tier=gold", f"--endpoint={SILVER},tier=silver", f"--config-file={folder / 'live.yaml'}"]
    if shadow:
        (folder / "shadow.yaml").write_text(shadow)
        arguments.append(f"--shadow-config-file={folder / 'shadow.yaml'}")
    async with (
        PickerProcess([*arguments, "--secure-serving=false", *flags]) as picker,
        aio.insecure_channel(f"127.0.0.1:{picker.grpc_port}") as channel,
    ):
        yield Served(picker, channel)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_what_it_would_have_done_is_counted_and_changes_nothing(transport: str, tmp_path: Path) -> None:
    async with serving(tmp_path, only("gold"), only("silver"), f"--transport={transport}") as served:
        assert [await served.whole(f"r-{number}") for number in range(3)] == [GOLD] * 3
        shown = await served.compared(3)
        assert (shown["verdicts"]["disagree"], shown["disagreement"]) == (3, 1.0)
        (reason,) = shown["reasons"]
        assert (reason["reason"], reason["requests"], reason["mean_margin"]) == ("by-label", 3, None)
        assert [(found["live"], found["shadow"]) for found in reason["examples"]] == [(GOLD, SILVER)] * 3
        metrics = await served.page("/metrics")
        assert 'llm_d_epp_shadow_decisions_total{result="disagree"} 3\n' in metrics
        assert 'llm_d_epp_shadow_state{state="active"} 1\n' in metrics
        assert 'llm_d_epp_shadow_disagreements_total{reason="by-label"} 3\n' in metrics
        assert f'endpoint_name="{SILVER}"' not in metrics.partition("scheduler_attempts_total{")[2].partition("#")[0]
        code, text, _ = await served.command()
        assert code == 0
        assert "3 requests compared: 100.0% sent elsewhere" in text
        assert f"r-2: went to {GOLD}, the shadow sends it to {SILVER} (by-label; margin -, prefix tokens -)" in text


async def test_its_plugins_learn_what_was_done(tmp_path: Path) -> None:
    async with serving(tmp_path, SPREADS, BY_PREFIX) as served:
        first, busy = await served.begin("r-1")
        await served.compared(1)
        second, idle = await served.begin("r-2")
        assert {busy, idle} == {GOLD, SILVER}
        shown = await served.compared(2)
        found = shown["recent"][0]
        assert (found["request_id"], found["live"], found["shadow"]) == ("r-2", idle, busy)
        assert found["reason"] == "prefix-cache-scorer"
        assert found["margin"] == pytest.approx(1.0)
        assert found["prefix_tokens"] > 400, "of some 600"
        assert f'shadow_prefix_tokens_total{{change="won"}} {found["prefix_tokens"]}\n' in await served.page("/metrics")
        await served.end(first)
        await served.end(second)


async def test_a_share_of_the_requests_is_shown(tmp_path: Path) -> None:
    async with serving(tmp_path, only("gold"), only("silver"), "--shadow-share=0.25") as served:
        for number in range(8):
            await served.whole(f"r-{number}")
        shown = await served.compared(2)
        assert [found["request_id"] for found in shown["recent"]] == ["r-7", "r-3"]
        assert shown["skipped"] == {}


PACKAGE = """\
import time

from epp.framework.interfaces import Role
from epp.framework.registry import PluginType


class Raises:
    def filter(self, request, candidates):
        raise ZeroDivisionError("a broken filter")

    def pre_request(self, request, result, edits):
        raise ZeroDivisionError("a broken hook")

    def response_complete(self, request, result, completion):
        raise ZeroDivisionError("a broken end")


class Tells:
    def response_received(self, request, result, response, edits):
        path = request.headers.get(":path")
        raise ValueError(f"{response.status} {response.headers.get('content-type')} for {path} of {result.target.host_port}")


class Stalls:
    def filter(self, request, candidates):
        time.sleep(0.15)
        return candidates.endpoints


class NeverStarts:
    def filter(self, request, candidates):
        return candidates.endpoints

    async def start(self):
        raise OSError("no network")

    async def stop(self):
        pass


ROLES = frozenset({Role.FILTER, Role.PRE_REQUEST, Role.RESPONSE_COMPLETE})
TYPES = (
    PluginType("raises", ROLES, "Raises.", factory=lambda context, params: Raises()),
    PluginType("tells", frozenset({Role.RESPONSE_RECEIVED}), "Tells.", factory=lambda context, params: Tells()),
    PluginType("stalls", frozenset({Role.FILTER}), "Stalls.", factory=lambda context, params: Stalls()),
    PluginType("never-starts", frozenset({Role.FILTER}), "Never.", factory=lambda context, params: NeverStarts()),
)
"""


@pytest.fixture
def bad_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package with plugin types that misbehave."""
    folder = tmp_path / "packages"
    info = folder / "bad_plugins-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "bad_plugins.py").write_text(PACKAGE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad-plugins\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\nbad = bad_plugins:TYPES\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))


@pytest.mark.usefixtures("bad_plugins")
async def test_one_that_raises_touches_no_request(tmp_path: Path) -> None:
    async with serving(tmp_path, only("gold"), document("{type: raises}")) as served:
        assert [await served.whole(f"r-{number}") for number in range(3)] == [GOLD] * 3
        shown = await served.compared(3)
        assert (shown["verdicts"]["failed"], shown["disagreement"]) == (3, None)
        async with asyncio.timeout(PROMPTLY_S):  # the ends of the requests are told last
            while (shown := await served.page("/debug/shadow"))["plugin_errors"] != {"raises": 9}:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        metrics = await served.page("/metrics")
        errors = 'shadow_plugin_errors_total{extension_point="Filter",plugin_type="raises",plugin_name="raises"} 3\n'
        assert errors in metrics
        assert "llm_d_epp_plugin_errors_total{" not in metrics, "no plugin in use has failed"
        _, text, _ = await served.command()
        assert f"r-1: went to {GOLD}, the shadow failed" in text
        assert "its plugin raises failed 9 times" in text


@pytest.mark.usefixtures("bad_plugins")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_it_is_shown_response_headers_when_the_stream_is_over(transport: str, tmp_path: Path) -> None:
    shadow = only("silver").replace("plugins: [", "plugins: [{type: tells}, ", 1)
    async with serving(tmp_path, only("gold"), shadow, f"--transport={transport}") as served:
        await served.whole()
        async with asyncio.timeout(PROMPTLY_S):
            while "shadow plugin failed" not in served.picker.log:  # noqa: ASYNC110 — another process
                await asyncio.sleep(0.02)
        assert f"200 application/json for /v1/completions of {GOLD}" in served.picker.log


@pytest.mark.usefixtures("bad_plugins")
async def test_one_that_cannot_be_started_is_done_without_and_told_of(tmp_path: Path) -> None:
    async with serving(tmp_path, only("gold"), document("{type: never-starts}")) as served:
        assert await served.whole() == GOLD
        shown = await served.page("/debug/shadow")
        assert (shown["enabled"], shown["state"], shown["compared"]) == (False, "not_started", 0)
        assert shown["problem"].startswith("not started: OSError: no network, ")
        assert 'llm_d_epp_shadow_state{state="not_started"} 1\n' in await served.page("/metrics")
        status, _, complaints = await served.command()
        assert status == 1
        assert "not started: OSError: no network" in complaints


@pytest.mark.usefixtures("bad_plugins")
async def test_one_that_stalls_is_shown_fewer_requests(tmp_path: Path) -> None:
    async with serving(tmp_path, only("gold"), document("{type: stalls}")) as served:
        await served.whole("r-1")
        await served.compared(1)
        assert [await served.whole(f"r-{number}") for number in range(2, 6)] == [GOLD] * 4
        shown = await served.page("/debug/shadow")
        assert (shown["compared"], shown["skipped"]) == (1, {"time": 4})
        assert 'llm_d_epp_shadow_skipped_total{reason="time"} 4\n' in await served.page("/metrics")


@pytest.mark.parametrize(
    ("text", "code"),
    [pytest.param("kind: [", "CFG005", id="no YAML"), pytest.param("", "CFG001", id="empty")],
)
async def test_a_document_that_cannot_be_used_is_told_at_the_start(tmp_path: Path, text: str, code: str) -> None:
    (tmp_path / "shadow.yaml").write_text(text)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "epp", f"--endpoint={GOLD}", f"--shadow-config-file={tmp_path / 'shadow.yaml'}"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, complaints = await process.communicate()
    assert process.returncode == 1
    assert code in complaints.decode()
    assert "shadow.yaml" in complaints.decode()


@pytest.mark.parametrize("is_shadow", [True, False], ids=["of the shadow's document", "without a shadow"])
async def test_a_reload_to_its_document_takes_it_over_with_what_it_has_learnt(tmp_path: Path, is_shadow: bool) -> None:
    async with serving(tmp_path, only("gold"), BY_PREFIX if is_shadow else "", "--explain-share=1") as served:
        running, _ = await served.begin("r-1", "another " + PROMPT)
        assert await served.whole("r-2") == GOLD
        if is_shadow:
            await served.compared(2)
        assert await served.reload(tmp_path / "live.yaml", "# now in use\n" + BY_PREFIX) == "success"
        target = await served.whole("r-3")
        (record,) = (await served.page("/debug/decisions/r-3"))["decisions"]
        matched = record["prefixes"][0]["matched"]
        if is_shadow:
            assert target == GOLD
            assert matched.keys() == {GOLD}, "the request before was served by a configuration that looks at no prompt"
        else:
            assert matched == {}
        await served.end(running)
        shown = await served.page("/debug/shadow")
        assert not shown["enabled"]
        assert ("taken over" in shown["problem"]) is is_shadow
        if is_shadow:
            assert (shown["state"], shown["compared"]) == ("taken_over", 2), "what it was compared with stays"
        assert (await served.command())[0] == 1
        text = await served.page("/metrics")
        assert ('llm_d_epp_shadow_state{state="taken_over"} 1\n' in text) is is_shadow
        assert 'prefix_indexer_size{plugin_name="prefix-cache-scorer"' in text, "what it counts is exposed from now on"
        assert await served.whole("r-4") == target


async def test_requests_that_run_at_the_takeover_end_for_the_plugins_that_were_told_of_them(tmp_path: Path) -> None:
    async with serving(tmp_path, only("gold"), SPREADS) as served:
        running, target = await served.begin("r-1")
        assert target == GOLD
        await served.compared(1)
        assert await served.reload(tmp_path / "live.yaml", SPREADS) == "success"
        assert await requests_of_scorer(served) == 1, "counted by the shadow, where the request really went"
        assert await served.whole("r-2") == SILVER
        await served.end(running)
        async with asyncio.timeout(PROMPTLY_S):  # the shadow's plugins hear of it in a later turn
            while await requests_of_scorer(served):  # noqa: ASYNC110 — another process
                await asyncio.sleep(0.02)


async def requests_of_scorer(served: Served) -> int:
    """In flight, as active-request-scorer counts them."""
    count: int = (await served.page("/debug/plugins/state"))["plugins"]["active-request-scorer"]["state"]["requests"]
    return count


async def test_another_reload_leaves_it_as_it_is(tmp_path: Path) -> None:
    async with serving(tmp_path, only("gold"), only("silver")) as served:
        assert await served.whole("r-1") == GOLD
        before = await served.compared(1)
        assert await served.reload(tmp_path / "live.yaml", SPREADS) == "success"
        targets = [await served.whole(f"s-{number}") for number in range(2)]
        shown = await served.compared(3)
        assert shown["sha256"] == before["sha256"]
        assert shown["live"] != before["live"]
        assert shown["verdicts"]["agree"] == targets.count(SILVER)
