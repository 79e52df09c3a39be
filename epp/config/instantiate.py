"""Creating the plugins of a loaded configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from epp.config.loaded import Instances, LoadedConfig, LoadedPlugin, LoadFlags
from epp.config.parameters import locate
from epp.config.report import Report
from epp.errors import EppError
from epp.framework.handle import PluginContext, UnknownPluginError
from epp.framework.interfaces import DataSource, Extractor
from epp.framework.notifications import FollowsObjects, ObjectKind, TellsOfObjects

MakeContext = Callable[[LoadedPlugin, Mapping[str, object]], PluginContext]
"""(plugin, the instances it may refer to) → what its factory receives."""


def instantiate(
    config: LoadedConfig, make_context: MakeContext | None = None, carried: Mapping[str, object] = MappingProxyType({})
) -> Instances:
    """Create every plugin whose type is built, each after those it refers to.

    Args:
        config: from ``load_config``.
        make_context: gives clocks, randomness and runtime; default: a context without a runtime.
        carried: instances that are there already, by name, and are not created again.

    Raises:
        ConfigError: factories refused their values; with one finding for each.
    """
    report = Report(config.source.name, strict=config.flags.strict)
    plugins = {plugin.name: plugin for plugin in config.plugins}
    if make_context is None:
        make_context = plain_context([profile.name for profile in config.profiles], config.flags)
    created = create_all(plugins, config.creation_order, make_context, report, carried)
    _check_sources(config, created, report)
    _check_extractors(config, created, report)
    report.raise_if_wrong()
    return Instances(config, {name: created[name] for name in plugins if name in created}, report.findings)


def plain_context(profiles: Iterable[str], flags: LoadFlags) -> MakeContext:
    """Contexts with real clocks and randomness, but without a runtime."""
    names = tuple(profiles)

    def make(plugin: LoadedPlugin, references: Mapping[str, object]) -> PluginContext:
        return PluginContext(
            name=plugin.name,
            type=plugin.type.type,
            plugins=references,
            profiles=names,
            metrics_flags=flags.metrics_flags,
        )

    return make


def create_all(
    plugins: Mapping[str, LoadedPlugin],
    order: Iterable[str],
    make_context: MakeContext,
    report: Report,
    carried: Mapping[str, object] = MappingProxyType({}),
) -> dict[str, object]:
    """Instances by name; failures and warnings go to the report, and what needs a failed plugin is not tried."""
    created: dict[str, object] = dict(carried)
    declared = {name: plugin.type.type for name, plugin in plugins.items()}
    for name in order:
        plugin = plugins.get(name)
        if plugin is None or plugin.type.factory is None or name in carried:
            continue
        if all(other in created for other in plugin.needs if _can_be_created(plugins.get(other))):
            context = make_context(plugin, {other: created[other] for other in plugin.needs if other in created})
            context.writers = _writers(plugin, plugins)
            context.declared = declared
            _create(plugin, created, context, report)
    return created


def _can_be_created(plugin: LoadedPlugin | None) -> bool:
    return plugin is not None and plugin.is_built


def _writers(plugin: LoadedPlugin, plugins: Mapping[str, LoadedPlugin]) -> dict[str, str]:
    """Which of the plugins that it needs writes which data."""
    known = [plugins[name] for name in plugin.needs if name in plugins]
    return {key.name: other.name for other in known for key in other.type.produces}


def _create(plugin: LoadedPlugin, created: dict[str, object], context: PluginContext, report: Report) -> None:
    assert plugin.type.factory is not None
    try:
        created[plugin.name] = plugin.type.factory(context, plugin.params)
    except Exception as error:  # noqa: BLE001 — the factory may be another package's: one plugin's failure is one finding
        if isinstance(error, UnknownPluginError) and (report.has_errors or plugin.needs - created.keys()):
            return  # it refers to a plugin that is wrong or not built, which was said
        cause = str(error) if isinstance(error, (ValueError, EppError)) else f"{type(error).__name__}: {error}"
        message = f"failed to create plugin '{plugin.name}' (type: {plugin.type.type}): {cause}"
        path = f"{plugin.path}.parameters" if plugin.spec is not None else plugin.name
        fix = f"see `epp plugins {plugin.type.type}`"
        report.error("CFG056", path, message, fix, at=plugin.place("parameters"))
    for parameter, sentence in context.warnings:
        path, place = locate(plugin, parameter.split("."))
        report.warn("WRN012", path, sentence, at=place)


def _check_sources(config: LoadedConfig, created: Mapping[str, object], report: Report) -> None:
    """Each kind of Kubernetes objects has one source, as their extractors would hear all twice."""
    first: dict[ObjectKind, str] = {}
    for source in config.sources:
        instance = created.get(source.name)
        if not isinstance(instance, TellsOfObjects):
            continue
        other = first.setdefault(instance.objects, source.name)
        if other != source.name:
            plugin = config.plugin(source.name)
            message = f'the sources "{other}" and "{source.name}" both tell of {instance.objects}'
            report.error(
                "CFG085", f"{plugin.path}.parameters", message, "merge their extractors", value=source.name, at=plugin.place()
            )


def _check_extractors(config: LoadedConfig, created: Mapping[str, object], report: Report) -> None:
    for source in config.sources:
        instance = created.get(source.name)
        if not isinstance(instance, DataSource):
            continue
        for name in source.extractors:
            extractor = created.get(name)
            if isinstance(extractor, Extractor | FollowsObjects) and extractor.input != instance.output:
                plugin = config.plugin(name)
                message = (
                    f'the extractor "{name}" reads {extractor.input}, but the source "{source.name}" gives {instance.output}'
                )
                report.error("CFG084", f"{plugin.path}.type", message, "use another extractor", value=name, at=plugin.place())
