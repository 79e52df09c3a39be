"""What is different between two configurations: what serves on, what takes a restart."""

from __future__ import annotations

import pytest
import yaml

from epp.config.changes import Changes, compare
from epp.config.load import load_config
from epp.config.loaded import ConfigSource, LoadedConfig, LoadFlags
from tests.config.corpus import registry

BASE = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: queue-scorer}
- {type: load-aware-scorer, parameters: {threshold: 64}}
- {type: by-label, parameters: {label: tier, validValues: [gold]}}
- {type: active-request-scorer, parameters: {requestTimeout: 1m}}
schedulingProfiles:
- name: default
  plugins: [{pluginRef: queue-scorer, weight: 2}, {pluginRef: load-aware-scorer}, {pluginRef: active-request-scorer}]
"""


def load(text: str) -> LoadedConfig:
    return load_config(ConfigSource.from_text(text), registry(), LoadFlags(for_serve=True))


def changed(old: str, new: str) -> Changes:
    """What a replacement of text in the document changes."""
    assert old in BASE
    return compare(load(BASE), load(BASE.replace(old, new)))


def test_nothing_changes_by_another_way_of_writing() -> None:
    changes = compare(load(BASE), load("# the same\n" + yaml.safe_dump(yaml.safe_load(BASE))))
    assert changes.is_nothing
    assert {"queue-scorer", "active-request-scorer", "single-profile-handler"} <= changes.unchanged


@pytest.mark.parametrize(
    ("old", "new", "plugins", "sections"),
    [
        pytest.param("weight: 2", "weight: 3", ((), (), ()), ("schedulingProfiles",), id="a weight"),
        pytest.param("threshold: 64", "threshold: 32", (("load-aware-scorer",), (), ()), (), id="a parameter"),
        pytest.param("[gold]", "[gold, silver]", (("by-label",), (), ()), (), id="a parameter of a filter"),
        pytest.param(
            "- {type: queue-scorer}",
            "- {type: queue-scorer}\n- {type: random-picker, name: other}",
            ((), ("other",), ("max-score-picker",)),
            ("schedulingProfiles",),
            id="a picker",
        ),
        pytest.param(
            "- {type: by-label, parameters: {label: tier, validValues: [gold]}}\n",
            "",
            ((), (), ("by-label",)),
            (),
            id="one less",
        ),
        pytest.param("name: default\n", "name: other\n", ((), (), ()), ("schedulingProfiles",), id="the name of a profile"),
        pytest.param(
            "schedulingProfiles:",
            "saturationDetector: {queueDepthThreshold: 9}\nschedulingProfiles:",
            (("utilization-detector",), (), ()),
            (),
            id="the detector",
        ),
    ],
)
def test_what_is_exchanged_while_serving(
    old: str, new: str, plugins: tuple[tuple[str, ...], ...], sections: tuple[str, ...]
) -> None:
    changes = changed(old, new)
    assert changes.restart == ()
    assert (changes.changed, changes.added, changes.removed) == plugins
    assert changes.sections == sections
    assert not changes.is_nothing
    assert "active-request-scorer" in changes.unchanged


@pytest.mark.parametrize(
    ("more", "paths"),
    [
        pytest.param("featureGates: [prepareDataPlugins]", ("featureGates: prepareDataPlugins",), id="a gate"),
        pytest.param("requestHandler: {parsers: [{pluginRef: openai-parser}]}", ("requestHandler.parsers",), id="parsers"),
        pytest.param("dataLayer: {injectDefaults: false}", ("dataLayer.sources", "dataLayer"), id="data sources"),
        pytest.param(
            "dataLayer: {discovery: {pluginRef: fd}}\nplugins:\n- {type: file-discovery, name: fd, parameters: {path: /x}}",
            ("dataLayer.discovery", "dataLayer"),
            id="discovery",
        ),
    ],
)
def test_what_takes_a_restart(more: str, paths: tuple[str, ...]) -> None:
    assert changed("\nplugins:", f"\n{more}" if "plugins:\n" in more else f"\n{more}\nplugins:").restart == paths


def test_a_changed_parameter_of_a_data_source_takes_a_restart() -> None:
    with_source = BASE.replace("\nplugins:", "\nplugins:\n- {type: metrics-data-source, parameters: {path: /a}}")
    changes = compare(load(with_source), load(with_source.replace("/a", "/b")))
    assert (changes.changed, changes.restart) == (("metrics-data-source",), ("dataLayer.sources",))


def test_a_plugin_that_cannot_be_exchanged_takes_a_restart() -> None:
    gates = "\nfeatureGates: [prepareDataPlugins]\nplugins:"
    tokenizer = "\n- {type: tokenizer, parameters: {modelName: m}}"
    without = load(BASE.replace("\nplugins:", gates))
    changes = compare(without, load(BASE.replace("\nplugins:", gates + tokenizer)))
    assert changes.restart == ("plugins[0] (tokenizer)",)


def test_what_needs_a_changed_plugin_changes_too() -> None:
    more = "\nplugins:\n- {type: token-load-scorer}\n- {type: inflight-load-producer, parameters: {outputRatio: 1}}"
    document = BASE.replace("\nplugins:", more)
    changes = compare(load(document), load(document.replace("outputRatio: 1", "outputRatio: 2")))
    assert changes.changed == ("token-load-scorer", "inflight-load-producer")


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("name: default\n", "name: other\n", "profiles"),
        ("{type: queue-scorer}", "{type: queue-scorer}\n- {type: random-picker}", "declared"),
    ],
)
def test_a_plugin_that_looked_at_the_whole_changes_with_it(old: str, new: str, part: str) -> None:
    before, after = load(BASE), load(BASE.replace(old, new))
    changes = compare(before, after, lambda name: (part,) if name == "active-request-scorer" else ())
    assert changes.changed == ("active-request-scorer",)
    assert compare(before, load(BASE.replace("weight: 2", "weight: 4")), lambda _: (part,)).changed == ()
