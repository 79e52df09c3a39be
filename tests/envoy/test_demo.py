"""`epp demo` as a command: what it shows, and its exit status."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import pytest

from epp.commands import demo

pytestmark = [pytest.mark.envoy, pytest.mark.usefixtures("envoy_binary")]


async def start(*flags: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "epp", "demo", "--servers", "2", "--concurrency", "4", *flags,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip


async def run(*flags: str) -> tuple[int | None, str]:
    process = await start(*flags)
    stdout, stderr = await process.communicate()
    assert stderr == b""
    return process.returncode, stdout.decode()


async def test_conversations_find_what_was_said_before_in_the_caches() -> None:
    status, text = await run("--requests", "40")
    assert status == 0, text
    assert "40 of 40 requests succeeded" in text
    (line,) = [line for line in text.splitlines() if line.startswith("prompt tokens from prefix caches: ")]
    assert int(line.rpartition(" ")[2].removesuffix("%")) > 30


async def test_who_routes_by_prefix_finds_more_in_the_caches_than_chance() -> None:
    status, text = await run("--requests", "80", "--compare", "random")
    assert status == 0, text
    assert text.count("80 of 80 requests succeeded") == 2
    assert "random: 0 requests served" in text, "the view shows both"
    last = text.splitlines()[-1]
    hits = re.match(r"prefix-load against random: prompt tokens from prefix caches (\d+)% against (\d+)%, median time", last)
    assert hits is not None, last
    assert int(hits[1]) > int(hits[2]) + 5, last


async def test_a_failed_request_is_told_by_the_exit_status(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere.yaml"
    nowhere.write_text(
        "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n"
        "- type: by-label-selector\n  parameters: {matchLabels: {tier: gold}}\n- type: max-score-picker\n"
        "schedulingProfiles:\n- name: default\n  plugins: [{pluginRef: by-label-selector}, {pluginRef: max-score-picker}]\n"
    )
    status, text = await run("--requests", "2", "--compare", str(nowhere))
    assert status == 1, "those of the first set-up succeeded"
    assert "2 of 2 requests succeeded" in text
    assert "0 of 2 requests succeeded" in text
    assert "failed: ValueError: status 429" in text


async def test_ctrl_c_ends_a_comparison_with_its_summary() -> None:
    process = await start("--compare", "random")
    assert process.stdout is not None
    seen = ""
    while "random: 0 requests served" not in seen:
        line = await process.stdout.readline()
        assert line, seen
        seen += line.decode()
    process.send_signal(signal.SIGINT)
    stdout, stderr = await process.communicate()
    assert (process.returncode, stderr) == (0, b"")
    assert "prefix-load against random" in stdout.decode()


def test_an_unknown_preset_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--compare", "chance"]) == 2
    error = capsys.readouterr().err
    assert "'chance' is neither a file nor a preset; the presets are load, lo" in error
    assert "random" in error
