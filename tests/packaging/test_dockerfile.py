"""The Dockerfile, read as text: no container engine is needed."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from fnmatch import fnmatch

import pytest

from epp.options import Options
from tests.packaging.conftest import CHECKOUT


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


def test_both_stages_start_from_one_pinned_base() -> None:
    [base] = [i.rest for i in instructions() if i.word == "ARG" and i.rest.startswith("PYTHON_IMAGE=")]
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.13[.\d]*-slim-[a-z]+", base)
    assert [i.rest for i in instructions() if i.word == "FROM"] == ["${PYTHON_IMAGE} AS build", "${PYTHON_IMAGE}"]


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
    assert locks == ["requirements-build.lock", "requirements-runtime.lock"]
    assert [words[-3:] for words in installs if "--require-hashes" not in words] == [["--no-deps", "--no-index", "/dist/*.whl"]]
