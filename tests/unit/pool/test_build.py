"""Plugin instances of a configuration become a pipeline; plugins that misbehave are counted each time and logged seldom."""

from __future__ import annotations

from typing import Any

import pytest

import plugins
from epp.config.loaded import ConfigSource, Instances
from epp.datalayer.membership import PluginFollowers
from epp.datalayer.store import EndpointStore
from epp.decision.director import Pipeline
from epp.framework.data import Consumes, DataKey
from epp.framework.interfaces import HOOK_ROLES, Role
from epp.framework.registry import PluginType, Reads, Registry
from epp.framework.testing import FakeClock, make_candidates, make_request
from epp.framework.types import EndpointChange
from epp.plugin_calls.defects import EXTENSION_POINTS, PluginDefects
from epp.pool.build import PipelineBuilder, followers
from epp.process.runtime import TaskRuntime
from epp.telemetry.metrics import Metrics
from tests.config.corpus import load
from tests.config.doubles import HEADER, plugin_type
from tests.unit.decision.rig import AsyncPlugin, Plugin
from tests.unit.scheduling.doubles import Reports
from tests.unit.telemetry.scrape import value


def hook_type(name: str, kind: type[Plugin] = Plugin, *roles: Role, **more: Any) -> PluginType:
    """A type whose instances have every hook."""
    roles = roles or tuple(sorted(HOOK_ROLES))
    return plugin_type(name, *roles, factory=lambda context, params: kind(context.name, []), **more)


def registry(*more: PluginType) -> Registry:
    found = Registry()
    plugins.register_all(found)
    for each in more:
        found.register(each)
    return found


def build(document: str, *more: PluginType, metrics: Metrics | None = None) -> Pipeline:
    return built(load(HEADER + document, types=registry(*more)), metrics or Metrics())


def built(instances: Instances, metrics: Metrics) -> Pipeline:
    return PipelineBuilder(instances, metrics, Reports(), TaskRuntime().spawn).build()


FILTER_BEHIND_SCORER = """
plugins:
- {type: queue-scorer}
- {type: by-label, parameters: {label: role, validValues: [decode]}}
- {type: max-score-picker, name: best}
- {type: kv-cache-utilization-scorer, name: kv}
schedulingProfiles:
- name: default
  plugins: [{pluginRef: queue-scorer, weight: 2}, {pluginRef: best}, {pluginRef: by-label}, {pluginRef: kv, weight: 0.5}]
"""


def test_a_profile_keeps_the_order_within_each_kind() -> None:
    pipeline = build(FILTER_BEHIND_SCORER)
    profile = pipeline.scheduler.profiles["default"]
    assert [step.name for step in profile.filters] == ["by-label"], "S22: a filter behind a scorer runs before it"
    assert [(step.name, step.watch.type, step.weight) for step in profile.scorers] == [
        ("queue-scorer", "queue-scorer", 2),
        ("kv", "kv-cache-utilization-scorer", 0.5),
    ]
    assert (profile.picker.name, profile.picker.watch.type) == ("best", "max-score-picker")
    assert pipeline.scheduler.handler.watch.name == "single-profile-handler"


def test_the_pipeline_decides_and_times_its_plugins() -> None:
    metrics = Metrics()
    pipeline = build(FILTER_BEHIND_SCORER, metrics=metrics)
    candidates = make_candidates(2, [{"role": "prefill"}, {"role": "decode"}])
    assert [e.name for e in pipeline.scheduler.schedule(make_request(), candidates).targets] == ["b"]
    for point, name in (("Filter", "by-label"), ("Scorer", "kv"), ("Picker", "best")):
        labels = {"extension_point": point, "plugin_name": name}
        assert value(metrics, "llm_d_epp_plugin_duration_seconds_count", **labels) == 1
    for point, calls in (("ProfilePicker", 2), ("ProcessProfilesResults", 1)):
        assert value(metrics, "llm_d_epp_plugin_duration_seconds_count", extension_point=point) == calls


def test_the_default_configuration_is_built() -> None:
    pipeline = built(load(ConfigSource.builtin()), Metrics())
    assert pipeline.scheduler.profiles["default"].scorers
    assert {parser.type for parser in pipeline.parsers.parsers} >= {"openai-parser", "passthrough-parser"}


def test_hooks_are_in_declaration_order() -> None:
    pipeline = build("plugins: [{type: second}, {type: first}]\n", hook_type("first"), hook_type("second", AsyncPlugin))
    slots = pipeline.hooks.hooks
    for slot in (slots.request_header, slots.screeners, slots.admitters):
        assert [hook.name for hook in slot] == ["second", "first"]
    for later in (slots.received, slots.streaming, slots.complete):
        assert [hook.name for hook in later] == ["second", "first"]
    assert [(hook.name, hook.is_async) for hook in slots.admitters] == [("second", True), ("first", False)]
    assert [hook.name for hook in slots.pre_request] == ["first", "second"], "what waits follows what reserves"


