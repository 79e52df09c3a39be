"""What there is to say about a plugin type, gathered from its descriptor, its parameter model and its class."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from epp.config.instantiate import instantiate
from epp.config.load import load_config
from epp.config.loaded import ConfigSource
from epp.errors import EppError
from epp.framework.data import Consumes, DataKey, Scope
from epp.framework.registry import PluginType, Registry
from epp.plugin_pages.example import example
from epp.plugin_pages.parameters import Parameter, parameters

_SECTION = re.compile(r"([A-Z][A-Za-z ]*): (.*)")
_TOLD_ELSEWHERE = frozenset({"Parameters", "Args", "Extension point"})
"""Sections of docstrings that say again what the page has from the code."""


@dataclass(frozen=True, slots=True)
class Page:
    """All facts about one type, in the order in which they are shown."""

    type: str
    summary: str
    facts: tuple[tuple[str, str], ...]
    """(label, value); names of code in backticks."""
    introduction: str
    """Paragraphs of the class's docstring."""
    notes: tuple[tuple[str, str], ...]
    """(heading, text) of the docstring: formula, missing data, source."""
    parameters: tuple[Parameter, ...]
    example: str
    """A whole configuration document."""


def page(plugin_type: PluginType, registry: Registry) -> Page:
    """The page of a type.

    Args:
        plugin_type: to be described.
        registry: for the other types of its example.
    """
    document = example(plugin_type, registry)
    introduction, notes = _sections(_docstring(plugin_type, registry, document))
    return Page(
        plugin_type.type,
        plugin_type.summary,
        tuple(_facts(plugin_type, registry)),
        introduction,
        notes,
        tuple(parameters(plugin_type.params)),
        document,
    )


def _facts(plugin_type: PluginType, registry: Registry) -> Iterator[tuple[str, str]]:
    names = [f"`{alias.name}`{' (deprecated)' if alias.deprecated else ''}" for alias in plugin_type.aliases]
    names += [f"`{name}` (deprecated)" for name in registry.former_names(plugin_type)]
    if names:
        yield "also named", ", ".join(names)
    yield "roles", ", ".join(sorted(plugin_type.roles))
    yield "package", f"{plugin_type.package} {plugin_type.version}".rstrip()
    if not plugin_type.is_built:
        yield "state", f"not built yet{f' (waits for {plugin_type.wait})' if plugin_type.wait else ''}"
    if plugin_type.experimental:
        yield "maturity", "experimental; `--allow-experimental-plugins=false` refuses it"
    if plugin_type.gate:
        yield "feature gate", f"`{plugin_type.gate}`"
    if plugin_type.per_snapshot:
        yield "runs", "once for each change of endpoints or their metrics, as it needs no request"
    if plugin_type.consumes:
        yield "reads data", ", ".join(map(_consumed, plugin_type.consumes))
    if plugin_type.produces:
        yield "writes data", ", ".join(f"`{key.name}`, {_scope(key)}" for key in plugin_type.produces)
    reads = plugin_type.reads
    if reads.request_headers:
        yield "reads request headers", _names(reads.request_headers)
    if plugin_type.header_strip:
        yield "owns request headers", f"{_names(plugin_type.header_strip)}: a client's own are removed"


def _names(names: frozenset[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def _consumed(needs: Consumes) -> str:
    more = [] if needs.required and needs.key.scope is not Scope.METRICS else ["optional"]
    if needs.key.producer:
        more.insert(0, f"from `{needs.key.producer}`")
    if needs.when is not None:
        more.append("depending on the parameters")
    return f"`{needs.key.name}`" + (f" ({', '.join(more)})" if more else "")


def _scope(key: DataKey[object]) -> str:
    scopes = {Scope.REQUEST: "of the request", Scope.ENDPOINT: "of each endpoint", Scope.METRICS: "a metric of each endpoint"}
    return scopes[key.scope]


def _docstring(plugin_type: PluginType, registry: Registry, document: str) -> str:
    """That of its class, which an instance tells; of the module where none can be made."""
    if plugin_type.factory is None:
        return ""
    try:
        instances = instantiate(load_config(ConfigSource.from_text(document), registry))
    except EppError:
        instance = None
    else:
        instance = instances.by_name.get(plugin_type.type)
    described = type(instance) if instance is not None else sys.modules.get(getattr(plugin_type.factory, "__module__", ""))
    return inspect.cleandoc(described.__doc__ or "") if described is not None else ""


def _sections(text: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Introduction and headed notes of a docstring."""
    introduction: list[str] = []
    notes: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if headed := _SECTION.fullmatch(line):
            notes.append((headed[1], [headed[2]]))
        elif notes and line.strip():
            notes[-1][1].append(line.strip())
        elif not notes:
            introduction.append(line)
    kept = [(heading, " ".join(lines)) for heading, lines in notes if heading not in _TOLD_ELSEWHERE]
    return "\n".join(introduction).strip(), tuple(kept)
