"""Sources of events and who may listen to them."""

from __future__ import annotations

from typing import Any

import pytest

from epp.config.instantiate import instantiate
from epp.config.load import load_config
from epp.config.loaded import ConfigSource
from epp.errors import ConfigError, Finding
from epp.framework.interfaces import Role
from epp.framework.notifications import ObjectEvent
from epp.framework.registry import PluginType, Registry
from tests.config.corpus import registry


class Hears:
    """An extractor of objects of a kind."""

    def __init__(self, kind: str) -> None:
        self.input = f"kubernetes:{kind}"

    def object_changed(self, event: ObjectEvent) -> None:
        """Nothing."""


def extractor(kind: str) -> PluginType:
    """A type of extractors of a kind."""
    return PluginType(
        type=f"{kind.rpartition('/')[2].lower()}-extractor",
        roles=frozenset({Role.OBJECT_EXTRACTOR}),
        summary="Hears of objects.",
        factory=lambda context, params: Hears(kind),
    )


TYPES = Registry((*registry(), extractor("v1/Pod"), extractor("v1/Node"), extractor("apps/v1/Deployment")))
PODS = "{type: k8s-notification-source, name: %s, parameters: {version: v1, kind: Pod}}"


def errors(*entries: str, sources: str) -> list[Finding]:
    """What is wrong with a document of these plugins and sources."""
    text = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- type: random-picker\n"
    text += "".join(f"- {entry}\n" for entry in entries) + f"dataLayer: {{sources: [{sources}]}}\n"
    try:
        instantiate(load_config(ConfigSource.from_text(text), TYPES))
    except ConfigError as error:
        return list(error.findings)
    return []


def test_w10_two_sources_of_one_kind() -> None:
    two = "{pluginRef: a, extractors: [{pluginRef: x}]}, {pluginRef: b, extractors: [{pluginRef: x}]}"
    (found,) = errors(PODS % "a", PODS % "b", "{type: pod-extractor, name: x}", sources=two)
    assert (found.code, found.path) == ("CFG085", "plugins[2].parameters")
    assert found.message == 'the sources "a" and "b" both tell of v1/Pod'


GROUPED = "{type: k8s-notification-source, name: s, parameters: {group: apps, version: v1, kind: Deployment}}"


@pytest.mark.parametrize(
    ("source", "listener", "problem"),
    [
        (PODS % "s", "pod-extractor", None),
        (GROUPED, "deployment-extractor", None),
        (
            PODS % "s",
            "node-extractor",
            'the extractor "x" reads kubernetes:v1/Node, but the source "s" gives kubernetes:v1/Pod',
        ),
        (PODS % "s", "inflight-load-producer", '"x" hears of endpoints, but the source "s" tells of something else'),
        (
            PODS % "s",
            "topology-extractor",
            'the extractor "x" reads endpoint-notification, but the source "s" gives kubernetes:v1/Pod',
        ),
        (
            "{type: models-data-source, name: s}",
            "pod-extractor",
            '"x" hears of Kubernetes objects, but the source "s" tells of something else',
        ),
        ("{type: endpoint-notification-source, name: s}", "inflight-load-producer", None),
        ("{type: endpoint-notification-source, name: s}", "topology-extractor", None),
    ],
)
def test_who_may_listen(source: str, listener: str, problem: Any) -> None:
    found = errors(source, f"{{type: {listener}, name: x}}", sources="{pluginRef: s, extractors: [{pluginRef: x}]}")
    assert [(finding.code, finding.message) for finding in found] == ([("CFG084", problem)] if problem else [])
