"""The document while it is being completed: plugins by name, and how references to them are resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from epp.config.loaded import LoadFlags
from epp.config.report import NOWHERE, Report
from epp.config.schema import Document, PluginSpec, SchedulingProfile
from epp.config.wording import show, suggest, with_page
from epp.config.yaml_nodes import Place
from epp.framework.interfaces import Role
from epp.framework.params import Params
from epp.framework.registry import PluginType, Registry


@dataclass(slots=True)
class DraftPlugin:
    """One plugin. Without ``type`` or ``params`` an error was reported, and references to it are not judged further."""

    name: str
    type: PluginType | None
    params: Params | None
    spec: PluginSpec | None = None
    """None: added by the defaults."""
    document: dict[str, Any] = field(default_factory=dict)
    """Its parameters as written."""
    active: bool = True

    @property
    def path(self) -> str:
        """``plugins[2]``, or the name if it is not declared."""
        return self.spec.path if self.spec is not None else self.name

    def has(self, role: Role) -> bool:
        """The type occupies this slot."""
        return self.type is not None and role in self.type.roles

    def is_type(self, name: str) -> bool:
        """The type has this name or alias."""
        return self.type is not None and name in self.type.names

    def place(self, name: str = "type") -> Place:
        """Where a key of its declaration is."""
        return self.spec.place(name) if self.spec is not None else NOWHERE


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a reference must lead to."""

    roles: frozenset[Role]
    """One of these; empty = any."""
    words: str
    """How findings call it, with an article."""
    undefined: str
    """Code if no plugin has this name."""
    wrong: str
    """Code if the plugin is something else."""
    creates: bool = False
    """The name of a registered type is enough; the plugin is added then."""
    referrer: str = ""
    """Plugin type whose parameters refer; findings lead to its page."""


@dataclass(slots=True)
class DraftProfile:
    """A scheduling profile; of its references those that could be resolved."""

    name: str
    path: str
    section: SchedulingProfile | None = None
    refs: list[tuple[DraftPlugin, float]] = field(default_factory=list)
    picker: str = ""
    is_complete: bool = True
    """False: a reference could not be resolved."""

    def place(self) -> Place:
        """Where its name is."""
        return self.section.place("name") if self.section is not None else NOWHERE


@dataclass(slots=True)
class DraftSource:
    """A data source with its extractors."""

    name: str
    extractors: list[str] = field(default_factory=list)
    active: bool = True


