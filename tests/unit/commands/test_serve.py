"""Exit statuses and outputs of ``epp serve`` where it does not come to serving."""

from __future__ import annotations

import pytest

from epp.commands import serve


@pytest.fixture(autouse=True)
def _environ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", {})


@pytest.mark.parametrize(
    ("argv", "status", "out", "err"),
    [
        (["--help"], 0, "usage: epp serve", ""),
        (["--version"], 0, "epp ", ""),
        (["--zzz", "--grpc-port=x"], 2, "", "epp: unknown flag: --zzz; --help lists all flags\nepp: invalid value"),
        (["--list-plugins"], 0, "openai-parser", ""),
        ([], 2, "", "epp: either pool-name or endpoint-selector must be set, or model servers named with --endpoint"),
        (["--check-config", "--config-text", "{a: [}"], 1, "", "CFG"),
        (["--check-config", "--config-file", "/does/not/exist"], 1, "", "/does/not/exist"),
    ],
    ids=["help", "version", "usage", "plugins", "A2 no model servers", "A18 broken configuration", "no configuration"],
)
def test_without_serving(argv: list[str], status: int, out: str, err: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve.main(argv) == status
    shown = capsys.readouterr()
    assert out in shown.out
    assert err in shown.err
    assert bool(shown.err) is bool(err)


def test_the_version_names_what_runs() -> None:
    assert serve.version_text().startswith("epp ")
    assert ", Python 3." in serve.version_text()
