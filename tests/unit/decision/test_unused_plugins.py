"""Plugins that are declared but in no profile cost a decision nothing."""

from __future__ import annotations

import sys
from dataclasses import fields
from types import FrameType

import pytest
import yaml

import plugins
from epp.decision.director import Pipeline
from epp.framework.interfaces import HOOK_ROLES, SCHEDULING_ROLES
from epp.framework.testing import make_candidates, make_request
from tests.unit.plugins.test_plugin_types import MINIMAL
from tests.unit.pool.test_build import build

USED = ("queue-scorer", "kv-cache-utilization-scorer", "max-score-picker")
UNUSED = tuple(
    plugin_type.type
    for plugin_type in plugins.plugin_types()
    if plugin_type.is_built
    and plugin_type.roles & SCHEDULING_ROLES
    and not plugin_type.roles & HOOK_ROLES
    and plugin_type.type not in USED
)


def pipeline(*declared: str) -> Pipeline:
    """A profile of the used plugins in a document that declares these."""
    document = {
        "plugins": [{"type": name, "parameters": MINIMAL.get(name, {})} for name in declared],
        "schedulingProfiles": [{"name": "default", "plugins": [{"pluginRef": name} for name in USED]}],
    }
    return build(yaml.safe_dump(document))


def calls_of_a_decision(deciding: Pipeline) -> int:
    """Calls of Python functions within ``schedule``, once all is warm."""
    endpoints, request = make_candidates(20), make_request()
    deciding.scheduler.schedule(request, endpoints)
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        deciding.scheduler.schedule(request, endpoints)
    finally:
        sys.setprofile(None)
    return calls


def test_there_are_some() -> None:
    assert len(UNUSED) >= 15


def test_they_are_in_no_profile_and_in_no_slot() -> None:
    small, large = pipeline(*USED), pipeline(*UNUSED, *USED)
    steps = [[step.name for step in p.scheduler.profiles["default"].scorers] for p in (small, large)]
    assert steps[0] == steps[1] == list(USED[:-1])
    assert not large.scheduler.profiles["default"].filters
    for slot in fields(large.hooks.hooks):
        hooks = getattr(large.hooks.hooks, slot.name)
        if not isinstance(hooks, bool):
            assert {hook.name for hook in hooks}.isdisjoint(UNUSED), slot.name


@pytest.mark.skipif(sys.gettrace() is not None, reason="a tracer counts itself")
def test_a_decision_makes_the_same_calls() -> None:
    assert calls_of_a_decision(pipeline(*UNUSED, *USED)) == calls_of_a_decision(pipeline(*USED)) > 0
