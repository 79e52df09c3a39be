"""What the wheel holds and says of itself."""

from __future__ import annotations

import re
import tomllib
import zipfile
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from epp.version import VERSION
from tests.packaging.conftest import CHECKOUT, locked


@pytest.fixture(scope="session")
def names(wheel: Path) -> set[str]:
    """Paths in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="session")
def about(wheel: Path) -> Message:
    """Its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_string(archive.read(name).decode())


def test_the_wheel_holds_the_source(names: set[str]) -> None:
    source = [path.relative_to(CHECKOUT) for package in ("epp", "plugins") for path in (CHECKOUT / package).rglob("*.py")]
    assert {str(path) for path in source} <= names


@pytest.mark.parametrize("path", ["epp/py.typed", "plugins/py.typed", "epp/framework/testing.py"])
def test_the_wheel_serves_authors_of_plugins(path: str, names: set[str]) -> None:
    assert path in names


def test_the_wheel_holds_presets_and_envoy_files_as_package_data(names: set[str]) -> None:
    config = CHECKOUT / "config"
    files = {f"epp/data/{path.relative_to(config)}" for path in config.rglob("*") if path.is_file()}
    assert files <= names
    assert {"epp/data/presets/prefix-load.yaml", "epp/data/envoy/full-duplex.yaml"} <= files


def test_the_wheel_holds_the_files_of_the_page(names: set[str]) -> None:
    files = {str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "epp" / "page" / "static").iterdir()}
    assert "epp/page/static/index.html" in files
    assert files <= names


def test_the_wheel_holds_nothing_else(names: set[str]) -> None:
    assert {name.split("/")[0] for name in names} == {"epp", "plugins", f"endpoint_picker-{VERSION}.dist-info"}


def test_the_metadata_is_right(about: Message) -> None:
    fields = ("Name", "Version", "License-Expression", "Requires-Python", "Description-Content-Type")
    assert [about[field] for field in fields] == ["endpoint-picker", VERSION, "Apache-2.0", ">=3.11", "text/markdown"]
    extras = {"demo", "kubernetes", "kv-events", "latency", "mongodb", "plot", "redis", "test", "tokenizer", "tracing"}
    assert set(about.get_all("Provides-Extra", [])) == extras


def test_the_extension_is_one_wheel_for_all_pythons(native_wheel: Path | None) -> None:
    if native_wheel is None:
        pytest.skip("needs the wheel of the extension, or cargo")
    assert re.fullmatch(r"epp_native-[\d.]+-cp311-abi3-manylinux_\w+\.whl", native_wheel.name)
    with zipfile.ZipFile(native_wheel) as archive:
        assert [name for name in archive.namelist() if name.endswith(".so")] == ["epp_native/epp_native.abi3.so"]


@pytest.mark.parametrize("lock", ["requirements-runtime.lock", "requirements-build.lock", "requirements-last.lock"])
def test_the_locks_of_the_image_agree_with_the_lock(lock: str) -> None:
    everything = locked("requirements.lock")
    assert locked(lock).items() <= everything.items()


def test_the_runtime_lock_holds_what_the_project_depends_on() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(line) for line in project["dependencies"]]
    names = {canonicalize_name(needed.name) for needed in wanted if needed.marker is None or needed.marker.evaluate()}
    assert names <= {canonicalize_name(name) for name in locked("requirements-runtime.lock")}


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-runtime.lock", "requirements-build.lock"])
def test_a_lock_has_hashes_and_no_address(lock: str) -> None:
    text = (CHECKOUT / lock).read_text()
    assert "://" not in text
    lines = text.splitlines()
    packages = [i for i, line in enumerate(lines) if line[:1].isalnum()]
    assert all("==" in lines[i] and lines[i + 1].lstrip().startswith("--hash=sha256:") for i in packages)
