"""States of plugins that receive KV events → findings."""

from __future__ import annotations

from typing import Any

import pytest

from epp.doctor.kv_events import check_kv_events
from epp.framework.testing import make_context, make_plugin
from epp.framework.types import Endpoint, EndpointChange
from plugins.producers import precise_prefix

URL = "http://picker:9090"
NOTHING = b""


def state(**more: Any) -> dict[str, Any]:
    """The state of a plugin where all is well."""
    pods = [{"pod": "10.0.0.1:8000", "blocks": 9, "messages": 5, "connected": True}]
    quiet = {"receiving": True, "problem": "", "silent": [], "keys": 9, "decodeErrors": {}, "failures": {}}
    return {**quiet, "pods": pods, "dropped": {}, "gaps": 0, "replays": {"done": 0, "failed": 0}, **more}


def lookups(requests: int, hits: int) -> bytes:
    names = {"requests": requests, "hits": hits}
    return "".join(f"llm_d_epp_kv_cache_index_lookup_{name}_total {value}\n" for name, value in names.items()).encode()


def connected(*, yes: bool | None, **more: Any) -> dict[str, Any]:
    return state(pods=[{"pod": "10.0.0.1:8000", "blocks": 0, "messages": 0, "connected": yes}], **more)


CASES: list[tuple[str, dict[str, Any], bytes, list[str]]] = [
    ("all is well", state(), lookups(500, 300), []),
    ("nothing is received", state(receiving=False, problem="OSError: x", restarts=2), NOTHING, ["KVE001"]),
    ("it is received again", state(restarts=2, lastProblem="RuntimeError: a defect"), NOTHING, ["KVE009"]),
    ("a silent endpoint", connected(yes=True, silent=["10.0.0.1:8000"]), NOTHING, ["KVE002"]),
    ("a silent endpoint without connection", connected(yes=False, silent=["10.0.0.1:8000"]), NOTHING, ["KVE002"]),
    ("no connection", connected(yes=False), NOTHING, ["KVE003"]),
    ("engines that push", connected(yes=None), NOTHING, []),
    ("topics", state(dropped={"topic": 3, "stranger": 1}), NOTHING, ["KVE004"]),
    ("frames", state(dropped={"frames": 3, "replay": 1}), NOTHING, ["KVE005"]),
    ("payloads", state(decodeErrors={"payload": 2}), NOTHING, ["KVE005"]),
    ("gaps", state(gaps=2), NOTHING, ["KVE006"]),
    ("gaps that were filled", state(gaps=2, replays={"done": 2, "failed": 0}), NOTHING, []),
    ("gaps that were filled in part", state(gaps=2, replays={"done": 2, "failed": 1}), NOTHING, ["KVE006"]),
    ("no prompt matches", state(), lookups(100, 0), ["KVE007"]),
    ("no prompt matches what is not known", state(keys=0), lookups(100, 0), []),
    ("few prompts", state(), lookups(99, 0), []),
    ("tokenization fails", state(failures={"tokenization": 3}), NOTHING, ["KVE008"]),
    ("another plugin", {"keys": 9, "failures": {"x": 1}}, lookups(100, 0), []),
]


@pytest.mark.parametrize(("shown", "metrics", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_states(shown: dict[str, Any], metrics: bytes, expected: list[str]) -> None:
    page = {"plugins": {"precise": {"state": shown}, "queue": {"message": "this plugin has no state to show"}}}
    findings = check_kv_events(URL, page, metrics)
    assert [found.code for found in findings] == expected
    assert all(found.fix and found.file == URL for found in findings)


def test_the_plugin_itself_is_understood() -> None:
    plugin: Any = make_plugin(precise_prefix.PLUGIN, {}, make_context("mine"))
    plugin.endpoints_changed(EndpointChange(added=(Endpoint.of("a", "10.0.0.1", 8000, {}),)))

    def codes() -> list[str]:
        return [found.code for found in check_kv_events(URL, {"plugins": {"mine": {"state": plugin.debug_state()}}}, NOTHING)]

    assert codes() == []
    plugin._parts.receiver.problem = "RuntimeError: a defect"
    assert codes() == ["KVE001"]
    plugin._parts.receiver.problem, plugin._parts.receiver.restarts = "", 1
    assert codes() == ["KVE009"]


def covered() -> set[str]:
    """Codes that a case of this module expects."""
    return {code for case in CASES for code in case[3]}
