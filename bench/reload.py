"""Reloads of the configuration under load through a real Envoy: does a request fail, or wait?

    python -m bench.reload [--rate 500] [--reloads 20] [--seconds-between 1.5]

Two runs of equal length against the same picker, first quiet, then with reloads: weights, profiles, parameters, and two
documents that are broken. It fails if a request fails, if a plugin that does not change loses its state, or if the 99th
percentile is more than ``--within-ms`` above that of the quiet run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from bench.load.stats import percentile
from bench.load.worker import Worker
from epp.demo.envoy import EnvoyProcess, render
from epp.demo.picker import PickerProcess
from epp.simulate.options import DEFAULT_MODEL, EngineOptions, ServerOptions
from epp.simulate.server import SimulatedPool

_SERVERS = 6
_TALKATIVE = ServerOptions(engine=EngineOptions(tpot_ms=20.0, kv_blocks=100_000))
"""Has the one request whose response lasts from before the first reload to after the last."""


def documents(count: int, tier: str = "") -> list[str]:
    """So many documents, each different from the one before; the first can be used.

    Args:
        tier: label of the servers that requests go to; "" = all.
    """
    broken = {count // 2} if count < 20 else {count // 3, 2 * count // 3}
    return ["kind: [" if number in broken else _document(number, tier) for number in range(count)]


def _document(number: int, tier: str) -> str:
    """Another weight each time, another parameter, profile or detector now and then; ``active-request-scorer`` stays."""
    plugins: list[dict[str, Any]] = [
        {"type": "queue-scorer"},
        {"type": "active-request-scorer", "parameters": {"requestTimeout": "10m"}},
        {"type": "load-aware-scorer", "parameters": {"threshold": 32 + number // 2}},
    ]
    references: list[dict[str, Any]] = [
        {"pluginRef": "queue-scorer", "weight": 1 + number},
        {"pluginRef": "active-request-scorer", "weight": 2},
    ]
    if number % 3 != 1:
        references.append({"pluginRef": "load-aware-scorer"})
    if tier:
        plugins.append({"type": "by-label", "parameters": {"label": "tier", "validValues": [tier]}})
        references.append({"pluginRef": "by-label"})
    document = {
        "apiVersion": "llm-d.ai/v1alpha1",
        "kind": "EndpointPickerConfig",
        "plugins": plugins,
        "saturationDetector": {"queueDepthThreshold": 100 + number % 5, "metricsStalenessThreshold": "5s"},
        "schedulingProfiles": [{"name": f"profile-{number % 2}", "plugins": references}],
    }
    return yaml.safe_dump(document)


def replace_file(file: Path, text: str) -> None:
    """Put a whole document in the place of the file, in one step."""
    beside = file.with_suffix(".new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(file)


async def page(metrics_port: int, path: str) -> str:
    """A page of the picker."""
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{metrics_port}{path}") as response:
        return await response.text()


async def results(metrics_port: int) -> dict[str, int]:
    """Reloads so far, by what became of them."""
    found = re.findall(r'llm_d_epp_config_reloads_total\{result="(\w+)"\} (\d+)', await page(metrics_port, "/metrics"))
    return {result: int(count) for result, count in found}


async def _run(arguments: argparse.Namespace) -> int:
    written = documents(arguments.reloads + 1, "quick")
    seconds = arguments.reloads * arguments.seconds_between
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="epp-reload-")))
        file = folder / "config.yaml"
        replace_file(file, documents(2, "talkative")[0])
        pool = await stack.enter_async_context(SimulatedPool(1, _TALKATIVE))
        backend = await stack.enter_async_context(Worker("bench.load.backend", "--servers", str(_SERVERS)))
        endpoints = [f"--endpoint={address},tier=talkative" for address in pool.addresses]
        endpoints += [f"--endpoint=127.0.0.1:{port},tier=quick" for port in backend.hello["ports"]]
        flags = [f"--config-file={file}", "--watch-config-file", "--hold-back-unscraped", *endpoints]
        picker = await stack.enter_async_context(PickerProcess(flags))
        envoy = await stack.enter_async_context(EnvoyProcess(render("full-duplex", epp_port=picker.grpc_port)))
        client = await stack.enter_async_context(Worker("bench.load.client"))
        command = {
            "port": int(envoy.url.rpartition(":")[2]), "seconds": seconds, "connections": 64, "rate": arguments.rate, "seed": 1,
        }  # fmt: skip
        session = aiohttp.ClientSession(envoy.url)
        stack.push_async_callback(session.close)
        body = {"model": DEFAULT_MODEL, "prompt": "long", "max_tokens": 1_000_000, "stream": True, "ignore_eos": True}
        stream = await session.post("/v1/completions", json=body)
        replace_file(file, written[0])
        while await results(picker.metrics_port) != {"success": 1}:  # noqa: ASYNC110 — another process can only be polled
            await asyncio.sleep(0.1)
        await client.call({**command, "seconds": 3.0})
        quiet = await client.call(command)
        reloading = asyncio.create_task(_reload(file, written[1:], arguments.seconds_between))
        busy = await client.call({**command, "seed": 2})
        await reloading
        problems = _problems(quiet, busy, await results(picker.metrics_port), arguments)
        problems += await _lost_state(picker.metrics_port, session, stream)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


async def _reload(file: Path, written: list[str], pause_s: float) -> None:
    for document in written:
        replace_file(file, document)
        await asyncio.sleep(pause_s)


def _problems(quiet: dict[str, Any], busy: dict[str, Any], reloads: dict[str, int], arguments: argparse.Namespace) -> list[str]:
    times = [percentile(run["latencies_us"], 0.99) / 1000 for run in (quiet, busy)]
    for name, run, p99 in zip(("quiet", "with reloads"), (quiet, busy), times, strict=True):
        median = percentile(run["latencies_us"], 0.5) / 1000
        print(f"{name}: {len(run['latencies_us'])} requests, {run['errors']} errors, median {median:.2f} ms, p99 {p99:.2f} ms")
    print(f"reloads: {reloads}")
    problems = [f"{run['errors']} requests failed" for run in (quiet, busy) if run["errors"]]
    if times[1] > times[0] + arguments.within_ms:
        problems.append(f"the 99th percentile grew by {times[1] - times[0]:.2f} ms; {arguments.within_ms:g} are allowed")
    broken = documents(arguments.reloads + 1).count("kind: [")
    if reloads != {"success": 1 + arguments.reloads - broken, "failure": broken}:
        problems.append(f"of {arguments.reloads} documents with {broken} broken ones became {reloads}")
    return problems


async def _known_requests(metrics_port: int) -> int:
    """Requests that ``active-request-scorer`` was told of, and whose end it was not."""
    state = json.loads(await page(metrics_port, "/debug/plugins/state"))["plugins"]["active-request-scorer"]["state"]
    known: int = state["requests"]
    return known


async def _lost_state(metrics_port: int, session: aiohttp.ClientSession, stream: aiohttp.ClientResponse) -> list[str]:
    """The plugin still knows of a response that has run since before the first reload, and learns of its end."""
    problems = []
    if await _known_requests(metrics_port) != 1:
        problems.append("active-request-scorer forgot the request that began before the first reload")
    stream.close()
    await session.close()
    await asyncio.sleep(1.0)
    if left := await _known_requests(metrics_port):
        problems.append(f"active-request-scorer still counts {left} requests")
    return problems


def main() -> int:
    """Run it; returns 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=500.0, help="requests per second")
    parser.add_argument("--reloads", type=int, default=20)
    parser.add_argument("--seconds-between", type=float, default=1.5)
    parser.add_argument("--within-ms", type=float, default=2.0, help="by how much the 99th percentile may grow")
    return asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
