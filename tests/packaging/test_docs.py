"""README and docs name only what exists: flags, files, links, metrics, plugin types, commands."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from epp.__main__ import COMMANDS
from epp.commands import check, demo, doctor, explain, manifests, plugins, shadow, simulate
from epp.commands.flag_table import FLAGS
from epp.commands.replay_flags import make_parser as replay_parser
from epp.doctor.catalogue import CATALOGUE as FINDINGS
from epp.process.plugin_types import build_registry
from epp.telemetry.catalogue import CATALOGUE, PREFIX, REQUEST_LABELS
from tests.packaging.conftest import CHECKOUT

PAGES = [CHECKOUT / "README.md", CHECKOUT / "CHANGELOG.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
_OTHER_PROGRAMS = re.compile(
    r"^.*(pip install|py-spy|pytest|ruff|lint-imports|docker build|bench\.load|--picker|helm |kubectl ).*$", re.MULTILINE
)


def pages(pattern: str, *, skip: re.Pattern[str] | None = None) -> list[tuple[str, str]]:
    """(page, match) of a pattern in all pages, each once."""
    found: set[tuple[str, str]] = set()
    for page in PAGES:
        text = page.read_text()
        text = skip.sub("", text) if skip else text
        found.update((page.name, match) for match in re.findall(pattern, text))
    return sorted(found)


def known_flags() -> set[str]:
    """Flags of all commands, ``--no-`` forms apart."""
    simulated = argparse.ArgumentParser()
    simulate.add_arguments(simulated)
    parsers = (
        simulated,
        demo._parser(),
        check._parser(),
        plugins._parser(),
        explain._parser(),
        shadow._parser(),
        manifests._parser(),
        replay_parser(),
        doctor.make_parser(),
    )
    found = {option for parser in parsers for action in parser._actions for option in action.option_strings}
    return found | {f"--{flag.name}" for flag in FLAGS} | {"--help", "--version"}


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize(("page", "flag"), pages(r"(?<![\w-])--[a-z][a-z0-9-]*", skip=_OTHER_PROGRAMS))
def test_a_named_flag_exists(page: str, flag: str) -> None:
    placeholders = {"--flag", "--bool", "--no-bool"}
    assert flag in known_flags() | placeholders


@pytest.mark.parametrize(("page", "command"), pages(r"(?:`|^|/)epp ([a-z]+)\b"))
def test_a_named_command_exists(page: str, command: str) -> None:
    assert command in COMMANDS


@pytest.mark.parametrize(("page", "link"), pages(r"\]\(([^)]+)\)"))
def test_a_link_leads_somewhere(page: str, link: str) -> None:
    if link.startswith("https://"):
        return
    source = next(path for path in PAGES if path.name == page)
    file, _, anchor = link.partition("#")
    target = (source.parent / file) if file else source
    assert target.exists()
    if anchor:
        headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
        assert anchor in {slug(heading) for heading in headings}


@pytest.mark.parametrize(("page", "path"), pages(r"(?<![\w/])((?:epp|plugins|config|bench|docs)/[\w./-]*\w)"))
def test_a_named_file_exists(page: str, path: str) -> None:
    assert (CHECKOUT / re.sub(r"^epp/data\b", "config", path)).exists()


@pytest.mark.parametrize(
    ("page", "name"), pages(r"`([a-z]+(?:-[a-z]+)*-(?:scorer|filter|picker|handler|parser|discovery|source|extractor))`")
)
def test_a_named_plugin_type_exists(page: str, name: str) -> None:
    registry, _ = build_registry()
    examples = {("README.md", "zone-scorer"), ("write-a-plugin.md", "recent-errors-scorer")}
    assert registry.get(name) is not None or (page, name) in examples


def test_the_changelog_names_every_scheduling_plugin_that_is_built() -> None:
    registry, _ = build_registry()
    built = {t.type for t in registry if t.is_built and t.roles & {"Filter", "Scorer", "Picker"}}
    named = set(re.findall(r"`([a-z-]+)`", (CHECKOUT / "CHANGELOG.md").read_text()))
    assert built - named == set(), "name them in CHANGELOG.md"


def metrics_table() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Name → (type, labels) as docs/operations.md has it."""
    text = (CHECKOUT / "docs" / "operations.md").read_text()
    section = text.partition("<!-- metrics")[2].partition("<!-- end of metrics")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \|", section, re.MULTILINE)
    labels = {name: text.replace("request labels", ", ".join(REQUEST_LABELS)).replace("`", "") for name, _, text in rows}
    return {name: (kind, tuple(filter(None, labels[name].split(", ")))) for name, kind, _ in rows}


def test_the_table_of_metrics_is_the_catalogue() -> None:
    not_yet = re.compile("inflight_(requests|tokens)|program_aware")
    families = [metric for metric in CATALOGUE if not not_yet.match(metric.name.removeprefix(PREFIX))]
    assert metrics_table() == {m.name.removeprefix(PREFIX): (str(m.kind), m.labels) for m in families}


def test_the_tables_of_findings_are_the_catalogue() -> None:
    section = (CHECKOUT / "docs" / "doctor.md").read_text().partition("<!-- findings")[2].partition("<!-- end of findings")[0]
    rows = re.findall(r"^\| ([A-Z]{3}\d{3}) \| (\w+) \| (.*) \|$", section, re.MULTILINE)
    assert rows == [(code, str(rule.severity), rule.meaning) for code, rule in FINDINGS.items()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_ends_with_one_newline_and_has_no_trailing_blanks(page: Path) -> None:
    lines = page.read_text().split("\n")
    assert lines[-1] == ""
    assert lines[-2] != ""
    assert [line for line in lines if line != line.rstrip()] == []
