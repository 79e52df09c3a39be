"""Findings about what the picker is configured by: warnings, the last reload, the configuration in its shadow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from epp.doctor.catalogue import finding
from epp.doctor.documents import mapping, mappings, number
from epp.doctor.picker import PickerPages, samples
from epp.errors import Finding

_FAILURE, _RESTART = "failure", "restart_required"
_MUCH_SHARE = 0.1
_FEW_REQUESTS = 20
_IS_IN_USE = "taken_over"


def check_configuration(pages: PickerPages) -> list[Finding]:
    """All findings."""
    found = [*_warnings(pages), *_reload(pages)]
    if pages.shadow is not None:
        found += _shadow(pages.url, pages.shadow)
    return found


def _warnings(pages: PickerPages) -> Iterator[Finding]:
    for entry in mappings(mapping(pages.config).get("findings")):
        if entry.get("severity") == "warning":
            message = f"{entry.get('code')}: {entry.get('message')}"
            yield finding("PCK007", pages.url, str(entry.get("path", "")), message, str(entry.get("fix", "")))


def _reload(pages: PickerPages) -> Iterator[Finding]:
    reload = mapping(mapping(pages.config).get("reload"))
    problems = [str(problem) for problem in reload.get("problems") or ()]
    if reload.get("result") == _RESTART:
        message = f"the file was changed, and nothing of the change is used before a restart, because of {', '.join(problems)}"
        yield finding("PCK013", pages.url, "/debug/config", message, "restart the picker, or take these changes back")
        return
    page = pages.metrics or b""
    if reload.get("result") == _FAILURE or any(not s.value for s in samples(page, "config_last_reload_successful")):
        why = f": {'; '.join(problems)}" if problems else ""
        message = f"the file was changed to something that cannot be used; what was loaded before is in use{why}"
        yield finding("PCK006", pages.url, "/debug/config", message, "run `epp check` on the file")


def _shadow(url: str, shadow: Mapping[str, Any]) -> Iterator[Finding]:
    place = "/debug/shadow"
    problem = str(shadow.get("problem") or "")
    if not shadow.get("enabled"):
        if problem and shadow.get("state") != _IS_IN_USE:
            message = f"it is {problem}; requests are served without it"
            yield finding("PCK015", url, place, message, "repair it: `epp check` the document; the log has the traceback")
        return
    for plugin, count in sorted(mapping(shadow.get("plugin_errors")).items()):
        message = f"its plugin {plugin} failed {count} times, which counts against it in the comparison"
        yield finding("PCK016", url, place, message, "the log has the traceback", value=plugin)
    skipped, compared = mapping(shadow.get("skipped")), number(shadow.get("compared"), 0)
    missed = sum(number(count, 0) for count in skipped.values())
    if missed + compared >= _FEW_REQUESTS and missed > _MUCH_SHARE * (missed + compared):
        why = ", ".join(f"{count} ({reason})" for reason, count in sorted(skipped.items()))
        message = f"{missed} of {missed + compared} requests were not shown to it: {why}"
        yield finding("PCK017", url, place, message, "lower --shadow-share, or make its plugins faster", value=missed)
    if restart := [str(path) for path in shadow.get("restart") or ()]:
        message = f"it differs in {', '.join(restart)}, which a reload does not take over"
        yield finding("PCK018", url, place, message, "restart the picker with it when it is to be used")
