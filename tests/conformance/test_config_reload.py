"""A running picker whose configuration file changes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from grpc import aio

from epp.demo.picker import PickerProcess
from tests.conformance.wire import Stream, request_body, request_headers, respond, response_body, response_headers, std_body
from tests.transport.transports import TRANSPORTS

GOLD, SILVER = "127.0.0.1:7", "127.0.0.1:9"
PROMPTLY_S = 20.0


def document(tier: str = "gold", weight: str = "1", more: str = "") -> str:
    """Requests go to the endpoint of this tier."""
    return f"""\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
{more}
plugins:
- {{type: by-label, parameters: {{label: tier, validValues: [{tier}]}}}}
- {{type: active-request-scorer}}
schedulingProfiles:
- {{name: default, plugins: [{{pluginRef: by-label}}, {{pluginRef: active-request-scorer, weight: {weight}}}]}}
"""


class Volume:
    """A folder as Kubernetes mounts a ConfigMap: files are links through ``..data``, which one rename exchanges."""

    def __init__(self, folder: Path, text: str) -> None:
        self._folder = folder
        self._number = 0
        self.file = folder / "config.yaml"
        self.write(text)
        self.file.symlink_to("..data/config.yaml")

    def write(self, text: str) -> None:
        self._number += 1
        data = self._folder / f"..version-{self._number}"
        data.mkdir()
        (data / "config.yaml").write_text(text)
        link = self._folder / "..data_tmp"
        link.symlink_to(data.name)
        link.rename(self._folder / "..data")


class Served:
    """A picker, what it says and where it sends requests."""

    def __init__(self, picker: PickerProcess, channel: aio.Channel) -> None:
        self.picker = picker
        self._channel = channel

    async def begin(self) -> tuple[Stream, str]:
        """A request, and where it is sent; its response has not begun."""
        stream = Stream(self._channel)
        await stream.send(request_headers(), request_body(std_body("m", "p")))
        return stream, (await stream.routed()).target

    async def end(self, stream: Stream) -> None:
        await respond(stream, response_headers(), response_body(b"{}"))
        await stream.closes()

    async def target(self) -> str:
        """Where a whole request goes."""
        stream, target = await self.begin()
        await self.end(stream)
        return target

    async def page(self, path: str) -> Any:
        url = f"http://127.0.0.1:{self.picker.metrics_port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return await (response.text() if path == "/metrics" else response.json())

    async def attempt(self, after: object) -> Any:
        """The next attempt to reload, from ``/debug/config``."""
        async with asyncio.timeout(PROMPTLY_S):
            while (found := (await self.page("/debug/config"))["reload"]) == after:  # noqa: ASYNC110 — another process
                await asyncio.sleep(0.05)
        return found


@contextlib.asynccontextmanager
async def serving(file: Path, *flags: str) -> AsyncIterator[Served]:
    endpoints = [f"--endpoint={GOLD},tier=gold", f"--endpoint={SILVER},tier=silver"]
    async with (
        PickerProcess([*endpoints, f"--config-file={file}", "--secure-serving=false", *flags]) as picker,
        aio.insecure_channel(f"127.0.0.1:{picker.grpc_port}") as channel,
    ):
        yield Served(picker, channel)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_changed_config_map_is_used_by_new_requests(transport: str, tmp_path: Path) -> None:
    volume = Volume(tmp_path, document("gold"))
    async with serving(volume.file, "--watch-config-file", f"--transport={transport}") as served:
        running, target = await served.begin()
        assert target == GOLD
        before = await served.page("/debug/config")
        assert before["reload"] is None
        volume.write(document("silver", weight="2"))
        attempt = await served.attempt(None)
        assert (attempt["result"], attempt["problems"]) == ("success", [])
        assert await served.target() == SILVER
        state = await served.page("/debug/plugins/state")
        assert state["plugins"]["active-request-scorer"]["state"]["requests"] == 1, "an unchanged plugin keeps its state"
        await served.end(running)
        state = await served.page("/debug/plugins/state")
        assert state["plugins"]["active-request-scorer"]["state"]["requests"] == 0
        after = await served.page("/debug/config")
        assert after["sha256"] != before["sha256"]
        assert after["loadedAt"] > before["loadedAt"]
        metrics = await served.page("/metrics")
        assert 'llm_d_epp_config_reloads_total{result="success"} 1\n' in metrics
        assert f'llm_d_epp_config_hash{{sha256="{after["sha256"]}"}} 1\n' in metrics


@pytest.mark.parametrize(
    ("text", "result", "problem"),
    [
        pytest.param("kind: [", "failure", "CFG005", id="no YAML"),
        pytest.param("", "failure", "CFG001: .* is empty", id="an empty file"),
        pytest.param(document(more="nonsense: 1"), "failure", "CFG031", id="an unknown field"),
        pytest.param(
            document().replace("tier, valid", "'', valid"), "failure", "CFG056|CFG035|CFG033|CFG054", id="a refused value"
        ),
        pytest.param(
            document(more="featureGates: [flowControl]"), "restart_required", "featureGates: flowControl", id="a gate"
        ),
        pytest.param(
            document("silver", more="dataLayer: {injectDefaults: false}"),
            "restart_required",
            "dataLayer.sources",
            id="a source",
        ),
    ],
)
async def test_a_document_that_cannot_be_used_changes_nothing(text: str, result: str, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(document("gold"))
    async with serving(file, "--watch-config-file") as served:
        before = await served.page("/debug/config")
        file.write_text(text)
        attempt = await served.attempt(None)
        assert attempt["result"] == result
        assert attempt["problems"]
        assert any(re.search(problem, told) for told in attempt["problems"]), attempt["problems"]
        assert {**await served.page("/debug/config"), "reload": None} == before
        assert await served.target() == GOLD
        metrics = await served.page("/metrics")
        assert f'llm_d_epp_config_reloads_total{{result="{result}"}} 1\n' in metrics
        assert "llm_d_epp_config_last_reload_successful 0\n" in metrics
        assert (await served.page("/readyz"))["status"] == "ready"
        expected = "restart required" if result == "restart_required" else "configuration not reloaded"
        assert expected in served.picker.log
        file.write_text(document("silver"))
        assert (await served.attempt(attempt))["result"] == "success"
        assert await served.target() == SILVER


async def test_sighup_reloads_a_file_that_is_not_followed(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(document("gold"))
    async with serving(file) as served:
        served.picker.process.send_signal(signal.SIGHUP)
        same = await served.attempt(None)
        assert same["result"] == "noop"
        file.write_text(document("silver"))
        served.picker.process.send_signal(signal.SIGHUP)
        assert (await served.attempt(same))["result"] == "success"
        assert await served.target() == SILVER


async def test_a_file_that_goes_away_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(document("gold"))
    async with serving(file, "--watch-config-file") as served:
        os.unlink(file)
        attempt = await served.attempt(None)
        assert "CFG001" in attempt["problems"][0]
        assert await served.target() == GOLD
