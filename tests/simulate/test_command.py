"""`epp simulate` as a command."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import aiohttp
import pytest
import yaml

from epp.commands.simulate import main
from tests.simulate.conftest import MODEL
from tests.simulate.subscriber import replay

_RUN = "import sys; from epp.commands.simulate import main; sys.exit(main(sys.argv[1:]))"


async def start(*flags: str) -> asyncio.subprocess.Process:
    """The command, once it says that it is ready."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-X", "dev", "-W", "error", "-c", _RUN, *flags,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    async for line in process.stdout:
        if line.startswith(b"ready"):
            return process
    raise AssertionError(await process.communicate())


def complaints(stderr: bytes) -> list[bytes]:
    """What it wrote, without what asyncio's debug mode says on a busy machine: that a step took more than 100 ms."""
    return [line for line in stderr.splitlines() if not line.startswith(b"Executing <Task")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
async def test_it_serves_announces_itself_and_ends_cleanly(
    tmp_path: Path, client: aiohttp.ClientSession, number: signal.Signals
) -> None:
    ready, endpoints = tmp_path / "ready.json", tmp_path / "endpoints.yaml"
    process = await start(
        "--count", "3", "--model", MODEL, "--time-scale", "0.01", "--role", "prefill", "--role", "decode:2",
        "--label", "zone=a", "--label", "zone=b@2", "--fault", "5xx@sim-1",
        "--ready-file", str(ready), "--print-endpoints-file", str(endpoints),
    )  # fmt: skip
    announced = json.loads(ready.read_text())
    assert announced["pid"] == process.pid
    entries = yaml.safe_load(endpoints.read_text())["endpoints"]
    assert [(e["name"], e["address"], e["labels"]) for e in entries] == [
        ("sim-0", "127.0.0.1", {"zone": "a", "llm-d.ai/role": "prefill"}),
        ("sim-1", "127.0.0.1", {"zone": "a", "llm-d.ai/role": "decode"}),
        ("sim-2", "127.0.0.1", {"zone": "b", "llm-d.ai/role": "decode"}),
    ]
    assert [int(entry["port"]) for entry in entries] == [entry["port"] for entry in announced["endpoints"]]
    statuses = []
    for entry in entries:
        url = f"http://{entry['address']}:{entry['port']}/v1/completions"
        async with client.post(url, json={"model": MODEL, "prompt": "x"}) as response:
            statuses.append(response.status)
    assert statuses[0] == statuses[2] == 200
    assert statuses[1] >= 500
    process.send_signal(number)
    _, stderr = await process.communicate()
    assert (process.returncode, complaints(stderr)) == (0, [])
    assert sorted(os.listdir(tmp_path)) == ["endpoints.yaml", "ready.json"]


async def test_a_second_signal_does_not_wait_for_running_requests(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    process = await start("--ready-file", str(ready), "--tpot-ms", "60000")
    port = json.loads(ready.read_text())["endpoints"][0]["port"]
    async with client.post(f"http://127.0.0.1:{port}/v1/completions", json={"prompt": "x", "stream": True}) as response:
        await response.content.readline()
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        _, stderr = await process.communicate()
    assert (process.returncode, complaints(stderr)) == (0, [])


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--count", "0"], "--count must be at least 1, is 0"),
        (["--port", "65535", "--count", "2"], "--port 65535 with --count 2 leaves the range 0 to 65535"),
        (["--max-output-tokens", "0"], "--max-output-tokens must be at least 1, is 0"),
        (["--kv-blocks", "0"], "--kv-blocks must be at least 1, is 0"),
        (["--model", "a", "--lora", "a"], "a is both --model and --lora"),
        (["--label", "zone"], "--label zone: write KEY=VALUE"),
        (["--label", "a=b@7"], "--label a=b@7: there is no server '7'; they are sim-0 to sim-0"),
        (["--role", "decode:x"], "--role decode:x: write ROLE or ROLE:COUNT"),
        (["--role", "decode:2"], "--role names 2 servers, but --count is 1"),
        (["--kv-events-port", "65535", "--count", "2"], "--kv-events-port 65535 with --count 2 leaves the range 0 to 65535"),
        (["--kv-events", "5557"], "--kv-events 5557: write an endpoint of ZeroMQ such as tcp://127.0.0.1:5557"),
        (["--kv-events", "--kv-replay-steps", "0"], "--kv-replay-steps must be at least 1, is 0"),
        (["--own-addresses", "--host", "localhost"], "--own-addresses counts from --host, which must be an IP address"),
        (["--own-addresses", "--host", "0.0.0.0"], "--own-addresses counts from --host, and 0.0.0.0 is all addresses"),
        (["--prefill-max-retries", "-1"], "--prefill-max-retries must be 0 or more, is -1"),
        (["--fault", "explode"], "--fault explode: there is no fault 'explode'"),
        (["--fault", "hang@sim-1"], "--fault hang@sim-1: there is no server 'sim-1'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_line_is_explained(flags: list[str], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(flags) == 2
    assert f"epp simulate: {problem}" in capsys.readouterr().err


def test_all_wrong_values_are_named_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--count", "0", "--max-lora", "0", "--ttft-ms", "-1"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--ready-file", str(tmp_path / "nowhere" / "ready.json")]) == 1
    assert "nowhere" in capsys.readouterr().err


def test_help_is_grouped(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    groups = (
        "servers:", "models and answers:", "capacity and speed:", "KV events (extra kv-events):",
        "prefill and encode on other servers:", "metrics, faults and files:", "examples:",
    )  # fmt: skip
    for group in groups:
        assert f"\n{group}\n" in text


async def test_events_are_announced_where_they_are_published(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    process = await start(
        "--count", "2", "--own-addresses", "--kv-events", "--kv-replay", "--kv-events-topic", "kv@{address}@{model}",
        "--data-parallel", "--kv-events-layout", "array", "--time-scale", "0", "--model", MODEL, "--ready-file", str(ready),
    )  # fmt: skip
    for number, endpoint in enumerate(json.loads(ready.read_text())["endpoints"]):
        assert endpoint["address"] == f"127.0.0.{number + 1}"
        events = endpoint["kv_events"]
        url = f"http://{endpoint['address']}:{endpoint['port']}/v1/completions"
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, json={"prompt": "x" * 64, "max_tokens": 1}) as response,
        ):
            assert response.status == 200
        (topic, _, _), end = [frames[:3] for frames in await replay(events["replay_endpoint"], 0)]
        assert end[-1] == b""
        assert events["endpoint"].startswith(f"tcp://127.0.0.{number + 1}:")
        assert topic.decode() == f"kv@{endpoint['address']}:{endpoint['port']}@{MODEL}"
    process.send_signal(signal.SIGINT)
    _, stderr = await process.communicate()
    assert (process.returncode, complaints(stderr)) == (0, [])
