"""The Dockerfile, read as text: no container engine is needed."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatch

import pytest

from epp.process.options import Options
from tests.packaging.conftest import CHECKOUT, NATIVE_BUILD


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction, continuation lines joined."""

    word: str
    rest: str


def instructions() -> list[Instruction]:
    """All of them, in order."""
    text = re.sub(r"^#.*\n", "", (CHECKOUT / "Dockerfile").read_text(), flags=re.MULTILINE)
    joined = text.replace("\\\n", " ")
    pairs = [line.split(None, 1) for line in joined.splitlines() if line.strip()]
    return [Instruction(word, rest) for word, rest in pairs]


def last_stage() -> list[Instruction]:
    """The instructions that shape the image itself."""
    found = instructions()
    start = max(i for i, instruction in enumerate(found) if instruction.word == "FROM")
    return found[start:]


def only(word: str) -> str:
    """The argument of the last stage's one instruction of this kind."""
    [rest] = [instruction.rest for instruction in last_stage() if instruction.word == word]
    return rest


def copied() -> list[str]:
    """Sources in the checkout of all COPY instructions."""
    rests = [i.rest for i in instructions() if i.word == "COPY" and not i.rest.startswith("--from")]
    return [source for rest in rests for source in rest.split()[:-1]]


def sent_to_the_builder(path: str) -> bool:
    """Whether .dockerignore lets a top-level path through; the last matching line decides."""
    sent = True
    for line in (CHECKOUT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#") and fnmatch(path, line.removeprefix("!")):
            sent = line.startswith("!")
    return sent


@pytest.mark.parametrize("path", copied())
def test_a_copied_file_exists_and_reaches_the_builder(path: str) -> None:
    assert (CHECKOUT / path).exists()
    assert sent_to_the_builder(path.removeprefix("./").split("/")[0])


@pytest.mark.parametrize("path", ["tests", "bench", ".git", ".venv", "docs"])
def test_what_the_image_does_not_need_stays_outside(path: str) -> None:
    assert not sent_to_the_builder(path)


def test_all_stages_start_from_pinned_bases_of_one_release() -> None:
    bases = dict(i.rest.split("=") for i in instructions() if i.word == "ARG" and "_IMAGE=" in i.rest)
    patterns = {
        "PYTHON_IMAGE": r"python:3\.13[.\d]*-slim-bookworm",
        "COMPILER_IMAGE": r"python:3\.13[.\d]*-bookworm",
        "RUST_IMAGE": r"rust:1\.\d+[.\d]*-slim-bookworm",
    }
    assert bases.keys() == patterns.keys()
    assert all(re.fullmatch(pattern, bases[name]) for name, pattern in patterns.items()), bases
    stages = ["RUST_IMAGE} AS rust", "COMPILER_IMAGE} AS native", "PYTHON_IMAGE} AS build", "PYTHON_IMAGE}"]
    assert [i.rest for i in instructions() if i.word == "FROM"] == [f"${{{stage}" for stage in stages]


def test_rust_is_new_enough_for_the_crate() -> None:
    [image] = [i.rest for i in instructions() if i.word == "ARG" and i.rest.startswith("RUST_IMAGE=")]
    crate = tomllib.loads((CHECKOUT / "native" / "Cargo.toml").read_text())["package"]
    have, want = (tuple(map(int, re.findall(r"\d+", text)[:2])) for text in (image, crate["rust-version"]))
    assert have >= want


def stage(name: str) -> list[Instruction]:
    """The instructions of a named stage."""
    found = instructions()
    start = next(
        i for i, instruction in enumerate(found) if instruction.word == "FROM" and instruction.rest.endswith(f"AS {name}")
    )
    end = next(i for i, instruction in enumerate(found[start + 1 :], start + 1) if instruction.word == "FROM")
    return found[start:end]


def test_crates_are_pinned_and_built_before_the_sources_come() -> None:
    """So that a change of the sources builds one crate, not all."""
    words = [f"{instruction.word} {instruction.rest}" for instruction in stage("native")]
    pinning, building = (next(i for i, line in enumerate(words) if what in line) for what in ("crates.py pin", "--out /dist"))
    sources = words.index("COPY native/src ./src")
    assert pinning < sources < building
    flags = " ".join(NATIVE_BUILD).replace(" --offline", "").replace(sys.executable, "python")
    assert flags in words[pinning]
    assert flags in words[building]


def test_the_image_holds_the_extension_but_no_compiler() -> None:
    assert "COPY --from=native /dist /dist/native" in [f"{i.word} {i.rest}" for i in stage("build")]
    assert [i.rest for i in last_stage() if i.word == "COPY"] == ["--from=build /opt/epp /opt/epp"]


@pytest.mark.parametrize("path", ["native/target", "native/Cargo.lock"])
def test_no_build_of_the_checkout_reaches_the_builder(path: str) -> None:
    lines = (CHECKOUT / ".dockerignore").read_text().splitlines()
    assert lines.index(path) > lines.index("!native")


def test_it_runs_as_a_numbered_user_without_privileges() -> None:
    assert only("USER") == "65532:65532"


def test_it_takes_flags_and_gets_the_signals_itself() -> None:
    assert json.loads(only("ENTRYPOINT")) == ["python", "-m", "epp"]
    assert isinstance(json.loads(only("CMD")), list)


def test_it_exposes_the_default_ports() -> None:
    defaults = Options()
    assert [int(port) for port in only("EXPOSE").split()] == [
        defaults.grpc_port,
        defaults.grpc_health_port,
        defaults.metrics_port,
    ]


@pytest.mark.parametrize("name", ["EPP_BUILD_COMMIT", "EPP_BUILD_REF"])
def test_build_arguments_reach_the_service(name: str) -> None:
    assert any(i.word == "ARG" and i.rest.startswith(f"{name}=") for i in last_stage())
    assert f"{name}=${{{name}}}" in only("ENV")


def test_nothing_is_written_at_run_time() -> None:
    assert {"PYTHONDONTWRITEBYTECODE=1", "HOME=/tmp"} <= set(only("ENV").split())


def test_only_locked_packages_are_installed() -> None:
    commands = "&&".join(i.rest for i in instructions() if i.word == "RUN").split("&&")
    installs = [command.split() for command in commands if " install " in command]
    locks = [words[words.index("-r") + 1] for words in installs if "--require-hashes" in words]
    assert locks == [f"requirements-{name}.lock" for name in ("build", "build", "runtime", "last")]
    wheels = ["/dist/*.whl", "/dist/native/*.whl"]
    assert [words[-3:] for words in installs if "--require-hashes" not in words] == [
        ["--no-deps", "--no-index", wheel] for wheel in wheels
    ]
