"""What loading a configuration gives: the completed document, resolved, and what was found on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from epp.config.schema import Document, FlowControlConfig, PluginSpec
from epp.config.yaml_nodes import Place
from epp.errors import Finding
from epp.framework.handle import MetricsFlags
from epp.framework.interfaces import Role
from epp.framework.params import Params
from epp.framework.registry import Gate, PluginType


@dataclass(frozen=True, slots=True)
class ConfigSource:
    """Where the document comes from. Zero bytes mean the built-in default document."""

    path: Path | None = None
    """File that is read when loading."""
    data: bytes = b""
    """The document, if there is no ``path``."""
    name: str = ""
    """How findings call it."""
    may_be_empty: bool = True
    """False: a file of zero bytes is one that is being written, not a wish for the built-in document."""

    @classmethod
    def from_file(cls, path: str | Path) -> ConfigSource:
        """A file or a symbolic link to one."""
        return cls(path=Path(path), name=str(path))

    @classmethod
    def from_text(cls, text: str | bytes, name: str = "<config-text>") -> ConfigSource:
        """The document itself."""
        data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
        return cls(data=data, name=name)

    @classmethod
    def builtin(cls) -> ConfigSource:
        """The built-in default document."""
        return cls(name="<built-in>")


@dataclass(frozen=True, slots=True)
class LoadFlags:
    """Process flags that change how a document is judged."""

    strict: bool = False
    """Warnings count as errors."""
    allow_experimental: bool = True
    """False refuses plugin types that are alpha upstream."""
    for_serve: bool = False
    """Refuse declared plugin types that are not built; leave out those that only defaults ask for."""
    metrics_flags: MetricsFlags = field(default_factory=MetricsFlags)
    environ: Mapping[str, str] = field(default_factory=dict)
    """Variables of earlier versions that change the document (``environment.VARIABLES``)."""


@dataclass(frozen=True, slots=True)
class LoadedPlugin:
    """One plugin of the completed document."""

    name: str
    type: PluginType
    params: Params
    needs: frozenset[str] = frozenset()
    """Plugins that its parameters name or whose data it reads."""
    declared: bool = True
    """False: added by the defaults."""
    active: bool = True
    """False: its feature gate is off, so its hooks do not run."""
    spec: PluginSpec | None = field(default=None, repr=False, compare=False)
    """Its entry in the document."""

    @property
    def path(self) -> str:
        """``plugins[2]``, or the name if it is not declared."""
        return self.spec.path if self.spec is not None else self.name

    def place(self, key: str = "type") -> Place:
        """Where a key of its declaration is."""
        return self.spec.place(key) if self.spec is not None else Place(0, 0)

    @property
    def is_built(self) -> bool:
        """An instance can be created."""
        return self.type.is_built

    def has(self, role: Role) -> bool:
        """The type occupies this slot."""
        return role in self.type.roles


@dataclass(frozen=True, slots=True)
class LoadedProfile:
    """A scheduling profile: references to plugins that filter, score or pick, in document order."""

    name: str
    plugins: tuple[tuple[str, float], ...]
    """(plugin name, weight), the picker included."""
    picker: str = ""


@dataclass(frozen=True, slots=True)
class LoadedSource:
    """A data source with the extractors that read its payloads."""

    name: str
    extractors: tuple[str, ...]
    active: bool = True
    """False: the section is present, but its feature gate is off."""


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A document that can be used. Every plugin name in it is the name of an entry of ``plugins``."""

    document: Document
    """As written, without what the defaults add."""
    source: ConfigSource
    flags: LoadFlags
    plugins: tuple[LoadedPlugin, ...]
    """In declaration order, then what the defaults add. With ``for_serve`` only built types."""
    creation_order: tuple[str, ...]
    """Names of ``plugins``: each after those it refers to or reads data from."""
    profiles: tuple[LoadedProfile, ...]
    handler: str
    """Name of the profile handler."""
    parsers: tuple[str, ...]
    """In the order in which they are asked."""
    sources: tuple[LoadedSource, ...]
    discovery: str | None
    """Name of the plugin that replaces Kubernetes discovery."""
    detector: str | None
    """Name of the saturation detector; None if it is not built."""
    flow_control: FlowControlConfig | None
    """The section; None if it is absent or its gate is off."""
    gates: Mapping[str, bool]
    """Every known feature gate."""
    findings: tuple[Finding, ...]
    """Warnings and notes, in document order; errors are raised instead."""
    effective: Mapping[str, object]
    """The completed document as YAML or JSON can hold it, secrets masked."""
    sha256: str
    """Of ``effective``."""
    digest: str = ""
    """SHA-256 of the document as it was read."""

    def plugin(self, name: str) -> LoadedPlugin:
        """The plugin of this name.

        Raises:
            KeyError: there is none.
        """
        for plugin in self.plugins:
            if plugin.name == name:
                return plugin
        raise KeyError(name)

    def enabled(self, gate: Gate) -> bool:
        """Whether a feature gate is on."""
        return self.gates[gate]

    @property
    def added(self) -> tuple[str, ...]:
        """Names of the plugins that the defaults added."""
        return tuple(plugin.name for plugin in self.plugins if not plugin.declared)


@dataclass(frozen=True, slots=True)
class Instances:
    """The plugins of a LoadedConfig, created."""

    config: LoadedConfig
    by_name: Mapping[str, object]
    """In declaration order; types that are not built are missing."""
    findings: tuple[Finding, ...] = ()
    """What the factories warned about."""
