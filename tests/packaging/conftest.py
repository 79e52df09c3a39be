"""The wheel, and trees in which it is installed; all is built offline from this environment's own packages."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from epp.demo.envoy import EnvoyError, find_envoy
from tests.packaging.sandbox import Sandbox, why_impossible

CHECKOUT = Path(__file__).parents[2]
NATIVE = CHECKOUT / "native"
NATIVE_BUILD = ("maturin", "build", "--release", "--strip", "--locked", "--offline", "--interpreter", sys.executable)
SITE = Path(sysconfig.get_path("purelib"))


@dataclass(frozen=True, slots=True)
class Tree:
    """A virtual environment with the wheel in it."""

    path: Path

    @property
    def site(self) -> Path:
        """Its site-packages."""
        return self.path / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.path / "bin" / "python"

    def run(self, words: Sequence[str | Path], cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run a program of the tree as a user would: without the checkout on the path."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "EPP_"))}
        environ["PATH"] = f"{self.path / 'bin'}:{environ['PATH']}"
        words = [str(word) for word in words]
        return subprocess.run(words, cwd=cwd, env=environ, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, as `make wheel` builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    _pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder, CHECKOUT)
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def native_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """The extension's wheel as `make native` built it, or built now by the command of the Dockerfile; None without cargo."""
    sources = [path for path in NATIVE.rglob("*") if path.is_file() and "target" not in path.parts]
    changed_s = max(path.stat().st_mtime for path in sources if path.suffix in {".rs", ".toml", ".txt", ".pyi"})
    built = [path for path in (CHECKOUT / "dist" / "native").glob("*.whl") if path.stat().st_mtime >= changed_s]
    if not built and shutil.which("cargo") and (NATIVE / "Cargo.lock").exists():
        folder = tmp_path_factory.mktemp("native")
        command = [sys.executable, "-m", *NATIVE_BUILD, "--out", folder]
        subprocess.run(command, cwd=NATIVE, check=True, capture_output=True, timeout=100)
        built = list(folder.glob("*.whl"))
    return built[0] if built else None


@pytest.fixture(scope="session")
def image_tree(wheel: Path, native_wheel: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """What the image holds: both wheels and the packages of the runtime lock, pruned as in the Dockerfile."""
    tree = _new_tree(tmp_path_factory.mktemp("image") / "epp", wheel)
    for name in locked("requirements-runtime.lock"):
        _link(metadata.distribution(name), tree.site)
    if native_wheel is not None:
        _pip("--python", tree.python, "install", "--no-deps", "--no-index", native_wheel)
    subprocess.run([tree.python, CHECKOUT / "docker" / "prune_protos.py"], check=True, capture_output=True, timeout=60)
    return tree


@pytest.fixture(scope="session")
def user_tree(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """What `pip install 'endpoint-picker[demo]'` gives: the wheel beside all packages of this environment."""
    tree = _new_tree(tmp_path_factory.mktemp("user") / "epp", wheel)
    (tree.site / "packages.pth").write_text(f"{SITE}\n")
    with contextlib.suppress(EnvoyError):
        (tree.path / "bin" / "envoy").symlink_to(find_envoy())
    return tree


@pytest.fixture
def native_sandbox(sandbox: Sandbox, native_wheel: Path | None, request: pytest.FixtureRequest) -> Sandbox:
    """The same where the tree holds the extension."""
    if native_wheel is None:
        if "native" in request.config.getoption("--require").split(","):
            pytest.fail("--require native, but there is no wheel of the extension, and no cargo to build one")
        pytest.skip("needs the wheel of the extension, or cargo")
    return sandbox


@pytest.fixture
def sandbox(image_tree: Tree, tmp_path: Path) -> Sandbox:
    """A read-only root with the tree at /opt/epp, entered as another user."""
    reason = why_impossible()
    if reason:
        pytest.skip(reason)
    root, scratch = tmp_path / "root", tmp_path / "scratch"
    root.mkdir()
    scratch.mkdir()
    scratch.chmod(0o1777)
    return Sandbox(root, scratch, image_tree.path, outside=[SITE])


def locked(lock: str) -> dict[str, str]:
    """Package → version of a lock file, for this Python."""
    found = {}
    for line in (CHECKOUT / lock).read_text().splitlines():
        if line[:1].isalnum():
            requirement = Requirement(line.removesuffix("\\"))
            if requirement.marker is None or requirement.marker.evaluate():
                found[requirement.name] = str(requirement.specifier).removeprefix("==")
    return found


def _new_tree(path: Path, wheel: Path) -> Tree:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", path], check=True, timeout=60)
    tree = Tree(path)
    _pip("--python", tree.python, "install", "--no-deps", "--no-index", wheel)
    return tree


def _pip(*words: str | Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", *map(str, words)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr


def _link(distribution: metadata.Distribution, site: Path) -> None:
    """Install a package by links to the files of this environment."""
    for entry in distribution.files or ():
        source, target = Path(str(entry.locate())), site / entry
        if re.match(r"\.\./", str(entry)) or not source.exists() or target.is_symlink():  # two packages may have the same file
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source)
