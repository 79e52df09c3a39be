"""The load benchmark runs from end to end, so that it is there when it is needed."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.envoy

NAIVE = "naive=python -m bench.naive_picker --port {port} --endpoints {endpoints}"


async def bench(*args: str) -> tuple[int, str]:
    """Run the benchmark; returns its exit code and all it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.load", "--segments", "1", "--seconds", "0.3", *args),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


@pytest.mark.parametrize(
    "args",
    [
        pytest.param(["--workload", "small-json"], id="closed loop"),
        pytest.param(["--workload", "sse", "--mode", "bypass", "--chunk-interval-ms", "1"], id="open loop of streams"),
        pytest.param(["--workload", "big-prompt", "--rate", "20", "--mode", "buffered"], id="open loop of big prompts"),
    ],
)
async def test_a_picker_is_measured(args: list[str], envoy_binary: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    code, text = await bench("--picker", NAIVE, *args, "--output", str(output))
    assert code == 0, text
    document: dict[str, Any] = json.loads(output.read_text())
    assert document["errors"] == {"direct": 0, "naive": 0}
    (segment,) = document["segments"]["naive"]
    assert segment["requests"] > 0
    assert segment["p99_ms"] >= segment["p50_ms"] > 0
    assert segment["picker_resident_bytes"] > 1 << 20
    assert "picker us/req" in document["summary"]["naive"]
    assert "added p50 ms" in text


async def test_two_pickers_are_compared_when_nothing_is_sent(envoy_binary: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    twin = NAIVE.replace("naive=", "twin=")
    code, text = await bench("--picker", NAIVE, "--picker", twin, "--workload", "idle", "--output", str(output))
    assert code == 0, text
    document: dict[str, Any] = json.loads(output.read_text())
    assert document["load"]["endpoints"] == 100
    assert list(document["segments"]) == ["naive", "twin", "bare"]
    assert "resident MiB" in document["ratios"]["naive / twin"]
    assert "added cores" in document["summary"]["naive"]
    (bare,) = document["segments"]["bare"]
    assert bare["scrapes"] >= 100


async def test_pickers_are_compared_at_a_rate_that_both_hold(envoy_binary: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    twin = NAIVE.replace("naive=", "twin=")
    code, text = await bench("--picker", NAIVE, "--picker", twin, "--rate-of-weakest", "0.4", "--output", str(output))
    assert code == 0, text
    document: dict[str, Any] = json.loads(output.read_text())
    assert document["load"]["rate"] == pytest.approx(0.4 * min(document["held"].values()))
    assert set(document["held"]) == {"naive", "twin"}
    direct, naive, other = (document["segments"][name][0] for name in ("direct", "naive", "twin"))
    assert direct["requests"] == naive["requests"] == other["requests"] > 0  # the same arrivals
    assert f"rate: {document['load']['rate']:.0f} requests/s" in text


@pytest.mark.parametrize("args", [["--rate", "5"], ["--workload", "idle"]], ids=["a rate", "nothing sent"])
async def test_a_rate_is_chosen_only_where_it_is_open(args: list[str]) -> None:
    code, text = await bench("--picker", NAIVE, "--rate-of-weakest", "0.6", *args)
    assert code == 2
    assert "chooses the rate itself" in text


async def test_a_picker_that_does_not_start_is_shown_with_what_it_said(envoy_binary: Path) -> None:
    code, text = await bench("--picker", """broken=python -c "raise SystemExit('no such endpoint')" """)
    assert code == 1
    assert "ended with code 1" in text
    assert "no such endpoint" in text
