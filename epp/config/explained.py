"""What a configuration does, in sentences."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from epp.config.loaded import LoadedConfig, LoadedPlugin, LoadedProfile
from epp.framework.interfaces import Role

_WIDTH = 100
_BEFORE = (
    (Role.DIRECT_RESPONDER, "Some requests are answered without a model server"),
    (Role.REQUEST_HEADER, "Request headers are read"),
    (Role.BODY_REWRITER, "Request bodies may be changed"),
    (Role.SCREENER, "Candidates are screened, whatever the profile"),
    (Role.DATA_PRODUCER, "Data about the request is produced"),
    (Role.ADMITTER, "The request may be refused"),
)
_AFTER = (
    (Role.PRE_REQUEST, "Told of each decision"),
    (Role.RESPONSE_RECEIVED, "Told of response headers"),
    (Role.RESPONSE_STREAMING, "Told of pieces of responses"),
    (Role.RESPONSE_COMPLETE, "Told of the end of requests"),
)


def explained(config: LoadedConfig) -> str:
    """Paragraphs: where endpoints and metrics come from, how a request goes through the configuration, what was added."""
    paragraphs = [
        *_sources(config),
        f"Requests are read by the first of these parsers that takes their path: {_names(config, config.parsers)}.",
        *_admission(config),
        *(_hooks(config, role, words) for role, words in _BEFORE),
        *_profiles(config),
        *(_hooks(config, role, words) for role, words in _AFTER),
        *_rest(config),
    ]
    lines = [
        textwrap.fill(text, _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        for text in paragraphs
        if text
    ]
    return "\n".join(lines) + "\n"


def _sources(config: LoadedConfig) -> Iterator[str]:
    if config.discovery is not None:
        yield f"Endpoints are found by {_of(config.plugin(config.discovery))}"
    else:
        yield "Endpoints come from the command line (--endpoint) or the cluster."
    for source in config.sources:
        if source.active:
            read = f", read by {', '.join(source.extractors)}" if source.extractors else ", which nothing reads"
            yield f"Of every endpoint, {source.name} is asked again and again{read}."
        else:
            yield f"The source {source.name} is not asked: the gate dataLayer is off."


def _admission(config: LoadedConfig) -> Iterator[str]:
    if config.flow_control is not None:
        yield "While the pool is full, requests wait in queues by priority and flow (flowControl)."
    elif config.detector is not None:
        yield f"While {config.detector} finds the pool full, requests of negative priority are refused with 429."


def _profiles(config: LoadedConfig) -> Iterator[str]:
    names = ", ".join(f'"{profile.name}"' for profile in config.profiles)
    handler = config.plugin(config.handler)
    yield f"Which scheduling profiles run ({names}), and whose pick counts, is decided by {_of(handler)}"
    for profile in config.profiles:
        yield from _profile(config, profile)


def _profile(config: LoadedConfig, profile: LoadedProfile) -> Iterator[str]:
    plugins = [(config.plugin(name), weight) for name, weight in profile.plugins]
    yield f'Profile "{profile.name}":'
    filters = [plugin for plugin, _ in plugins if plugin.has(Role.FILTER)]
    for number, plugin in enumerate(filters):
        yield f"  {'first' if not number else 'then'} filter by {_of(plugin)}"
    scorers = [(plugin, weight) for plugin, weight in plugins if plugin.has(Role.SCORER)]
    total = sum(abs(weight) for _, weight in scorers)
    for plugin, weight in scorers:
        share = f", {abs(weight) / total:.0%} of the total" if total else ""
        yield f"  rate by {plugin.name} × {weight:g}{share}: {_summary(plugin)}"
    if not scorers:
        yield "  rate all alike"
    picker = next((plugin for plugin, _ in plugins if plugin.has(Role.PICKER)), None)
    if picker is not None:
        yield f"  pick by {_of(picker)}"


def _hooks(config: LoadedConfig, role: Role, words: str) -> str:
    found = [plugin for plugin in config.plugins if plugin.active and plugin.has(role) and plugin.name != config.handler]
    if not found:
        return ""
    return f"{words}: {', '.join(plugin.name for plugin in found)}."


def _rest(config: LoadedConfig) -> Iterator[str]:
    inactive = [plugin.name for plugin in config.plugins if not plugin.active]
    if inactive:
        yield f"Inactive, because a feature gate is off: {', '.join(inactive)}."
    if config.added:
        yield f"Not in the document, but added: {', '.join(config.added)}."


def _names(config: LoadedConfig, names: tuple[str, ...]) -> str:
    return ", ".join(config.plugin(name).name for name in names) or "none"


def _of(plugin: LoadedPlugin) -> str:
    return f"{plugin.name}: {_summary(plugin)}"


def _summary(plugin: LoadedPlugin) -> str:
    """What the type does, as the end of a sentence."""
    summary = plugin.type.summary.rstrip(".")
    return f"{summary[:1].lower()}{summary[1:]}."
