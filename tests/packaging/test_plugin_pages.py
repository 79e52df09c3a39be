"""Pages of plugin types: equal to what the code says, with examples that load; and what `epp plugins` prints."""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from epp.commands import plugins as command
from epp.config.instantiate import instantiate
from epp.config.load import load_config
from epp.config.loaded import ConfigSource
from epp.errors import Severity
from epp.framework.interfaces import Role
from epp.framework.params import (
    Deprecated,
    DurationS,
    Ignored,
    Int,
    Params,
    PluginReference,
    ProfileReference,
    Quantity,
)
from epp.framework.registry import PluginType, Registry
from epp.plugin_pages.page import page
from epp.plugin_pages.parameters import Parameter, parameters
from epp.plugin_pages.render import MARK, markdown, text
from epp.process.plugin_types import build_registry
from tests.packaging.conftest import CHECKOUT

FOLDER = CHECKOUT / "docs" / "plugins"
EXPERIMENTAL = "WRN017"


@cache
def registry() -> Registry:
    found, _ = build_registry()
    return found


TYPES = [plugin_type for plugin_type in registry() if plugin_type.package == command.OWN_PACKAGE]
each_type = pytest.mark.parametrize("plugin_type", TYPES, ids=lambda plugin_type: plugin_type.type)


# ── the committed pages ──


def test_there_is_one_page_for_each_type_and_an_index() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {*(f"{t.type}.md" for t in TYPES), "README.md"}


def test_the_pages_say_what_the_code_says() -> None:
    stale = [name for name, content in command.pages(registry()).items() if (FOLDER / name).read_text() != content]
    assert stale == [], "run `epp plugins --docs docs/plugins`"


@each_type
def test_the_example_is_a_configuration_that_loads(plugin_type: PluginType) -> None:
    document = page(plugin_type, registry()).example
    instances = instantiate(load_config(ConfigSource.from_text(document), registry()))
    assert plugin_type.type in [plugin.name for plugin in instances.config.plugins if plugin.declared]
    findings = (*instances.config.findings, *instances.findings)
    assert [f for f in findings if f.severity is not Severity.INFO and f.code != EXPERIMENTAL] == []


@each_type
def test_a_built_type_tells_how_it_works(plugin_type: PluginType) -> None:
    shown = page(plugin_type, registry())
    if plugin_type.is_built:
        assert shown.introduction
    else:
        assert "not built yet" in dict(shown.facts)["state"]


# ── parameters ──


class Colour(StrEnum):
    RED = "red"


class Inner(Params):
    ttl: DurationS = Field(default=90.0, gt=0, description="How long.")


class Everything(Params):
    name: str = Field(min_length=1, description="A name.")
    size_bytes: Quantity = Field(default=1024, ge=0, description="A size.")
    count: Int | None = Field(default=None, description="A count.")
    ratio: float = Field(default=1.0, ge=0, lt=1, description="A ratio.")
    mode: Literal["", "fast"] = Field(default="", description="A mode.")
    colour: Colour = Field(default=Colour.RED, description="A colour.")
    labels: dict[str, str] = Field(default={}, description="Labels.")
    names: tuple[str, ...] = Field(default=("a b", "c"), max_length=3, description="Names.")
    inner: Inner = Field(default_factory=Inner, description="An object.")
    items: list[Inner] = Field(default=[], min_length=0, description="Objects.")
    old: Annotated[bool, Ignored("nobody needs it")] = Field(default=False, description="A switch.")
    older: Annotated[Int, Deprecated("write count")] = Field(default=0, description="A number.")
    other: Annotated[str, PluginReference(Role.DECIDER)] = Field(default="", description="A decider.")
    profile: Annotated[str, ProfileReference()] = Field(default="decode", description="A profile.")


