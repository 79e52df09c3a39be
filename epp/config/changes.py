"""What is different between the configuration in use and another one: which plugins stay as they are, what takes a restart."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from epp.config.loaded import LoadedConfig, LoadedPlugin

Seen = Callable[[str], Collection[str]]
"""Plugin → the parts of the whole configuration (``profiles``, ``declared``) that its factory looked at."""

_SECTIONS = ("schedulingProfiles", "flowControl", "saturationDetector")
"""Parts of a completed document, beside the plugins, that are exchanged while serving."""


@dataclass(frozen=True, slots=True)
class Changes:
    """From one configuration to the next."""

    unchanged: frozenset[str]
    """Plugins whose instances serve on: the same name, type, parameters and neighbours."""
    changed: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    sections: tuple[str, ...]
    """Parts of the document beside the plugins that changed and can be exchanged."""
    restart: tuple[str, ...]
    """Paths whose change takes a restart."""

    @property
    def is_nothing(self) -> bool:
        """Both mean the same."""
        return not (self.changed or self.added or self.removed or self.sections or self.restart)


def shared_parts(config: LoadedConfig) -> frozenset[str]:
    """The plugins of which a pool has one set, whatever configurations look at it: a change of any of them takes a restart."""
    sources = {name for source in config.sources for name in (source.name, *source.extractors)}
    cold = {plugin.name for plugin in config.plugins if not plugin.type.hot}
    return frozenset(sources | cold | set(config.parsers) | ({config.discovery} if config.discovery else set()))


def compare(old: LoadedConfig, new: LoadedConfig, seen: Seen = lambda _: ()) -> Changes:
    """What changes if ``new`` takes the place of ``old``.

    Args:
        seen: of the plugins of ``old``; by default none of them looked at anything but its own parameters.
    """
    before = {plugin.name: plugin for plugin in old.plugins}
    unchanged = frozenset(_unchanged(old, new, seen))
    now = {plugin.name for plugin in new.plugins}
    return Changes(
        unchanged=unchanged,
        changed=tuple(plugin.name for plugin in new.plugins if plugin.name in before and plugin.name not in unchanged),
        added=tuple(plugin.name for plugin in new.plugins if plugin.name not in before),
        removed=tuple(name for name in before if name not in now),
        sections=tuple(name for name in _SECTIONS if old.effective.get(name) != new.effective.get(name)),
        restart=tuple(dict.fromkeys(_restart(old, new, unchanged))),
    )


def _unchanged(old: LoadedConfig, new: LoadedConfig, seen: Seen) -> Iterator[str]:
    """Each after those that it needs, as far as these are unchanged."""
    before = {plugin.name: plugin for plugin in old.plugins}
    after = {plugin.name: plugin for plugin in new.plugins}
    different = _different_whole(old, new)
    found: set[str] = set()
    for name in new.creation_order:
        plugin, earlier = after[name], before.get(name)
        if earlier is None or not _is_same(earlier, plugin) or different & set(seen(name)):
            continue
        if all(other in found or other not in after for other in plugin.needs):
            found.add(name)
            yield name


def _is_same(old: LoadedPlugin, new: LoadedPlugin) -> bool:
    return (old.type.type, old.params, old.needs, old.active) == (new.type.type, new.params, new.needs, new.active)


def _different_whole(old: LoadedConfig, new: LoadedConfig) -> set[str]:
    """The parts of the whole that a factory may look at and that changed."""
    found: set[str] = set()
    if [profile.name for profile in old.profiles] != [profile.name for profile in new.profiles]:
        found.add("profiles")
    if _declared(old) != _declared(new):
        found.add("declared")
    return found


def _declared(config: LoadedConfig) -> dict[str, str]:
    return {plugin.name: plugin.type.type for plugin in config.plugins}


def _restart(old: LoadedConfig, new: LoadedConfig, unchanged: frozenset[str]) -> Iterator[str]:
    """What is built once for the life of the process."""
    for gate, value in new.gates.items():
        if old.gates.get(gate) != value:
            yield f"featureGates: {gate}"
    names = [{name for source in config.sources for name in (source.name, *source.extractors)} for config in (old, new)]
    if old.sources != new.sources or not (names[0] | names[1]) <= unchanged:
        yield "dataLayer.sources"
    if old.discovery != new.discovery or (new.discovery and new.discovery not in unchanged):
        yield "dataLayer.discovery"
    if any(old.effective.get(key) != new.effective.get(key) for key in ("data", "dataLayer")):
        yield "dataLayer"
    if old.parsers != new.parsers or not set(new.parsers) <= unchanged:
        yield "requestHandler.parsers"
    for config in (old, new):
        for plugin in config.plugins:
            if not plugin.type.hot and plugin.name not in unchanged:
                yield f"{plugin.path} ({plugin.name})"
