"""Findings about KV events as the picker receives them: from the state of the plugins that listen, and their metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from epp.doctor.catalogue import finding
from epp.doctor.documents import Json, mapping, mappings, number
from epp.doctor.picker import total
from epp.errors import Finding

PAGE = "/debug/plugins/state"
_ENOUGH_LOOKUPS = 100
"""The first prompts are new to every cache."""
_NAMELESS = ("topic", "stranger")
"""Messages over the common socket that belong to nobody."""


def check_kv_events(url: str, plugins: Mapping[str, Any], metrics: bytes) -> list[Finding]:
    """All findings.

    Args:
        url: of the picker.
        plugins: ``/debug/plugins/state``.
        metrics: ``/metrics``.
    """
    found: list[Finding] = []
    for name, entry in mapping(plugins.get("plugins")).items():
        state = mapping(mapping(entry).get("state"))
        if "receiving" in state:  # nothing else has it
            found += [*_receiving(url, name, state), *_endpoints(url, name, state), *_messages(url, name, state)]
            found += _prompts(url, name, state, metrics)
    return found


def _receiving(url: str, name: str, state: Json) -> Iterator[Finding]:
    if not state.get("receiving"):
        message = f"{state.get('problem')}; what was known of caches is forgotten, it is tried again within a minute"
        yield finding("KVE001", url, name, message, "report the traceback in its log; restart the picker if this stays")
    elif restarts := number(state.get("restarts"), 0):
        message = (
            f"{restarts} times, the last time by {state.get('lastProblem')}; what was known of caches was forgotten each time"
        )
        yield finding("KVE009", url, name, message, "report the traceback in the picker's log", value=restarts)


def _endpoints(url: str, name: str, state: Json) -> Iterator[Finding]:
    silent = {str(pod) for pod in state.get("silent") or ()}
    fix = "start the engine with --kv-events-config (enable_kv_cache_events), with a topic that topicFilter lets in"
    for pod in sorted(silent):
        message = f"{pod} has served requests for five minutes, and {name} has heard nothing of its cache"
        yield finding("KVE002", url, pod, message, fix, value=name)
    for entry in mappings(state.get("pods")):
        pod = str(entry.get("pod"))
        if entry.get("connected") is False and pod not in silent:
            message = f"{name} has no connection to it, so its cache is unknown or stays as it was"
            reach = "start its publisher, or compare podDiscoveryConfig.socketPort and network policies"
            yield finding("KVE003", url, pod, message, reach, value=name)


def _messages(url: str, name: str, state: Json) -> Iterator[Finding]:
    dropped = mapping(state.get("dropped"))
    nameless = sum(number(dropped.get(reason), 0) for reason in _NAMELESS)
    if nameless:
        message = f"{nameless} messages had a topic that names no endpoint of the pool"
        fix = "start engines that push with the topic kv@<pod ip>:<port>@<model>"
        yield finding("KVE004", url, name, message, fix, value=nameless)
    unreadable = {str(reason): number(count, 0) for reason, count in mapping(state.get("decodeErrors")).items()}
    unreadable["frames"] = number(dropped.get("frames"), 0)
    if broken := {reason: count for reason, count in unreadable.items() if count}:
        shown = ", ".join(f"{count} ({reason})" for reason, count in sorted(broken.items()))
        message = f"messages that are no KV events of a known form: {shown}"
        fix = "see that kvEventsConfig.engineType is that of the engines, and that nothing else publishes there"
        yield finding("KVE005", url, name, message, fix, value=sum(broken.values()))
    gaps, replays = number(state.get("gaps"), 0), mapping(state.get("replays"))
    if gaps and (number(replays.get("failed"), 0) or not number(replays.get("done"), 0)):
        message = f"{gaps} times messages of an engine were missed, and not all were sent again"
        fix = "give the engines a replay_endpoint and podDiscoveryConfig.replaySocketPort, and the picker more CPU"
        yield finding("KVE006", url, name, message, fix, value=gaps)


def _prompts(url: str, name: str, state: Json, metrics: bytes) -> Iterator[Finding]:
    failures = {str(what): number(count, 0) for what, count in mapping(state.get("failures")).items()}
    if failures:
        shown = ", ".join(f"{what} {count} times" for what, count in sorted(failures.items()))
        message = f"requests had no prefix match because something failed: {shown}"
        yield finding("KVE008", url, name, message, "look for 'no prefix match' in the log", value=sum(failures.values()))
    lookups, hits = (total(metrics, f"kv_cache_index_lookup_{what}_total") for what in ("requests", "hits"))
    if lookups >= _ENOUGH_LOOKUPS and not hits and number(state.get("keys"), 0):
        message = f"{state['keys']} blocks are known, and none of {lookups:.0f} prompts began with one"
        fix = "render model, chat template and tools as the engines do, and let blockSize be theirs or a divisor of it"
        yield finding("KVE007", url, name, message, fix, value=int(lookups))
