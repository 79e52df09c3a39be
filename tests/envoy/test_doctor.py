"""``epp doctor`` on set-ups that run: a real Envoy, ``epp serve`` as a process of its own, simulated model servers."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from epp.demo.envoy import PICKER_CLUSTER, Bootstrap, EnvoyProcess, cluster, listener, render
from epp.demo.picker import PickerProcess
from epp.simulate.server import SimulatedPool

pytestmark = pytest.mark.envoy

CHECKOUT = Path(__file__).resolve().parents[2]


async def doctor(*flags: str) -> tuple[int, list[dict[str, Any]]]:
    """(exit status, findings) of the command."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "epp", "doctor", "--output=json", *flags, cwd=CHECKOUT, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, json.loads(output)


def codes(findings: list[dict[str, Any]], severity: str) -> set[str]:
    """Codes of the findings of one severity."""
    return {finding["code"] for finding in findings if finding["severity"] == severity}


def ext_proc(bootstrap: Bootstrap) -> dict[str, Any]:
    """The filter's configuration, to be changed in place."""
    manager = listener(bootstrap)["filter_chains"][0]["filters"][0]["typed_config"]
    [config] = [f["typed_config"] for f in manager["http_filters"] if f["name"] == "envoy.filters.http.ext_proc"]
    found: dict[str, Any] = config
    return found


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


async def scraped(picker: PickerProcess, count: int) -> None:
    """Wait until so many endpoints have metrics."""
    url = f"http://127.0.0.1:{picker.metrics_port}/debug/endpoints"
    async with aiohttp.ClientSession() as http, asyncio.timeout(20):
        while True:
            async with http.get(url) as response:
                page = await response.json()
            if sum(entry["ageSeconds"] is not None for entry in page["endpoints"]) >= count:
                return
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("name", ["full-duplex", "bypass", "buffered", "override-host-retry"])
async def test_a_set_up_that_is_right_has_no_errors_and_no_warnings(
    name: str, envoy_binary: Path, stack: AsyncExitStack
) -> None:
    servers = await stack.enter_async_context(SimulatedPool(2))
    picker = await stack.enter_async_context(PickerProcess([f"--endpoint={address}" for address in servers.addresses]))
    bootstrap = render(name, epp_port=picker.grpc_port, endpoints=servers.addresses)
    envoy = await stack.enter_async_context(EnvoyProcess(bootstrap, binary=envoy_binary))
    await scraped(picker, 2)
    flags = [f"--picker=http://127.0.0.1:{picker.metrics_port}", f"--envoy-admin=http://127.0.0.1:{envoy.admin_port}"]
    status, findings = await doctor(*flags)
    assert codes(findings, "error") == set(), findings
    assert codes(findings, "warning") - {"PCK002"} == set(), findings  # a machine that is busy answers late
    assert status == 0


async def test_a_set_up_that_is_broken_has_the_findings_of_each_part(envoy_binary: Path, stack: AsyncExitStack) -> None:
    servers = await stack.enter_async_context(SimulatedPool(2))
    dead = await stack.enter_async_context(SimulatedPool(1))
    flags = ["--secure-serving=false", *(f"--endpoint={address}" for address in (*servers.addresses, *dead.addresses))]
    picker = await stack.enter_async_context(PickerProcess(flags))
    bootstrap = render("buffered", epp_port=picker.grpc_port)  # with TLS, which this picker does not serve
    ext_proc(bootstrap).update(failure_mode_allow=True, message_timeout="0.200s")
    manager = listener(bootstrap)["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http_filters"] = [f for f in manager["http_filters"] if f["name"] != "envoy.filters.http.header_mutation"]
    del cluster(bootstrap, PICKER_CLUSTER)["circuit_breakers"]
    del cluster(bootstrap, "picked_endpoint")["circuit_breakers"]
    envoy = await stack.enter_async_context(EnvoyProcess(bootstrap, binary=envoy_binary))
    await scraped(picker, 3)
    [gone] = dead.addresses
    await dead.close(drain_s=0)
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{envoy.url}/v1/completions", json={"model": "m", "prompt": "p"}) as response,
    ):
        assert response.status == 503
    await failing(picker)
    status, findings = await doctor(
        f"--picker=http://127.0.0.1:{picker.metrics_port}",
        f"--envoy-admin=http://127.0.0.1:{envoy.admin_port}",
        "--metrics-staleness-threshold=100ms",
    )
    assert status == 1
    assert {"ENV010", "ENV014", "ENV050", "CRT004", "POL004", "ENG001"} <= codes(findings, "error")
    assert {"ENV013", "ENV033", "ENV052"} <= codes(findings, "warning")
    of_dead = [finding for finding in findings if finding["code"] == "ENG001"]
    assert [gone in finding["path"] for finding in of_dead] == [True]
    assert all(finding["fix"] for finding in findings)


async def failing(picker: PickerProcess) -> None:
    """Wait until the picker has noticed that an endpoint is gone, and until its metrics are older than 100 ms."""
    url = f"http://127.0.0.1:{picker.metrics_port}/debug/endpoints"
    async with aiohttp.ClientSession() as http, asyncio.timeout(20):
        while True:
            async with http.get(url) as response:
                page = await response.json()
            if any(entry["scraping"]["failing"] and entry["ageSeconds"] > 0.1 for entry in page["endpoints"]):
                return
            await asyncio.sleep(0.05)


async def test_a_picker_that_is_down_is_told_with_what_envoy_sees(envoy_binary: Path, stack: AsyncExitStack) -> None:
    envoy = await stack.enter_async_context(EnvoyProcess(render("full-duplex", epp_port=9), binary=envoy_binary))
    status, findings = await doctor("--picker=http://127.0.0.1:9", f"--envoy-admin=http://127.0.0.1:{envoy.admin_port}")
    assert status == 1
    assert codes(findings, "error") == {"DOC001", "ENV050"}
    assert codes(findings, "warning") == {"CRT006"}
