"""The profile handler: found or added, and compared with the profiles."""

from __future__ import annotations

from epp.config import defaults
from epp.config.draft import Draft, DraftPlugin
from epp.config.parameters import locate
from epp.config.wording import join, show, suggest, with_page
from epp.framework.interfaces import Role
from epp.framework.params import ProfileReference, ReferenceUse, references

_MANY_UNDEFINED = 3
"""So many references to undeclared but existing types are no typing mistakes."""


def check_handler(draft: Draft) -> None:
    """Find the profile handler, add the usual one if that is enough, and compare it with the profiles."""
    if _suspect_chart_defaults(draft):
        return
    handlers = draft.with_role(Role.PROFILE_HANDLER)
    for surplus in handlers[1:]:
        message = f"there can be only one profile handler, not {join([handlers[0].name, surplus.name])}"
        path = f"{surplus.path}.type"
        draft.report.error("CFG065", path, message, "remove one of them", value=surplus.name, at=surplus.place())
    if not handlers:
        _add_or_miss_handler(draft)
    elif len(handlers) == 1:
        draft.handler = handlers[0].name
        _check_handler(draft, handlers[0])


def _check_handler(draft: Draft, handler: DraftPlugin) -> None:
    if handler.is_type(defaults.SINGLE_PROFILE_HANDLER) and len(draft.profiles) > 1:
        names = join(profile.name for profile in draft.profiles)
        message = f"{defaults.SINGLE_PROFILE_HANDLER} works with one profile, but there are {len(draft.profiles)}: {names}"
        fix = "remove the surplus profiles, or declare another profile handler"
        draft.report.error("CFG067", f"{handler.path}.type", message, fix, value=handler.name, at=handler.place())
    elif _knows_all_profiles(draft):
        _check_profile_names(draft, handler)


def _suspect_chart_defaults(draft: Draft) -> bool:
    """Helm replaces lists but merges maps: a chart's profiles stay when only plugins are overridden."""
    document = draft.document
    refs = [ref.plugin_ref for profile in document.scheduling_profiles for ref in profile.plugins]
    undefined = [name for name in refs if name not in draft.plugins and draft.registry.get(name) is not None]
    if len(undefined) < _MANY_UNDEFINED or len(draft.profiles) < 2:
        return False
    message = "many plugins of these profiles are not declared: the profiles come from the chart's default values"
    fix = "override config.schedulingProfiles too"
    draft.report.inform("INF005", "schedulingProfiles", message, fix, at=document.key_place("schedulingProfiles"))
    return True


def _add_or_miss_handler(draft: Draft) -> None:
    defaults.add_handler(draft)
    if draft.handler or len(draft.profiles) < 2 or not draft.knows_all_plugins:
        return
    if any(plugin.type is None for plugin in draft.declared()):
        return  # it may be the handler, and that its type is unknown was said
    names = join(profile.name for profile in draft.profiles)
    handlers = [t.type for t in draft.registry if Role.PROFILE_HANDLER in t.roles]
    several = ", ".join(name for name in handlers if name != defaults.SINGLE_PROFILE_HANDLER)
    message = f"there are {len(draft.profiles)} profiles, {names}, but no profile handler that chooses among them"
    at = draft.document.key_place("schedulingProfiles")
    draft.report.error("CFG066", "schedulingProfiles", message, f"declare one of {several}", at=at)


def _knows_all_profiles(draft: Draft) -> bool:
    return not draft.report.is_incomplete("schedulingProfiles") and all(profile.name for profile in draft.profiles)


def _uses(plugin: DraftPlugin) -> list[ReferenceUse]:
    """The profiles that a plugin's parameters name and that it can really use."""
    if plugin.params is None:
        return []
    found = []
    for use in references(plugin.params):
        marker = use.marker
        if isinstance(marker, ProfileReference) and (marker.when is None or marker.when(plugin.params)):
            found.append(use)
    return found


def _check_profile_names(draft: Draft, handler: DraftPlugin) -> None:
    uses = _uses(handler)
    names = [profile.name for profile in draft.profiles]
    missing = [use for use in uses if use.value not in names]
    for use in missing:
        _missing_profile(draft, handler, use)
    if any(use.marker.required for use in missing):
        return
    if not uses or any(isinstance(use.marker, ProfileReference) and use.marker.others_run for use in uses):
        return
    used = {use.value for use in uses}
    for profile in draft.profiles:
        if profile.name not in used:
            message = f"the profile {show(profile.name)} is never run by {show(handler.name)}"
            draft.report.warn("WRN014", profile.path, message, "remove it", value=profile.name, at=profile.place())


def _missing_profile(draft: Draft, plugin: DraftPlugin, use: ReferenceUse) -> None:
    path, place = locate(plugin, use.path)
    names = [profile.name for profile in draft.profiles]
    parameter = ".".join(use.path)
    origin = "" if use.given else " (its default)"
    message = f"{parameter} of {show(plugin.name)} is {show(use.value)}{origin}, but the profiles are {join(names)}"
    fix = suggest(use.value, names)
    if plugin.type is not None:
        fix = with_page(fix, plugin.type.type)
    if use.marker.required:
        draft.report.error("CFG068", path, message, fix, value=use.value, at=place)
    else:
        draft.report.warn("WRN014", path, f"{message}: its stage never runs", fix, value=use.value, at=place)


def check_profile_references(draft: Draft) -> None:
    """Names of profiles in the parameters of other plugins: a missing one is only worth a warning."""
    if not _knows_all_profiles(draft):
        return
    names = {profile.name for profile in draft.profiles}
    for plugin in draft.declared():
        if plugin.has(Role.PROFILE_HANDLER):
            continue
        for use in _uses(plugin):
            if use.given and use.value not in names:
                _missing_profile(draft, plugin, use)
