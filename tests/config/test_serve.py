"""What ``for_serve`` refuses and leaves out."""

from __future__ import annotations

from pathlib import Path

import pytest

from epp.config.findings import text_line
from epp.config.loaded import ConfigSource, LoadFlags
from epp.framework.interfaces import Role
from epp.framework.registry import Registry
from tests.config.corpus import GOOD, findings, load, split
from tests.config.doubles import HEADER
from tests.config.doubles import plugin_type as double

SERVE = LoadFlags(for_serve=True)


def text_lines(text: str, flags: LoadFlags, types: Registry) -> list[str]:
    """All findings, also about what is not built."""
    return [text_line(finding) for finding in findings(text, flags, types)]


TYPES = Registry(
    [
        double("single-profile-handler", Role.PROFILE_HANDLER),
        double("max-score-picker", Role.PICKER),
        double("queue-scorer"),
        double("kv-cache-utilization-scorer"),
        double("prefix-cache-scorer", factory=None, wait="prefix caching"),
        double("openai-parser", Role.PARSER),
        double("anthropic-parser", Role.PARSER, factory=None),
        double("metrics-data-source", Role.DATA_SOURCE),
        double("core-metrics-extractor", Role.EXTRACTOR, factory=None),
        double("utilization-detector", Role.SATURATION_DETECTOR, factory=None),
        double("fcfs-ordering-policy", Role.ORDERING_POLICY, factory=None),
    ]
)
DECLARED = HEADER + "plugins: [{type: queue-scorer}, {type: prefix-cache-scorer}]\n"


def test_a_declared_type_that_is_not_built_is_refused() -> None:
    assert text_lines(DECLARED, SERVE, TYPES) == [
        (
            "epp.yaml:3:40: error CFG059: plugins[1].type: the plugin type prefix-cache-scorer is not built yet: "
            "it waits for prefix caching; remove it to serve this configuration"
        )
    ]


def test_check_only_tells_of_it() -> None:
    assert text_lines(DECLARED, LoadFlags(), TYPES) == [
        (
            "epp.yaml:3:40: info INF001: plugins[1].type: the plugin type prefix-cache-scorer is not built yet: "
            "it waits for prefix caching; `epp serve` refuses it"
        )
    ]


def test_strict_does_not_refuse_what_is_not_built() -> None:
    assert [str(f.severity) for f in findings(DECLARED, LoadFlags(strict=True), TYPES)] == ["info"]


def test_the_built_in_document_is_served_by_what_exists() -> None:
    instances = load(ConfigSource.builtin(), SERVE, TYPES)
    config = instances.config
    assert [(p.name, p.plugins) for p in config.profiles] == [
        ("default", (("queue-scorer", 2.0), ("kv-cache-utilization-scorer", 2.0), ("max-score-picker", 1.0)))
    ]
    assert config.parsers == ("openai-parser",)
    assert [(source.name, source.extractors) for source in config.sources] == [("metrics-data-source", ())]
    assert config.detector is None
    assert set(instances.by_name) == {plugin.name for plugin in config.plugins}
    assert [(f.code, f.message) for f in config.findings] == [
        (
            "INF002",
            (
                "these defaults are not built yet and are left out: prefix-cache-scorer, core-metrics-extractor, "
                "fcfs-ordering-policy, utilization-detector, anthropic-parser"
            ),
        )
    ]


def test_flow_control_that_is_not_built_is_told() -> None:
    text = HEADER + "featureGates: [flowControl]\nplugins: [{type: queue-scorer}]\nflowControl: {defaultRequestTTL: 30s}\n"
    assert text_lines(text, LoadFlags(), TYPES) == [
        "epp.yaml:3:1: info INF003: flowControl: flow control is not built yet: requests are not queued"
    ]


def test_in_tree_types_serve_the_built_in_document() -> None:
    instances = load(ConfigSource.builtin(), SERVE)
    assert set(instances.by_name) == {plugin.name for plugin in instances.config.plugins}
    assert instances.config.profiles[0].picker == "max-score-picker"


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_serving_refuses_exactly_the_samples_with_types_that_are_not_built(path: Path) -> None:
    text = split(path)[0]
    config = load(text).config
    absent = {plugin.name for plugin in config.plugins if not plugin.declared and not plugin.is_built}
    unbuilt = {plugin.path for plugin in config.plugins if plugin.declared and (not plugin.is_built or plugin.needs & absent)}
    refused = {f.path.removesuffix(".type") for f in findings(text, SERVE) if f.code == "CFG059"}
    assert refused == unbuilt