@dataclass(slots=True)
class Draft:
    """Everything known so far."""

    document: Document
    registry: Registry
    flags: LoadFlags
    report: Report
    gates: Mapping[str, bool]
    plugins: dict[str, DraftPlugin] = field(default_factory=dict)
    """By name: declared ones in order, then what the defaults add."""
    profiles: list[DraftProfile] = field(default_factory=list)
    handler: str = ""
    sources: list[DraftSource] = field(default_factory=list)
    parsers: list[str] = field(default_factory=list)
    discovery: str | None = None
    detector: str | None = None
    reads_from: dict[str, set[str]] = field(default_factory=dict)
    """Plugin → plugins that must exist before it."""
    referred: set[str] = field(default_factory=set)
    """Plugins that some reference names."""
    digest: str = ""
    """Of the document's bytes."""

    @property
    def knows_all_plugins(self) -> bool:
        """False: an entry of ``plugins`` could not be read, so that an unknown name may well be its."""
        return not self.report.is_incomplete("plugins")

    def declared(self) -> list[DraftPlugin]:
        """The plugins of the document."""
        return [plugin for plugin in self.plugins.values() if plugin.spec is not None]

    def of_type(self, type_name: str) -> list[DraftPlugin]:
        """Plugins of a type, declared ones first."""
        return [plugin for plugin in self.plugins.values() if plugin.is_type(type_name)]

    def with_role(self, role: Role) -> list[DraftPlugin]:
        """Plugins that occupy a slot, declared ones first."""
        return [plugin for plugin in self.plugins.values() if plugin.has(role)]

    def add(self, type_name: str, name: str = "", document: dict[str, Any] | None = None) -> DraftPlugin | None:
        """The plugin that the defaults want: the declared one of this name, else a new one with these parameters.

        Returns:
            None if the type does not exist, if it needs parameters, or if the name belongs to another type (an error).
        """
        name = name or type_name
        plugin_type = self.registry.get(type_name)
        existing = self.plugins.get(name)
        if existing is not None:
            if existing.type is None or existing.type is plugin_type:
                return existing
            self._clash(existing, type_name)
            return None
        if plugin_type is None:
            return None
        try:
            params = plugin_type.params.decode(document or {})
        except ValueError:
            return None
        self.plugins[name] = plugin = DraftPlugin(name, plugin_type, params, document=document or {})
        return plugin

    def _clash(self, existing: DraftPlugin, type_name: str) -> None:
        assert existing.type is not None
        message = (
            f"the name {show(existing.name)} is needed for a plugin of type {type_name} that is always there, "
            f"but belongs to one of type {existing.type.type}"
        )
        key = "name" if existing.spec is not None and existing.spec.gives("name") else "type"
        path = f"{existing.path}.{key}"
        self.report.error("CFG058", path, message, "choose another name", value=existing.name, at=existing.place(key))

    def resolve(self, name: str, path: str, at: Place, wanted: Wanted) -> DraftPlugin | None:
        """The plugin that a reference names; None if there is none, which was reported."""
        plugin = self.plugins.get(name)
        if plugin is None and wanted.creates and self.registry.get(name) is not None:
            plugin = self.add(name)
        if plugin is None:
            if self.knows_all_plugins:
                message, fix = self.undefined(name, wanted)
                fix = with_page(fix, wanted.referrer) if wanted.referrer else fix
                self.report.error(wanted.undefined, path, message, fix, value=name, at=at)
            return None
        if plugin.type is None:
            return None
        if wanted.roles and not wanted.roles & plugin.type.roles:
            message = f"the plugin {show(name)} of type {plugin.type.type} is not {wanted.words}, but {_roles(plugin.type)}"
            fix = self._other(name, wanted)
            fix = with_page(fix, wanted.referrer) if wanted.referrer else fix
            self.report.error(wanted.wrong, path, message, fix, value=name, at=at)
            return None
        self.referred.add(name)
        return plugin

    def undefined(self, name: str, wanted: Wanted) -> tuple[str, str]:
        """Message and fix for a name that no plugin has."""
        renamed = [plugin for plugin in self.declared() if plugin.is_type(name)]
        if renamed:
            message = f"no plugin is named {show(name)}; the one of that type is declared as `{renamed[0].name}`"
            return message, f"write {renamed[0].name}"
        fits = self._fitting(wanted)
        if self.registry.get(name) is not None:
            return f"no plugin is named {show(name)}", f"declare it: add `- type: {name}` to plugins"
        return f"no plugin is named {show(name)}", suggest(name, fits, "declare it in plugins")

    def _fitting(self, wanted: Wanted) -> list[str]:
        return [p.name for p in self.plugins.values() if p.type is None or not wanted.roles or wanted.roles & p.type.roles]

    def _other(self, name: str, wanted: Wanted) -> str:
        fits = self._fitting(wanted)
        return suggest(name, fits, f"declare {wanted.words} in plugins and refer to that")


def _roles(plugin_type: PluginType) -> str:
    return " and ".join(sorted(ROLE_WORDS.get(role, str(role)) for role in plugin_type.roles))


ROLE_WORDS: Mapping[Role, str] = {
    Role.PROFILE_HANDLER: "a profile handler",
    Role.DECIDER: "a decider",
    Role.FILTER: "a filter",
    Role.SCORER: "a scorer",
    Role.PICKER: "a picker",
    Role.REQUEST_HEADER: "a request header processor",
    Role.SCREENER: "a screener",
    Role.DATA_PRODUCER: "a data producer",
    Role.ADMITTER: "an admitter",
    Role.PRE_REQUEST: "a pre-request hook",
    Role.RESPONSE_RECEIVED: "a response header hook",
    Role.RESPONSE_STREAMING: "a response chunk hook",
    Role.RESPONSE_COMPLETE: "a response end hook",
    Role.PARSER: "a parser",
    Role.DATA_SOURCE: "a data source",
    Role.EXTRACTOR: "an extractor",
    Role.ENDPOINT_EXTRACTOR: "an extractor of endpoint events",
    Role.OBJECT_EXTRACTOR: "an extractor of Kubernetes objects",
    Role.DISCOVERY: "an endpoint discovery",
    Role.PEER_DISCOVERY: "a peer discovery",
    Role.CROSS_REPLICA_SYNCER: "a syncer of replicas",
    Role.SATURATION_DETECTOR: "a saturation detector",
    Role.FAIRNESS_POLICY: "a fairness policy",
    Role.ORDERING_POLICY: "an ordering policy",
    Role.USAGE_LIMIT_POLICY: "a usage limit policy",
    Role.EVICTION_FILTER: "an eviction filter",
    Role.EVICTION_ORDER: "an eviction order",
}
"""How findings call a role."""


def wanted(role: Role, undefined: str, wrong: str, *, creates: bool = False) -> Wanted:
    """A reference to a plugin with one role."""
    return Wanted(frozenset({role}), ROLE_WORDS[role], undefined, wrong, creates)
