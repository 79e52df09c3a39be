"""The README keeps its promises: its examples are run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from epp.discovery.manifests import parse_manifest
from plugins.discovery.endpoint_file import read_endpoint_file
from tests.packaging.conftest import CHECKOUT

README = (CHECKOUT / "README.md").read_text()
_BLOCK = re.compile(r"^```(?P<info>.+?)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = {match["info"]: match["text"] for match in _BLOCK.finditer(README)}


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder whose modules and packages are installed, as it were."""
    environ = os.environ | {"PYTHONPATH": f"{folder}:{CHECKOUT}"}
    return subprocess.run(words, cwd=folder, env=environ, capture_output=True, text=True, timeout=60, check=False)


def epp(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run ``epp``."""
    return run([sys.executable, "-m", "epp", *words], folder)


@pytest.fixture
def user_package(tmp_path: Path) -> Path:
    """A folder in which the plugin of the README is installed with its entry point."""
    (tmp_path / "zone_scorer.py").write_text(BLOCKS["python zone_scorer.py"])
    about = tmp_path / "zone_scorer-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: zone-scorer\nVersion: 1.0\n")
    pairs = BLOCKS["toml entry point"].replace('[project.entry-points."epp.plugins"]', "[epp.plugins]").replace('"', "")
    (about / "entry_points.txt").write_text(pairs)
    return tmp_path


def test_the_example_configuration_is_valid(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(BLOCKS["yaml config"])
    done = epp("check", "--for-serve", "--strict-config", "config.yaml", folder=tmp_path)
    assert (done.returncode, "warning" in done.stderr) == (0, False), done.stderr


def test_the_example_of_an_endpoint_file_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.yaml"
    path.write_text(BLOCKS["yaml endpoints"])
    file = read_endpoint_file(str(path))
    assert (file.findings, len(file.entries)) == ([], 2)


def test_the_example_of_an_objects_file_is_valid() -> None:
    manifests = list(yaml.safe_load_all(BLOCKS["yaml objects"]))
    assert [parse_manifest(manifest, "default").key.name for manifest in manifests] == ["canary", "batch"]


def test_the_check_prints_what_the_readme_shows(tmp_path: Path) -> None:
    (tmp_path / "mistakes.yaml").write_text(BLOCKS["yaml mistakes"])
    command, _, shown = BLOCKS["console check"].partition("\n")
    done = epp(*command.removeprefix("$ epp ").split(), folder=tmp_path)
    assert (done.returncode, done.stdout + done.stderr) == (1, shown)


def test_the_example_plugin_is_found_with_its_parameters(user_package: Path) -> None:
    done = epp("plugins", "zone-scorer", folder=user_package)
    assert done.returncode == 0, done.stderr
    assert "package: zone-scorer 1.0" in done.stdout
    assert "header (string, default x-zone)" in done.stdout


def test_the_example_plugin_can_be_configured_and_its_parameters_are_checked(user_package: Path) -> None:
    text = BLOCKS["yaml config"].replace("queue-scorer", "zone-scorer")
    (user_package / "right.yaml").write_text(text)
    (user_package / "wrong.yaml").write_text(text.replace("zone-scorer\n", "zone-scorer\n  parameters: {headr: x-cell}\n", 1))
    assert epp("check", "--for-serve", "right.yaml", folder=user_package).returncode == 0
    wrong = epp("check", "wrong.yaml", folder=user_package)
    assert (wrong.returncode, 'did you mean "header"?' in wrong.stderr) == (1, True)


def test_the_test_of_the_example_plugin_passes(user_package: Path) -> None:
    (user_package / "test_zone_scorer.py").write_text(BLOCKS["python test_zone_scorer.py"])
    done = run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_zone_scorer.py"], user_package)
    assert (done.returncode, "1 passed" in done.stdout) == (0, True), done.stdout


def test_the_example_plugin_has_about_twenty_lines() -> None:
    assert len([line for line in BLOCKS["python zone_scorer.py"].splitlines() if line.strip()]) <= 22


def test_the_plain_commands_are_those_of_the_makefile() -> None:
    shown = next(text for text in _BLOCK.findall(README) if "requirements.lock" in text[1])[1]
    commands = [command.strip() for line in shown.splitlines() for command in line.partition("#")[0].split("&&")]
    makefile = (CHECKOUT / "Makefile").read_text().replace("--quiet ", "")
    for variable, value in (("$(PYTHON)", "python3"), ("$(BIN)", ".venv/bin"), ("$(VENV)", ".venv")):
        makefile = makefile.replace(variable, value)
    assert [command for command in commands if command not in makefile] == []


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)", README, re.MULTILINE))))
def test_a_named_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
