"""The registry of plugin types: what exists, under which names, with which parameters and needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import metadata
from typing import Any

from epp.errors import Finding, Severity
from epp.framework.data import Consumes, DataKey
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Role
from epp.framework.params import NoParams, Params


class Gate(StrEnum):
    """Feature gates that can switch a plugin type off."""

    DATA_LAYER = "dataLayer"
    PREPARE_DATA = "prepareDataPlugins"
    FLOW_CONTROL = "flowControl"


@dataclass(frozen=True, slots=True)
class Alias:
    """Another accepted name of a type."""

    name: str
    deprecated: bool = False
    """Say once that the canonical name is preferred."""


@dataclass(frozen=True, slots=True)
class Former:
    """What became of a type name of an earlier version."""

    successor: str
    """Type to use today."""
    advice: str = ""
    """How to use it, where it is not the same under another name: then the older name is refused. "" = both mean the same."""


@dataclass(frozen=True, slots=True)
class Reads:
    """What a type needs prepared; nothing else is."""

    request_headers: frozenset[str] = frozenset()
    """Lower-case names."""
    request_readers: tuple[str, ...] = ()
    """Names of readers of request bodies (``epp.extproc.readers``), which run while a body arrives. What they know is data of
    the request under ``keys.reading(name)``."""
    response_chunks: bool = False
    """Every chunk of streaming responses."""
    response_document: bool = False
    """The whole response as one JSON document, where the parser knows how to find it."""
    chunks_when: Callable[[Any], bool] | None = None
    """Tells from the plugin's parameters whether ``response_chunks`` holds; None = it does."""
    readers_of: Callable[[Any], tuple[str, ...]] | None = None
    """Gives more names of readers, which depend on the plugin's parameters: ``prompt-blocks/64/256``."""

    def every_chunk(self, params: Params | None) -> bool:
        """A plugin with these parameters needs every chunk of streaming responses."""
        return self.response_chunks and (self.chunks_when is None or params is None or self.chunks_when(params))

    def readers(self, params: Params | None) -> tuple[str, ...]:
        """Names of the readers of request bodies that a plugin with these parameters needs."""
        if self.readers_of is None or params is None:
            return self.request_readers
        return (*self.request_readers, *self.readers_of(params))


NO_READS = Reads()

ParamsModel = type[Params]


@dataclass(frozen=True, slots=True)
class PluginType:
    """Everything that is known of a plugin type without creating one.

    Attributes:
        type: canonical type name, as in YAML.
        roles: slots that an instance occupies.
        summary: one line for listings.
        params: model of its parameters.
        factory: makes an instance of (context, params); None = not built yet. May raise ``ValueError`` for values that
            only the instance can judge; its text is shown as the cause.
        aliases: other accepted names.
        produces, consumes: data keys (before ``…ProducerName`` parameters rename them).
        reads: what must be prepared for its hooks.
        gate: feature gate without which an instance is inactive.
        per_snapshot: what its filter or scorer returns depends on the candidates alone: their labels, addresses and scraped
            metrics, not on the request, the time, the age of metrics or what it learned. It then runs once for each change of
            these, not once for each request.
        experimental: alpha upstream; ``--allow-experimental-plugins=false`` refuses it.
        hot: it can be exchanged, added and removed while the process serves; False for what holds connections or large state.
        header_strip: request headers that this plugin owns: a client's own are removed.
        wait: what a type that is not built waits for, as one short phrase.
        example: parameters as YAML, for its page; needed where a parameter is required. Loaded in a test.
    """

    type: str
    roles: frozenset[Role]
    summary: str
    params: ParamsModel = NoParams
    factory: Callable[[PluginContext, Any], object] | None = None
    aliases: tuple[Alias, ...] = ()
    produces: tuple[DataKey[Any], ...] = ()
    consumes: tuple[Consumes, ...] = ()
    reads: Reads = NO_READS
    gate: Gate | None = None
    per_snapshot: bool = False
    experimental: bool = False
    hot: bool = True
    header_strip: frozenset[str] = frozenset()
    wait: str = ""
    example: str = ""
    package: str = field(default="endpoint-picker")
    """Distribution that provides it."""
    version: str = ""

    @property
    def is_built(self) -> bool:
        """An instance can be created."""
        return self.factory is not None

    @property
    def names(self) -> tuple[str, ...]:
        """Canonical name, then the aliases."""
        return (self.type, *(alias.name for alias in self.aliases))