def test_a_plugin_is_in_the_slots_of_its_roles_only() -> None:
    slots = build("plugins: [{type: p}]\n", hook_type("p", Plugin, Role.PRE_REQUEST)).hooks.hooks
    assert [hook.name for hook in slots.pre_request] == ["p"]
    assert not slots.complete
    assert not slots.producers


@pytest.mark.parametrize(("reads", "expected"), [(Reads(response_chunks=True), True), (Reads(), False)], ids=["chunks", "none"])
def test_chunks_are_told_only_to_those_who_read_them(reads: Reads, expected: bool) -> None:
    pipeline = build("plugins: [{type: p}]\n", hook_type("p", Plugin, Role.RESPONSE_STREAMING, reads=reads))
    assert pipeline.hooks.hooks.every_chunk is expected


def test_a_producer_needs_those_that_write_what_it_requires() -> None:
    one, other = DataKey("one", int, "writer"), DataKey("other", int, "writer")
    pipeline = build(
        "plugins: [{type: reader}, {type: idler}, {type: writer}]\n",
        hook_type("writer", Plugin, Role.DATA_PRODUCER, produces=(one, other)),
        hook_type("reader", Plugin, Role.DATA_PRODUCER, consumes=(Consumes(one),)),
        hook_type("idler", Plugin, Role.DATA_PRODUCER, consumes=(Consumes(other, required=False),)),
    )
    needs = {hook.name: set(hook.needs) for hook in pipeline.hooks.hooks.producers}
    assert needs == {"writer": set(), "reader": {"writer"}, "idler": set()}


def test_parsers_that_are_never_asked_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    document = """
plugins: [{type: passthrough-parser}, {type: openai-parser}]
requestHandler: {parsers: [{pluginRef: passthrough-parser}, {pluginRef: openai-parser}]}
"""
    build(document)
    told = [record.fields for record in caplog.records if record.getMessage() == "parser is never asked"]  # type: ignore[attr-defined]  # our logger's
    assert [(fields["plugin"], fields["reason"]) for fields in told] == [
        ("openai-parser", "passthrough-parser comes earlier and takes every path")
    ]


def test_every_hook_has_its_place_in_metrics() -> None:
    assert EXTENSION_POINTS.keys() >= HOOK_ROLES
    assert len(set(EXTENSION_POINTS.values())) == len(EXTENSION_POINTS)


def test_defects_are_counted_each_time_and_logged_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    metrics, clock = Metrics(), FakeClock()
    defects = PluginDefects(metrics, clock)
    for seconds in (0, 1, 8.9, 0.2, 5):
        clock.advance(seconds)
        defects.plugin_failed(Role.SCORER, "queue-scorer", "queue", ZeroDivisionError("by zero"))
    defects.plugin_failed(Role.SCORER, "queue-scorer", "other", "returned NaN, which counts as 0")
    labels = {"extension_point": "Scorer", "plugin_type": "queue-scorer", "plugin_name": "queue"}
    assert value(metrics, "llm_d_epp_plugin_errors_total", **labels) == 5
    shown = [(r.fields["plugin"], r.fields["problem"], bool(r.exc_info)) for r in caplog.records]  # type: ignore[attr-defined]  # our logger's
    assert shown == [
        ("queue", "by zero", True),
        ("queue", "by zero", True),
        ("other", "returned NaN, which counts as 0", False),
    ]


def test_plugins_that_follow_endpoints_hear_of_them_and_their_defects_are_counted() -> None:
    class Follows(Plugin):
        def endpoints_changed(self, change: EndpointChange) -> None:
            self.heard = change
            if self.name == "broken":
                raise RuntimeError("a bug")

    document = "plugins: [{type: follows, name: broken}, {type: queue-scorer}, {type: follows, name: good}]\n"
    instances = load(HEADER + document, types=registry(hook_type("follows", Follows)))
    found, metrics, store = followers(instances), Metrics(), EndpointStore()
    assert [(each.type, each.name) for each in found] == [("follows", "broken"), ("follows", "good")]
    store.subscribe(PluginFollowers(found, PluginDefects(metrics)))
    store.replace_all(make_candidates(2).endpoints)
    good = found[1].plugin
    assert isinstance(good, Follows)
    assert good.heard == EndpointChange(added=tuple(store))
    labels = {"extension_point": "FollowsEndpoints", "plugin_type": "follows", "plugin_name": "broken"}
    assert value(metrics, "llm_d_epp_plugin_errors_total", **labels) == 1