def test_parameters_are_told_in_yaml_words() -> None:
    assert [(p.name, p.type, p.default, p.constraints) for p in parameters(Everything)] == [
        ("name", "string", "required", "not empty"),
        ("sizeBytes", "quantity", "1024", "at least 0"),
        ("count", "integer", "absent", ""),
        ("ratio", "number", "1", "at least 0; less than 1"),
        ("mode", 'one of "", fast', '""', ""),
        ("colour", "one of red", "red", ""),
        ("labels", "mapping of strings to strings", "{}", ""),
        ("names", "list of strings", '["a b", "c"]', "at most 3 entries"),
        ("inner", "object", "", ""),
        ("inner.ttl", "duration", "90s", "more than 0s"),
        ("items", "list of objects", "[]", "at least 0 entries"),
        ("items[].ttl", "duration", "90s", "more than 0s"),
        ("old", "boolean", "false", ""),
        ("older", "integer", "0", ""),
        ("other", "name of a plugin", '""', ""),
        ("profile", "name of a profile", "decode", ""),
    ]


@pytest.mark.parametrize(
    ("name", "description"),
    [("old", "A switch. No effect: nobody needs it."), ("older", "A number. Older form: write count.")],
)
def test_old_parameters_say_so(name: str, description: str) -> None:
    assert {p.name: p.description for p in parameters(Everything)}[name] == description


def test_a_unit_comes_from_the_name() -> None:
    [row] = [p for p in parameters(Everything) if p.name == "sizeBytes"]
    assert row == Parameter("sizeBytes", "quantity", "bytes", "1024", "at least 0", "A size.")


# ── a page ──


class Documented:
    """Score by `x_y` and <z>.

    More of it.

    Parameters: told elsewhere.
    Formula: ``a * b``
        and c.
    """


def documented(**more: object) -> PluginType:
    return PluginType(
        "documented-hook",
        frozenset({Role.PRE_REQUEST}),
        "Documented.",
        factory=lambda context, params: Documented(),
        **more,  # type: ignore[arg-type]
    )


def shown(plugin_type: PluginType) -> tuple[str, str]:
    """Markdown and text of a type that nobody else knows."""
    known = Registry([plugin_type, *TYPES])
    found = page(plugin_type, known)
    return markdown(found), text(found)


def test_the_docstring_becomes_introduction_and_notes() -> None:
    as_markdown, as_text = shown(documented())
    assert "\nScore by `x_y` and \\<z>.\n\nMore of it.\n" in as_markdown
    assert "- **Formula**: ``a * b`` and c.\n" in as_markdown
    assert "told elsewhere" not in as_markdown + as_text
    assert "  Score by x_y and <z>.\n" in as_text
    assert "  Formula: a * b and c." in as_text


def test_headers_and_names_are_facts() -> None:
    as_markdown, _ = shown(documented(header_strip=frozenset({"x-b", "x-a"}), package="acme", version="1.2"))
    assert "| package | acme 1.2 |" in as_markdown
    assert "| owns request headers | `x-a`, `x-b`: a client's own are removed |" in as_markdown


# ── the command ──


@each_type
def test_the_command_prints_every_type(plugin_type: PluginType) -> None:
    lines = text(page(plugin_type, registry())).split("\n")
    assert lines[0] == plugin_type.type
    assert "  example:" in lines


def test_an_alias_leads_to_its_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["label-selector-filter"]) == 0
    assert capsys.readouterr().out.startswith("by-label-selector\n")


def test_a_misspelt_type_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["queue-scorrer"]) == 2
    assert capsys.readouterr().err == "epp: no plugin type 'queue-scorrer'; did you mean 'queue-scorer'?\n"


def test_a_flag_that_does_not_exist_is_a_usage_error() -> None:
    assert command.main(["--nonsense"]) == 2


def test_all_types_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == [plugin_type.type for plugin_type in registry()]


def test_pages_are_written_and_stale_ones_removed(tmp_path: Path) -> None:
    (tmp_path / "gone-scorer.md").write_text(MARK + "\n# gone-scorer\n")
    (tmp_path / "notes.md").write_text("# Mine\n")
    assert command.main(["--docs", str(tmp_path)]) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert {"notes.md", "README.md", "queue-scorer.md"} <= names
    assert "gone-scorer.md" not in names
