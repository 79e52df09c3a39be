"""The guide to plugins of one's own: its example is installed as a package and used as a user would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.conftest import CHECKOUT

GUIDE = (CHECKOUT / "docs" / "write-a-plugin.md").read_text()
PACKAGE = CHECKOUT / "docs" / "example_plugin"
BLOCKS = re.findall(r"^```\w+ (\S+)\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package in it, installed by pip without any index."""
    folder = tmp_path_factory.mktemp("installed")
    words = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run([*words, "--target", folder, PACKAGE], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def run(installed: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"PYTHONPATH": f"{installed}:{CHECKOUT}"}
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=installed, env=environ, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(("file", "block"), BLOCKS, ids=[f"{i}-{file}" for i, (file, _) in enumerate(BLOCKS)])
def test_what_the_guide_shows_is_in_the_package(file: str, block: str) -> None:
    assert block in (PACKAGE / file).read_text()


def test_the_list_has_its_package_and_version(installed: Path) -> None:
    done = run(installed, "epp", "plugins")
    assert (done.returncode, done.stderr) == (0, "")
    [line] = [line for line in done.stdout.splitlines() if line.startswith("recent-errors-scorer")]
    assert line.split(None, 1)[1].split() == ["ResponseComplete,", "Scorer", "epp-recent-errors", "1.0"]


def test_it_has_a_page(installed: Path) -> None:
    done = run(installed, "epp", "plugins", "recent-errors-scorer")
    assert done.returncode == 0, done.stderr
    assert "package: epp-recent-errors 1.0" in done.stdout
    assert "Score by the errors that an endpoint answered with, which fade." in done.stdout
    assert "halfLife (duration, default 10s, more than 0s)" in done.stdout
    assert "        halfLife: 30s" in done.stdout


def test_pages_are_written_for_its_types_alone(installed: Path, tmp_path: Path) -> None:
    done = run(installed, "epp", "plugins", "--docs", tmp_path, "--package", "epp-recent-errors")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "recent-errors-scorer.md"}


def test_it_can_be_configured(installed: Path) -> None:
    done = run(installed, "epp", "check", "--for-serve", "--strict-config", PACKAGE / "config.yaml")
    assert done.returncode == 0, done.stderr


def test_its_parameters_are_checked(installed: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text((PACKAGE / "config.yaml").read_text().replace("halfLife: 30s", "halfLive: 30s"))
    done = run(installed, "epp", "check", wrong)
    assert done.returncode == 1
    assert 'did you mean "halfLife"? (see `epp plugins recent-errors-scorer`)' in done.stderr


def test_its_tests_pass(installed: Path) -> None:
    done = run(installed, "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", PACKAGE / "test_recent_errors.py")
    assert (done.returncode, "2 passed" in done.stdout) == (0, True), done.stdout + done.stderr


def test_it_is_typed(installed: Path) -> None:
    done = run(installed, "mypy", "--strict", "--config-file", os.devnull, installed / "recent_errors.py")
    assert done.returncode == 0, done.stdout
