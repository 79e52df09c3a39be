"""Loading a configuration: read, decode, complete, check."""

from __future__ import annotations

import dataclasses
import hashlib
import stat

from epp.config import data_layer, defaults, dependencies, effective, flow_control, handler, plugin_list, profiles
from epp.config.decode import decode_document
from epp.config.draft import Draft, DraftPlugin
from epp.config.environment import gates_of
from epp.config.header import API_VERSION, POOLS_KIND, check_header, kind_of, read_gates, refuse_manifest
from epp.config.instantiate import create_all, plain_context
from epp.config.loaded import ConfigSource, LoadedConfig, LoadedPlugin, LoadedProfile, LoadedSource, LoadFlags
from epp.config.placeholders import find_placeholders
from epp.config.report import Report, UnreadableError
from epp.config.schema import Headed
from epp.config.yaml_nodes import MapNode
from epp.config.yaml_read import MAX_BYTES, read_nodes
from epp.errors import ConfigError
from epp.framework.registry import Gate, Registry


def load_config(source: ConfigSource, registry: Registry, flags: LoadFlags | None = None) -> LoadedConfig:
    """Load a document; nothing is contacted, and plugins are created only to see whether they can be.

    Args:
        source: where the document is.
        registry: the plugin types that exist.
        flags: process flags that matter here.

    Raises:
        ConfigError: with every finding of the document, if one of them is an error.
    """
    flags = flags if flags is not None else LoadFlags()
    report = Report(source.name, strict=flags.strict)
    try:
        draft = _draft(source, registry, flags, report)
    except UnreadableError:
        raise ConfigError(report.findings) from None
    order = _complete(draft)
    if report.has_errors:
        _judge_factories(draft, order)
    report.raise_if_wrong()
    _leave_out_unbuilt(draft)
    return _loaded(source, draft, order)


def _draft(source: ConfigSource, registry: Registry, flags: LoadFlags, report: Report) -> Draft:
    data = read_source(source, report)
    if not data and not source.may_be_empty:
        raise report.stop("CFG001", "", f"{source.path} is empty", "wait until it is written, or correct it")
    root = read_nodes(data or defaults.BUILTIN_DOCUMENT, report)
    refuse_manifest(root, report)
    _refuse_pools(root, report)
    document = dataclasses.replace(decode_document(root, report), is_builtin=not data)
    check_header(document, report)
    find_placeholders(root, report)
    gates = read_gates(document, report) | dict.fromkeys(gates_of(flags.environ, report), True)
    return Draft(document, registry, flags, report, gates, digest=hashlib.sha256(data).hexdigest())


def _refuse_pools(root: MapNode, report: Report) -> None:
    """A pools file is no configuration, and nothing in it is worth a finding here.

    Raises:
        UnreadableError: it is one.
    """
    if kind_of(root) == POOLS_KIND:
        check_header(Headed(node=root, kind=POOLS_KIND, api_version=API_VERSION), report)
        raise UnreadableError


def read_source(source: ConfigSource, report: Report) -> bytes:
    """The bytes of a document.

    Raises:
        UnreadableError: they cannot be read, or are too many.
    """
    if source.path is None:
        return source.data
    try:
        if not stat.S_ISREG(source.path.stat().st_mode):
            reason = "Is a directory" if source.path.is_dir() else "not a regular file"
            raise report.stop("CFG001", "", f"cannot read {source.path}: {reason}", "name a file")
        with source.path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            size = source.path.stat().st_size
            fix = "a ConfigMap holds no more than 1 MiB"
            raise report.stop("CFG002", "", f"the document has {size} bytes; the limit is {MAX_BYTES}", fix)
    except OSError as error:
        raise report.stop(
            "CFG001", "", f"cannot read {source.path}: {error.strerror}", "check the path and its rights"
        ) from None
    return data


def _complete(draft: Draft) -> list[str]:
    """Everything from the list of plugins to the order of their creation."""
    plugin_list.read_plugins(draft)
    profiles.read_profiles(draft)
    handler.check_handler(draft)
    profiles.complete_profiles(draft)
    handler.check_profile_references(draft)
    data_layer.read_data_layer(draft)
    defaults.add_policies(draft)
    flow_control.read_flow_control(draft)
    flow_control.read_detector(draft)
    flow_control.check_metrics_for_detector(draft)
    data_layer.read_parsers(draft)
    dependencies.connect_plugins(draft)
    dependencies.apply_gates(draft)
    if not draft.report.has_errors:  # with errors, what seems unused may be meant where the error is
        profiles.report_no_plugins(draft)
        dependencies.report_unused(draft)
    return dependencies.creation_order(draft)


def _judge_factories(draft: Draft, order: list[str]) -> None:
    """Let also the factories say what they refuse, so that one run shows everything."""
    plugins = {name: _plugin(draft, draft.plugins[name]) for name in order}
    good = {name: plugin for name, plugin in plugins.items() if plugin is not None}
    create_all(good, order, plain_context((), draft.flags), draft.report)


def _leave_out_unbuilt(draft: Draft) -> None:
    """To serve, what only the defaults ask for is left out where it does not exist."""
    if not draft.flags.for_serve:
        return
    missing = [name for name, plugin in draft.plugins.items() if plugin.type is not None and not plugin.type.is_built]
    for name in missing:
        del draft.plugins[name]
    for profile in draft.profiles:
        profile.refs = [(plugin, weight) for plugin, weight in profile.refs if plugin.name not in missing]
    draft.sources = [source for source in draft.sources if source.name not in missing]
    for source in draft.sources:
        source.extractors = [name for name in source.extractors if name not in missing]
    draft.parsers = [name for name in draft.parsers if name not in missing]
    draft.detector = draft.detector if draft.detector in draft.plugins else None
    if missing:
        message = f"these defaults are not built yet and are left out: {', '.join(missing)}"
        draft.report.inform("INF002", "", message)


def _plugin(draft: Draft, plugin: DraftPlugin) -> LoadedPlugin | None:
    if plugin.type is None or plugin.params is None:
        return None
    declared = plugin.spec is not None and not draft.document.is_builtin
    needs = frozenset(draft.reads_from.get(plugin.name, ()))
    return LoadedPlugin(plugin.name, plugin.type, plugin.params, needs, declared, plugin.active, plugin.spec)


def _loaded(source: ConfigSource, draft: Draft, order: list[str]) -> LoadedConfig:
    document = effective.effective_document(draft)
    plugins = [_plugin(draft, plugin) for plugin in draft.plugins.values()]
    return LoadedConfig(
        document=draft.document,
        source=source,
        flags=draft.flags,
        plugins=tuple(plugin for plugin in plugins if plugin is not None),
        creation_order=tuple(name for name in order if name in draft.plugins),
        profiles=tuple(
            LoadedProfile(profile.name, tuple((plugin.name, weight) for plugin, weight in profile.refs), profile.picker)
            for profile in draft.profiles
        ),
        handler=draft.handler,
        parsers=tuple(draft.parsers),
        sources=tuple(LoadedSource(source.name, tuple(source.extractors), source.active) for source in draft.sources),
        discovery=draft.discovery,
        detector=draft.detector,
        flow_control=draft.document.flow_control if draft.gates[Gate.FLOW_CONTROL] else None,
        gates=dict(draft.gates),
        findings=draft.report.findings,
        effective=document,
        sha256=effective.fingerprint(document),
        digest=draft.digest,
    )
