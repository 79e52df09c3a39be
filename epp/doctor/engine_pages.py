"""Reading the model servers' pages as the picker reads them: by the sources and extractors of its own configuration."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from epp.config.instantiate import instantiate
from epp.config.load import load_config
from epp.config.loaded import ConfigSource, LoadFlags
from epp.datalayer.scrape import SourceBinding
from epp.doctor.catalogue import finding
from epp.doctor.documents import mapping, mappings
from epp.doctor.engines import EngineView, EventPort
from epp.doctor.known import Picker
from epp.doctor.probes import Pages, UnreadableError, event_port
from epp.errors import ConfigError, Finding
from epp.framework.handle import MetricsFlags
from epp.framework.interfaces import ChoosesPath, TakesPaths
from epp.framework.types import UNSCRAPED, Endpoint
from epp.pool.build import data_sources
from epp.process.plugin_types import build_registry

_TEXT = "prometheus-text"
_AT_ONCE = 32
"""Servers that are looked at side by side."""


@dataclass(frozen=True, slots=True)
class EngineReading:
    """How metrics pages are read."""

    bindings: Sequence[SourceBinding]
    findings: Sequence[Finding] = ()

    async def close(self) -> None:
        """Close all connections."""
        for binding in self.bindings:
            await binding.source.close()


def engine_reading(source: str, effective: Mapping[str, Any] | None, flags: MetricsFlags) -> EngineReading:
    """The sources of metrics pages of a configuration.

    Args:
        source: where the document came from, for messages.
        effective: the completed document; None = what is built in.
        flags: scheme, path and port, which the document does not have.
    """
    if effective is None:
        return EngineReading(_bindings(ConfigSource.builtin(), flags))
    try:
        return EngineReading(_bindings(ConfigSource.from_text(json.dumps(_data_layer(effective)), source), flags))
    except ConfigError as error:
        first = error.findings[0]
        message = f"the picker's sources of metrics cannot be made here: {first.code}: {first.message}"
        fix = "run `epp doctor` where the picker runs, with the packages and files that it has"
        built_in = _bindings(ConfigSource.builtin(), flags)
        return EngineReading(built_in, [finding("ENG013", source, first.path, message, fix)])


def _data_layer(effective: Mapping[str, Any]) -> dict[str, object]:
    """The part of the document that reads endpoints, as a document of its own."""
    sources = mappings(mapping(effective.get("dataLayer") or effective.get("data")).get("sources"))
    names = {source.get("pluginRef") for source in sources}
    names.update(entry.get("pluginRef") for source in sources for entry in mappings(source.get("extractors")))
    return {
        "apiVersion": effective.get("apiVersion"),
        "kind": effective.get("kind"),
        "plugins": [plugin for plugin in mappings(effective.get("plugins")) if plugin.get("name") in names],
        "dataLayer": {"injectDefaults": False, "sources": sources},
    }


def _bindings(source: ConfigSource, flags: MetricsFlags) -> list[SourceBinding]:
    registry, _ = build_registry()
    instances = instantiate(load_config(source, registry, LoadFlags(metrics_flags=flags)))
    bindings = [binding for binding in data_sources(instances) if binding.source.output == _TEXT and binding.extractors]
    for binding in bindings:
        for entry in binding.extractors:
            if isinstance(binding.source, TakesPaths) and isinstance(entry.extractor, ChoosesPath):
                binding.source.take_paths(entry.extractor)
    return bindings


async def look_at_engines(
    endpoints: Sequence[tuple[Endpoint, bool]], reading: EngineReading, picker: Picker, pages: Pages, timeout_s: float
) -> list[EngineView]:
    """Look at all servers.

    Args:
        endpoints: each with whether the picker reads its page at the moment.
        reading: how their pages are read.
        picker: which ports of KV events it expects.
        pages: reads a page for its clock; must not send the picker's token.
        timeout_s: of each probe of a port.
    """
    gate = asyncio.Semaphore(_AT_ONCE)

    async def look(endpoint: Endpoint, is_read: bool) -> EngineView:
        async with gate:
            view = replace(await _read(endpoint, reading), is_read_by_picker=is_read)
            skew_s = await _skew_s(endpoint, pages) if view.metrics is not None else None
            return replace(view, skew_s=skew_s, events=await _events(endpoint, picker, timeout_s))

    return list(await asyncio.gather(*(look(endpoint, is_read) for endpoint, is_read in endpoints)))


async def _read(endpoint: Endpoint, reading: EngineReading) -> EngineView:
    metrics, error = UNSCRAPED, ""
    problems: list[str] = []
    is_had = False
    for binding in reading.bindings:
        try:
            page = await binding.source.fetch(endpoint)
        except OSError as problem:
            error = error or str(problem)
            continue
        is_had = True
        for entry in binding.extractors:
            try:
                extraction = entry.extractor.extract(page, endpoint, metrics)
            except Exception as defect:  # noqa: BLE001 — a plugin that raises hides nothing of the others
                problems.append(f"{entry.type} raised {type(defect).__name__}: {defect}")
                continue
            metrics = extraction.metrics
            problems += extraction.problems
    if not is_had:
        return EngineView(endpoint, error=error or "the configuration has no source of metrics pages")
    return EngineView(endpoint, metrics, [*problems, error] if error else problems)


async def _skew_s(endpoint: Endpoint, pages: Pages) -> float | None:
    """By whatever page there is: every answer has a date."""
    try:
        answer = await pages.get(f"http://{endpoint.host_port}/health", accept=tuple(range(200, 600)))
    except UnreadableError:
        return None  # a server that speaks TLS or gRPC only; that its metrics can be read is checked elsewhere
    return answer.skew_s


async def _events(endpoint: Endpoint, picker: Picker, timeout_s: float) -> EventPort | None:
    ports = {settings.port for settings in picker.kv_events if settings.connects}
    seen = [await event_port(endpoint.address, port, timeout_s) for port in sorted(ports)]
    return next((port for port in seen if port is not EventPort.ZEROMQ), EventPort.ZEROMQ if seen else None)
