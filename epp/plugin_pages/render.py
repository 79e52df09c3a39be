"""Pages of plugin types as Markdown for ``docs/plugins``, and as text for a terminal."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator

from epp.framework.interfaces import Role
from epp.framework.registry import PluginType
from epp.plugin_pages.page import Page
from epp.plugin_pages.parameters import REQUIRED, Parameter

MARK = "<!-- Made from the code by `epp plugins --docs docs/plugins`: change that and run it again. -->"
INDEX = "README.md"
_WIDTH = 112
_CODE = re.compile(r"(``.+?``|`[^`]+`)")


def markdown(page: Page) -> str:
    """A Markdown page."""
    return "\n".join(_markdown(page)) + "\n"


def _markdown(page: Page) -> Iterator[str]:
    yield from (MARK, f"# {page.type}", "", _escape(page.summary), "")
    if page.introduction:
        yield from (_escape(page.introduction), "")
    yield from ("| | |", "|---|---|")
    for label, value in page.facts:
        yield f"| {label} | {_cell(value)} |"
    if page.notes:
        yield from ("", "## How it works", "")
        for heading, text in page.notes:
            yield f"- **{heading}**: {_escape(text)}"
    yield from ("", "## Parameters", "")
    if page.parameters:
        yield from ("| name | type | default | allowed | meaning |", "|---|---|---|---|---|")
        yield from map(_row, page.parameters)
    else:
        yield "None."
    yield from ("", "## Example", "", "```yaml", page.example.rstrip("\n"), "```")


def _row(parameter: Parameter) -> str:
    default = parameter.default if parameter.default in ("", REQUIRED, "absent") else f"`{parameter.default}`"
    kind = f"{parameter.type}, {parameter.unit}" if parameter.unit else parameter.type
    cells = [f"`{parameter.name}`", _cell(kind), default, _cell(parameter.constraints), _cell(parameter.description)]
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


def index(types: Iterable[PluginType]) -> str:
    """The list of all pages, by role."""
    by_role: dict[Role, list[PluginType]] = {}
    for plugin_type in types:
        for role in plugin_type.roles:
            by_role.setdefault(role, []).append(plugin_type)
    lines = [MARK, "# Plugin types", ""]
    lines += [
        "Every type on a page of its own; `epp plugins TYPE` prints the same. A type with several roles is listed under each.",
        "",
    ]
    for role in sorted(by_role):
        lines += [f"## {role}", "", "| type | what it does |", "|---|---|"]
        for plugin_type in by_role[role]:
            state = "" if plugin_type.is_built else " *Not built yet.*"
            lines.append(f"| [`{plugin_type.type}`]({plugin_type.type}.md) | {_cell(plugin_type.summary)}{state} |")
        lines.append("")
    return "\n".join(lines)


def text(page: Page) -> str:
    """The page for a terminal."""
    return "\n".join(_text(page))


def _text(page: Page) -> Iterator[str]:
    yield from (page.type, *_wrap(page.summary, "  "), "")
    if page.introduction:
        yield from (*textwrap.indent(_plain(page.introduction), "  ").split("\n"), "")
    width = max(len(label) for label, _ in page.facts) + 1
    for label, value in page.facts:
        yield from _wrap(_plain(value), f"  {label + ':':<{width}} ")
    if page.notes:
        yield ""
        for heading, note in page.notes:
            yield from _wrap(_plain(note), f"  {heading}: ")
    yield from ("", "  parameters:" if page.parameters else "  parameters: none")
    for parameter in page.parameters:
        yield from _parameter(parameter)
    yield from ("", "  example:", *textwrap.indent(page.example.rstrip("\n"), "    ").split("\n"))


def _parameter(parameter: Parameter) -> Iterator[str]:
    default = "required" if parameter.default == REQUIRED else f"default {parameter.default}" if parameter.default else ""
    kind = f"{parameter.type} ({parameter.unit})" if parameter.unit else parameter.type
    facts = ", ".join(filter(None, (kind, default, parameter.constraints)))
    yield f"    {parameter.name} ({facts})"
    yield from _wrap(_plain(parameter.description), "        ")


def _wrap(words: str, first: str) -> list[str]:
    """Lines of ``words``; the first one begins with ``first``, the others are indented as far."""
    return textwrap.wrap(words, _WIDTH, initial_indent=first, subsequent_indent=" " * len(first), break_on_hyphens=False)


def _plain(words: str) -> str:
    return words.replace("`", "")


def _escape(words: str) -> str:
    """Text whose characters mean nothing to Markdown outside of code."""
    parts = _CODE.split(words)
    return "".join(part if index % 2 else re.sub(r"([<*_])", r"\\\1", part) for index, part in enumerate(parts))


def _cell(words: str) -> str:
    return _escape(words).replace("|", "\\|")
