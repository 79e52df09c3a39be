"""`epp replay` as a command: what it prints and writes, its exit status, and what it says of what it cannot use."""

from __future__ import annotations

import gzip
import importlib.util
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from bench import conversations
from epp.__main__ import main
from epp.demo.data_files import data_path
from epp.replay import comparison
from tests.config.doubles import HEADER
from tests.replay.building import LOAD, RANDOM, chat_record, jsonl, steady

DOCS = Path(__file__).parents[2] / "docs" / "replay.md"
SVG, PNG = b"<?xml", b"\x89PNG"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "trace.jsonl").write_bytes(jsonl(steady(60)))
    (tmp_path / "requests.jsonl.gz").write_bytes(
        gzip.compress(jsonl([chat_record(i / 10, f"text {i % 3} " * 30) for i in range(30)]))
    )
    (tmp_path / "one.yaml").write_text(HEADER + LOAD)
    (tmp_path / "other.yaml").write_text(HEADER + RANDOM)
    (tmp_path / "bad.yaml").write_text(HEADER + "plugins: [{type: no-such-plugin}]\n")
    (tmp_path / "bad.jsonl").write_bytes(b'{"timestamp": 0}\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def replay(*flags: str) -> int:
    return main(["replay", *flags])


@pytest.mark.parametrize("trace", ["trace.jsonl", "requests.jsonl.gz"])
def test_it_prints_a_table_for_a_person(folder: Path, capsys: pytest.CaptureFixture[str], trace: str) -> None:
    assert replay(trace, "--config", "one.yaml", "--config", "other.yaml", "--bound") == 0
    out, err = capsys.readouterr()
    assert err == ""
    heading, table, bound, differ = out.split("\n\n")
    assert heading.startswith(f"{trace}: ")
    rows = [line.split("  ")[0] for line in table.splitlines()[1:]]
    assert rows == [
        "served", "refused", "hit rate, tokens", "first token p50, s", "p90", "p99", "whole answer p50, s", "p90", "p99",
        "queue, mean", "max", "balance of requests, max/mean", "of computed tokens", "replayed in, s",
    ]  # fmt: skip
    assert table.splitlines()[0].split() == ["one", "other"]
    assert "greedy choice among these caches" in bound
    assert differ.startswith("one and other differ on ")


def test_without_a_configuration_it_is_that_of_serve(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay("trace.jsonl", "--limit", "5", "--json", "-") == 0
    result = orjson.loads(capsys.readouterr().out)
    assert [each["name"] for each in result["configurations"]] == ["default"]
    assert result["trace"]["requests"] == 5
    assert result["bound"] is None


def test_the_json_is_documented_and_complete(folder: Path) -> None:
    flags = (
        "--config",
        "one.yaml",
        "--config",
        "random",
        "--config",
        "random",
        "--bound",
        "--json",
        "result.json",
        "--servers",
        "2",
    )
    assert replay("trace.jsonl", *flags, "--label", "zone=a", "--label", "zone=b@1") == 0
    result = orjson.loads((folder / "result.json").read_bytes())
    assert result["schema"] == 1
    assert [each["name"] for each in result["configurations"]] == ["one", "random", "random-2"]
    assert result["pool"]["labels"] == [{"zone": "a"}, {"zone": "b"}]
    _, second, third = result["configurations"]
    assert {**second, "name": ""} == {**third, "name": ""}, "the same configuration and seed"
    assert [each["configurations"] for each in result["disagreements"]] == [["one", "random"], ["one", "random-2"]]
    documented = DOCS.read_text(encoding="utf-8")
    missing = [name for name in names(result) if f"`{name}`" not in documented]
    assert not missing, f"fields that {DOCS.name} does not tell of"


def names(document: Any) -> set[str]:
    """All names of members, except where they are data."""
    if isinstance(document, list):
        return set().union(*map(names, document)) if document else set()
    if not isinstance(document, dict):
        return set()
    found = set(document)
    for name, value in document.items():
        if name not in ("refused", "labels"):
            found |= names(value)
    return found


@pytest.mark.parametrize(("name", "magic"), [("course.svg", SVG), ("course.PNG", PNG)])
def test_the_plot_is_a_picture_and_the_same_again(folder: Path, name: str, magic: bytes) -> None:
    flags = ("trace.jsonl", "--config", "one.yaml", "--config", "other.yaml", "--plot", name)
    assert replay(*flags) == 0
    picture = (folder / name).read_bytes()
    assert picture.startswith(magic)
    assert replay(*flags) == 0
    assert (folder / name).read_bytes() == picture
    if magic == SVG:
        text = picture.decode()
        assert "hit rate of prompt tokens" in text
        assert "one, p90" in text
        assert "other, p50" in text


def test_standard_input_and_the_same_result_in_every_process(folder: Path) -> None:
    """Also where Python hashes texts by another seed."""
    results = []
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-m", "epp", "replay", "-", "--config", "one.yaml", "--config", "other.yaml", "--json", "-"]
        done = subprocess.run(
            command, input=(folder / "trace.jsonl").read_bytes(), capture_output=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )  # fmt: skip
        assert done.stderr == b""
        results.append(done.stdout)
    assert results[0] == results[1]
    assert orjson.loads(results[0])["trace"]["name"] == "standard input"


@pytest.mark.parametrize(
    ("flags", "status", "said"),
    [
        ((), 2, "the following arguments are required: TRACE"),
        (("trace.jsonl", "--servers", "0"), 2, "'0' is not a number above 0"),
        (("trace.jsonl", "--limit", "x"), 2, "'x' is not a number above 0"),
        (("trace.jsonl", "--time-scale", "-1"), 2, "'-1' is not a number of 0 or more"),
        (("trace.jsonl", "--refresh-metrics-interval", "0s"), 2, "'0s' is not above 0"),
        (("trace.jsonl", "--kv-blocks", "0"), 2, "--kv-blocks must be at least 1, is 0"),
        (("trace.jsonl", "--label", "zone"), 2, "--label zone: write KEY=VALUE, or KEY=VALUE@SERVER"),
        (("trace.jsonl", "--label", "a=b@9"), 2, "there is no server '9'; they are sim-0 to sim-3"),
        (("trace.jsonl", "--config", "lod"), 2, "there is neither such a file nor such a preset; presets are default, load"),
        (("trace.jsonl", "--plot", "x.pdf"), 2, "--plot x.pdf: the name must end in .svg or .png"),
        (("trace.jsonl", "--json", "nowhere/x.json"), 2, "--json nowhere/x.json: there is no folder nowhere"),
        (("missing.jsonl",), 1, "No such file or directory: 'missing.jsonl'"),
        (("bad.jsonl",), 1, "bad.jsonl, line 1: unknown format"),
        (("trace.jsonl", "--config", "missing.yaml"), 1, "cannot read missing.yaml"),
        (("trace.jsonl", "--config", "bad.yaml"), 1, "no-such-plugin"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_what_cannot_be_used(
    folder: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], status: int, said: str
) -> None:
    assert replay(*flags) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert replay("--help") == 0
    assert "exit status: 0 done" in capsys.readouterr().out


def test_a_plot_needs_its_library(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr("epp.commands.replay.find_spec", lambda name: None if name == "matplotlib" else real(name))
    assert replay("trace.jsonl", "--plot", "x.svg") == 2
    assert "--plot needs the extra 'plot' (matplotlib)" in capsys.readouterr().err


def test_our_own_failures_are_told_and_fail_it(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr("epp.decision.reading.RequestReader.read", broken)
    assert replay("trace.jsonl", "--limit", "2") == 1
    out, err = capsys.readouterr()
    assert "2 × 500 " in out
    assert "epp replay: default: decision: RuntimeError: out of order" in err


def test_it_ends_at_control_c(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(comparison, "replay", interrupted)
    assert replay("trace.jsonl") == 130


def test_a_bar_shows_how_far_it_is_where_somebody_sees_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    written = io.BytesIO()
    terminal = Terminal(written, encoding="utf-8", write_through=True)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    assert replay("trace.jsonl", "--config", "one.yaml", "--config", "other.yaml", "--bound") == 0
    for name in ("one", "other", "bound", "60/60"):
        assert name in written.getvalue().decode()


def test_the_shipped_load_is_what_its_script_makes() -> None:
    shipped = data_path("traces", "conversations.jsonl.gz").read_bytes()
    made = conversations.compressed(conversations.records(conversations.Shape(), 1))
    assert gzip.decompress(shipped) == gzip.decompress(made)
    assert len(shipped) < 64 * 1024


def test_the_shipped_load_is_found_by_its_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay("conversations", "--limit", "20") == 0
    assert "conversations.jsonl.gz: 20 requests" in capsys.readouterr().out
