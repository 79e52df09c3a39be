"""``epp check``."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
import yaml

from epp.commands.check import main
from tests.config.doubles import HEADER

GOOD = HEADER + "plugins: [{type: queue-scorer}, {type: max-score-picker}]\n"
UNBUILT = HEADER + "plugins: [{type: multicluster-queue-scorer}, {type: queue-scorer}]\n"
BAD = HEADER + "plugins: [{type: queue-scorr}]\n"
WARNED = "kind: EndpointPickerConfig\nplugins: [{type: queue-scorer}]\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where tests put their document."""
    return tmp_path / "epp.yaml"


def test_a_valid_file_gets_one_line(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(GOOD)
    assert main([str(file)]) == 0
    out = capsys.readouterr()
    assert out.out == f"{file}: valid: 2 plugins, 1 profile (default), 0 warnings\n"
    assert out.err == ""


def test_an_invalid_file_gets_its_findings(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(BAD)
    assert main([str(file)]) == 1
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err == (
        f'{file}:3:18: error CFG052: plugins[0].type: no plugin type is named "queue-scorr"; '
        'did you mean "queue-scorer"? (see --list-plugins)\n'
    )


def test_several_files_are_all_checked(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(BAD)
    other = tmp_path / "good.yaml"
    other.write_text(GOOD)
    assert main([str(file), str(other), str(tmp_path / "none.yaml")]) == 1
    out = capsys.readouterr()
    assert out.out.startswith(f"{other}: valid")
    assert [line.split(": ")[1] for line in out.err.splitlines()] == ["error CFG052", "error CFG001"]


def test_a_warning_is_shown_and_counted(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(WARNED)
    assert main([str(file)]) == 0
    out = capsys.readouterr()
    assert out.out == f"{file}: valid: 1 plugin, 1 profile (default), 1 warning\n"
    assert "warning WRN002: apiVersion" in out.err
    assert main(["--strict-config", str(file)]) == 1
    assert "error WRN002: apiVersion" in capsys.readouterr().err


def test_json_is_a_list_for_all_files(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(BAD)
    other = tmp_path / "warned.yaml"
    other.write_text(WARNED)
    assert main(["--output", "json", str(file), str(other)]) == 1
    out = capsys.readouterr()
    found = json.loads(out.out)
    assert [(f["file"], f["code"], f["severity"]) for f in found] == [
        (str(file), "CFG052", "error"),
        (str(other), "WRN002", "warning"),
    ]
    assert out.err == ""


def test_json_of_a_valid_file_is_an_empty_list(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(GOOD)
    assert main([str(file), "--output=json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(BAD.encode())))
    assert main(["-"]) == 1
    assert capsys.readouterr().err.startswith("<stdin>:3:18: error CFG052")


def test_for_serve_refuses_what_is_not_built(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(UNBUILT)
    assert main([str(file)]) == 0
    assert "1 not built yet" in capsys.readouterr().out
    assert main(["--for-serve", str(file)]) == 1
    assert "error CFG059" in capsys.readouterr().err


@pytest.mark.parametrize(("flag", "status"), [("=true", 0), ("=false", 1), (None, 0)])
def test_experimental_plugins(flag: str | None, status: int, file: Path) -> None:
    experimental = "{type: priority-holdback-policy, parameters: {minCeiling: 0.5}}"
    file.write_text(f"{HEADER}plugins: [{experimental}, {{type: queue-scorer}}]\n")
    flags = [f"--allow-experimental-plugins{flag}"] if flag else []
    assert main([*flags, str(file)]) == status


def test_the_completed_document_is_printed(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(GOOD)
    assert main(["--print-effective-config", str(file)]) == 0
    document = yaml.safe_load(capsys.readouterr().out)
    assert document["schedulingProfiles"] == [
        {"name": "default", "plugins": [{"pluginRef": "queue-scorer", "weight": 1.0}, {"pluginRef": "max-score-picker"}]}
    ]


@pytest.mark.parametrize(
    "argv",
    [[], ["--output", "xml", "f"], ["--nonsense", "f"], ["--allow-experimental-plugins=maybe", "f"], ["--out", "json", "f"]],
    ids=["no-file", "unknown-output", "unknown-flag", "neither-true-nor-false", "abbreviation"],
)
def test_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert "usage: epp check" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "--for-serve" in capsys.readouterr().out