class Registry:
    """Type name → PluginType. A second registration of a name is refused."""

    def __init__(self, types: Iterable[PluginType] = ()) -> None:
        self._by_name: dict[str, PluginType] = {}
        self._announced: dict[str, Callable[[], Iterable[PluginType]]] = {}
        """Names of types that nobody asked for yet."""
        self._former: dict[str, Former] = {}
        for plugin_type in types:
            self.register(plugin_type)

    def register(self, plugin_type: PluginType) -> None:
        """Add a type under all its names.

        Raises:
            ValueError: one of the names is taken, or the type has no role.
        """
        if not plugin_type.roles:
            raise ValueError(f"plugin type {plugin_type.type!r} has no role")
        for name in plugin_type.names:
            other = self.get(name)
            if other is not None:
                raise ValueError(
                    f"plugin type {name!r} of {plugin_type.package} is already registered by {other.package} as {other.type!r}"
                )
        for name in plugin_type.names:
            self._by_name[name] = plugin_type

    def announce(self, names: Iterable[str], load: Callable[[], Iterable[PluginType]]) -> None:
        """Register types once one of them is asked for, so that a process imports only the plugins that it uses.

        Args:
            names: all their names and aliases.
            load: gives the types; called at most once.
        """
        self._announced.update(dict.fromkeys(names, load))

    def remember(self, former: Mapping[str, Former]) -> None:
        """Know what the type names of earlier versions became; a type that has such a name wins."""
        self._former.update(former)

    def former(self, name: str) -> Former | None:
        """What became of a name that no type has any longer; None if one has it, or none ever had."""
        return None if name in self._announced or name in self._by_name else self._former.get(name)

    def former_names(self, plugin_type: PluginType) -> list[str]:
        """The names that a type had in earlier versions and that still work."""
        return [name for name, was in self._former.items() if was.successor in plugin_type.names and not was.advice]

    def get(self, name: str) -> PluginType | None:
        """The type with this name or alias, also one of earlier versions, or None."""
        was = self.former(name)
        if was is not None and not was.advice:
            name = was.successor
        if name in self._announced:
            self._load(self._announced[name])
        return self._by_name.get(name)

    def alias(self, name: str) -> Alias | None:
        """The alias record if ``name`` is an alias, else None."""
        plugin_type = self.get(name)
        if plugin_type is None:
            return None
        if self.former(name) is not None:
            return Alias(name, deprecated=True)
        return next((alias for alias in plugin_type.aliases if alias.name == name), None)

    def names(self) -> list[str]:
        """All names and aliases, sorted; without those of earlier versions."""
        return sorted({*self._by_name, *self._announced})

    def _load(self, load: Callable[[], Iterable[PluginType]]) -> None:
        self._announced = {name: other for name, other in self._announced.items() if other is not load}
        for plugin_type in load():
            self.register(plugin_type)

    def _all(self) -> dict[int, PluginType]:
        while self._announced:
            self._load(next(iter(self._announced.values())))
        return {id(plugin_type): plugin_type for plugin_type in self._by_name.values()}

    def __iter__(self) -> Iterator[PluginType]:
        """Each type once, by canonical name."""
        return iter(sorted(self._all().values(), key=lambda plugin_type: plugin_type.type))

    def __len__(self) -> int:
        return len(self._all())


ENTRY_POINT_GROUP = "epp.plugins"
"""Entry points of this group name a PluginType, or an iterable of them."""


def load_entry_points(registry: Registry, entry_points: Iterable[metadata.EntryPoint] | None = None) -> list[Finding]:
    """Register the plugin types of installed packages; one that fails does not keep the others out.

    Args:
        registry: receives the types.
        entry_points: for tests; default: those of the group ``epp.plugins``.

    Returns:
        One warning for each entry point that gave nothing, or not all of its types.
    """
    if entry_points is None:
        entry_points = metadata.entry_points(group=ENTRY_POINT_GROUP)
    findings = []
    for entry_point in sorted(entry_points, key=lambda e: (e.name, e.value)):
        package = entry_point.dist.name if entry_point.dist else "an unknown package"
        version = entry_point.dist.version if entry_point.dist else ""
        try:
            for plugin_type in _types_of(entry_point.load()):
                registry.register(dataclasses.replace(plugin_type, package=package, version=version))
        except Exception as error:  # noqa: BLE001 — code of others: whatever it raises, the rest still loads
            findings.append(
                Finding(
                    code=ENTRY_POINT_CODE,
                    path="",
                    message=f"entry point {entry_point.name!r} ({entry_point.value}) of {package} {version}".rstrip()
                    + f" could not be loaded: {type(error).__name__}: {error}",
                    fix=f"repair or uninstall {package}; its plugin types are missing",
                    value=entry_point.value,
                    severity=Severity.WARNING,
                )
            )
    return findings


ENTRY_POINT_CODE = "WRN021"
"""Code of the warning about an entry point that could not be loaded."""


def _types_of(target: object) -> list[PluginType]:
    found = [target] if isinstance(target, PluginType) else list(target) if isinstance(target, Iterable) else []
    types = [entry for entry in found if isinstance(entry, PluginType)]
    if not found or len(types) != len(found):
        raise TypeError(f"it must be a PluginType or an iterable of them, not {target!r}")
    return types
