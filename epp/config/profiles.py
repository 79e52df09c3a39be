"""Scheduling profiles of the document, and what completes them."""

from __future__ import annotations

from epp.config import defaults
from epp.config.draft import Draft, DraftPlugin, DraftProfile, Wanted
from epp.config.schema import ProfilePlugin, SchedulingProfile
from epp.config.wording import join, show
from epp.framework.interfaces import SCHEDULING_ROLES, Role

_IN_PROFILE = Wanted(frozenset(), "a filter, scorer or picker", "CFG061", "CFG061")


def read_profiles(draft: Draft) -> None:
    """Fill ``draft.profiles``; without any in the document, one takes every declared filter, scorer and picker."""
    document = draft.document
    if not document.scheduling_profiles and not draft.report.is_incomplete("schedulingProfiles"):
        draft.profiles = [_default_profile(draft)]
        return
    first: dict[str, SchedulingProfile] = {}
    for profile in document.scheduling_profiles:
        if profile.name in first:
            _duplicate(draft, profile, first[profile.name])
        elif profile.name:
            first[profile.name] = profile
        draft.profiles.append(_read_profile(draft, profile))


def _duplicate(draft: Draft, profile: SchedulingProfile, first: SchedulingProfile) -> None:
    message = f"{profile.path} has the same name as {first.path} (line {first.place().line}): {show(profile.name)}"
    at = profile.place("name")
    draft.report.error("CFG063", profile.child("name"), message, "rename one of them", value=profile.name, at=at)


def _default_profile(draft: Draft) -> DraftProfile:
    profile = DraftProfile(defaults.DEFAULT_PROFILE, "schedulingProfiles")
    for plugin in draft.declared():
        if plugin.type is None or not plugin.type.roles & SCHEDULING_ROLES or plugin.has(Role.SATURATION_DETECTOR):
            continue
        if plugin.has(Role.PICKER) and profile.picker:
            message = (
                f"schedulingProfiles is absent, so that one profile takes all plugins, but it can have only one picker, "
                f"not {join([profile.picker, plugin.name])}"
            )
            fix = "write schedulingProfiles, or remove a picker"
            draft.report.error("CFG064", plugin.path, message, fix, value=plugin.name, at=plugin.place())
            continue
        profile.picker = plugin.name if plugin.has(Role.PICKER) else profile.picker
        profile.refs.append((plugin, 1.0))
    names = {plugin.type.type for plugin, _ in profile.refs if plugin.type is not None}
    if names.issuperset(defaults.ROLE_FILTERS):
        message = (
            f"schedulingProfiles is absent, so that one profile has {join(defaults.ROLE_FILTERS)}: no endpoint passes both"
        )
        draft.report.warn("WRN014", "plugins", message, "write schedulingProfiles", at=draft.document.key_place("plugins"))
    return profile


def _read_profile(draft: Draft, section: SchedulingProfile) -> DraftProfile:
    profile = DraftProfile(
        section.name, section.path, section, is_complete=not draft.report.is_incomplete(section.child("plugins"))
    )
    for ref in section.plugins:
        plugin = _resolve(draft, ref) if ref.plugin_ref else None
        if plugin is None:
            profile.is_complete = False
            continue
        _add_reference(draft, profile, ref, plugin)
    if not section.plugins and profile.is_complete and "plugins" not in section.broken:
        message = f"the profile {show(section.name)} has no plugins: endpoints are chosen at random"
        draft.report.warn("WRN015", section.path, message, "refer to a scorer", at=section.place())
    return profile


def _resolve(draft: Draft, ref: ProfilePlugin) -> DraftPlugin | None:
    return draft.resolve(ref.plugin_ref, ref.child("pluginRef"), ref.place("pluginRef"), _IN_PROFILE)


def _add_reference(draft: Draft, profile: DraftProfile, ref: ProfilePlugin, plugin: DraftPlugin) -> None:
    report, path, at = draft.report, ref.child("pluginRef"), ref.place("pluginRef")
    assert plugin.type is not None
    if not plugin.type.roles & SCHEDULING_ROLES:
        message = f"the plugin {show(plugin.name)} of type {plugin.type.type} is not {_IN_PROFILE.words}"
        report.warn("WRN014", path, message, "remove the reference", value=plugin.name, at=at)
        return
    if any(other is plugin for other, _ in profile.refs):
        message = f"the profile {show(profile.name)} refers to {show(plugin.name)} twice, so that it counts twice"
        report.warn("WRN014", path, message, "remove one reference", value=plugin.name, at=at)
    if plugin.has(Role.PICKER):
        if profile.picker:
            message = f"the profile {show(profile.name)} can have only one picker, not {join([profile.picker, plugin.name])}"
            report.error("CFG064", path, message, "remove one of them", value=plugin.name, at=at)
            return
        profile.picker = plugin.name
    _check_weight(draft, ref, plugin)
    profile.refs.append((plugin, 1.0 if ref.weight is None else float(ref.weight)))


def _check_weight(draft: Draft, ref: ProfilePlugin, plugin: DraftPlugin) -> None:
    if ref.weight is None:
        return
    path, at = ref.child("weight"), ref.place("weight")
    if not plugin.has(Role.SCORER) and ref.weight != 1:
        message = f"the weight of {show(plugin.name)} has no effect: it is no scorer"
        draft.report.warn("WRN015", path, message, "remove the weight", value=ref.weight, at=at)
    elif ref.weight < 0:
        message = f"the weight {show(ref.weight)} of {show(plugin.name)} is negative: its best endpoints are avoided"
        draft.report.warn("WRN015", path, message, "use a weight of 0 or more", value=ref.weight, at=at)


def complete_profiles(draft: Draft) -> None:
    """Give every profile without a picker one."""
    for profile in draft.profiles:
        if profile.picker or not profile.is_complete:
            continue
        picker = defaults.choose_picker(draft)
        if picker is not None:
            profile.picker = picker.name
            profile.refs.append((picker, 1.0))


def report_no_plugins(draft: Draft) -> None:
    """A document that chooses nothing is legal, but hardly meant."""
    chooses = any(plugin.type is not None and plugin.type.roles & SCHEDULING_ROLES for plugin in draft.declared())
    if not draft.document.scheduling_profiles and not chooses:
        message = "no filter, scorer or picker is declared: endpoints are chosen at random"
        draft.report.warn("WRN015", "plugins", message, "declare a scorer", at=draft.document.key_place("plugins"))
