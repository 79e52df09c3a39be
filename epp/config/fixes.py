"""Repairing what findings know how to repair; the document means the same afterwards, or it stays as it was."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from epp.config.edits import Span, Text, applied, lines_added
from epp.config.loaded import ConfigSource, LoadedConfig
from epp.config.yaml_nodes import Place
from epp.errors import ConfigError, Edit, Finding

Load = Callable[[ConfigSource], LoadedConfig]


class Fixed(NamedTuple):
    """A document after its repair."""

    text: str
    repaired: tuple[Finding, ...]
    """What is no longer found."""


def fix(text: str, name: str, load: Load) -> Fixed:
    """Repair a document.

    Args:
        text: the document.
        name: how findings call it.
        load: loads a document.

    Raises:
        ConfigError: the document cannot be used; nothing is repaired before a person has corrected it.
    """
    before = load(ConfigSource.from_text(text, name))
    wanted = [finding for finding in before.findings if finding.edit is not None]
    if not wanted:
        return Fixed(text, ())
    together = _tried(text, wanted, before, name, load)
    if together is not None:
        return Fixed(together, tuple(wanted))
    repaired: list[Finding] = []
    for code in dict.fromkeys(finding.code for finding in wanted):  # one cannot be done: the others are tried by themselves
        current = load(ConfigSource.from_text(text, name))
        some = [finding for finding in current.findings if finding.edit is not None and finding.code == code]
        edited = _tried(text, some, before, name, load)
        if edited is not None:
            text = edited
            repaired += some
    return Fixed(text, tuple(repaired))


def _tried(text: str, findings: Sequence[Finding], before: LoadedConfig, name: str, load: Load) -> str | None:
    """The text with these repaired; None if one is written in a way that is not touched, or the meaning would change."""
    renamed = _renamed(before) if any(finding.code == "WRN004" for finding in findings) else {}
    spans = _spans(Text(text), findings, renamed)
    if spans is None:
        return None
    try:
        edited = applied(text, spans)
        after = load(ConfigSource.from_text(edited, name))
    except (ConfigError, ValueError):
        return None
    return edited if _means_the_same(before, after) else None


def _means_the_same(before: LoadedConfig, after: LoadedConfig) -> bool:
    """Nothing changes but the names of plugins that are called by their type, and the form of parameters that moved."""
    moved = {
        plugin.path
        for plugin in before.plugins
        for finding in before.findings
        if finding.edit is Edit.MOVE and finding.path.startswith(f"{plugin.path}.parameters.")
    }
    meaning = _meaning(before, moved)
    for old, new in _renamed(before).items():
        meaning = meaning.replace(json.dumps(old), json.dumps(new))
    return meaning == _meaning(after, moved)


def _meaning(config: LoadedConfig, moved: Collection[str]) -> str:
    """All that a configuration means, without the parameters of the plugins at these paths."""
    plugins = [
        {
            "name": plugin.name,
            "type": plugin.type.type,
            "parameters": None if plugin.path in moved else plugin.params.model_dump(mode="python"),
            "needs": sorted(plugin.needs),
            "active": plugin.active,
        }
        for plugin in config.plugins
    ]
    sections = {name: value for name, value in config.effective.items() if name != "plugins"}
    parts = [plugins, sections, config.handler, config.parsers, config.sources, config.discovery, config.detector]
    return json.dumps(parts, sort_keys=True, default=str)


def _renamed(config: LoadedConfig) -> dict[str, str]:
    """Plugins that have no name but their older type's: that name → today's type, which becomes their name."""
    unnamed = {f"{plugin.path}.type" for plugin in config.plugins if plugin.spec is not None and not plugin.spec.gives("name")}
    return {
        str(finding.value): finding.new_text
        for finding in config.findings
        if finding.code == "WRN004" and finding.path in unnamed and finding.edit is Edit.REPLACE
    }


def _spans(text: Text, findings: Sequence[Finding], renamed: Mapping[str, str]) -> list[Span] | None:
    """The edits of all findings; None if one is written in a way that is not touched."""
    spans = [span for old, new in renamed.items() for span in text.values_replaced(old, new)]
    for finding in findings:
        found = _edits(text, finding)
        if found is None:
            return None
        spans += found
    moves: dict[str, dict[Place, tuple[str, str]]] = defaultdict(dict)
    for finding in findings:
        if finding.edit is Edit.MOVE:
            section, _, key = finding.new_text.partition(".")
            moves[finding.path.rpartition(".")[0]][Place(finding.line, finding.column)] = (section, key)
    for group in moves.values():
        moved = text.moved(group)
        if moved is None:
            return None
        spans += moved
    added = [finding.new_text for finding in findings if finding.edit is Edit.ADD_LINE]
    return [*spans, lines_added(text, added)] if added else spans


def _edits(text: Text, finding: Finding) -> list[Span] | None:
    """The edits of a finding that needs no other."""
    place = Place(finding.line, finding.column)
    match finding.edit:
        case Edit.REPLACE if finding.value is None:
            span = text.key_replaced(place, finding.new_text)
        case Edit.REPLACE:
            span = text.replaced(place, str(finding.value), finding.new_text)
        case Edit.DROP_ITEM:
            span = text.item_dropped(place)
        case Edit.LIST_PARSER:
            return text.parser_listed(place, is_top=finding.path == "parser")
        case _:
            return []
    return None if span is None else [span]
