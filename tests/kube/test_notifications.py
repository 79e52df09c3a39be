"""k8s-notification-source: plugins hear of objects in the cluster."""

from __future__ import annotations

from typing import Any

from tests.kube.api import Api, until
from tests.kube.conftest import StartPicker
from tests.kube.manifests import pool, role
from tests.kube.picker import Picker, Way

CONFIG = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: random-picker
- type: object-recorder
- type: k8s-notification-source
  parameters: {version: v1, kind: ConfigMap}
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: random-picker
dataLayer:
  sources:
  - pluginRef: k8s-notification-source
    extractors:
    - pluginRef: object-recorder
"""


def config_map(name: str, **data: str) -> dict[str, Any]:
    """An object to follow."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


async def hears(picker: Picker, events: list[list[Any]]) -> None:
    """Wait until these are the events that the plugin heard."""

    async def holds() -> bool:
        heard: list[list[Any]] = await picker.state("object-recorder")
        return heard == events

    await until(holds, f"the events are {events}")


async def test_plugins_hear_of_objects(api: Api, start: StartPicker, way: Way) -> None:
    rules = [*role()["rules"], {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "watch"]}]
    await api.create(pool())
    await api.create(config_map("a", x="1"))
    picker = await start(config=CONFIG)
    await picker.says("resource may not be read, going on without it")
    await picker.is_ready()
    await api.patch(role(), {"rules": rules})
    heard = [["a", {"x": "1"}]]
    await hears(picker, heard)
    await api.create(config_map("bad", bug="1"))
    await api.create(config_map("b", y="1"))
    await api.patch(config_map("a"), {"data": {"x": "2"}})
    await api.delete(config_map("b"))
    heard += [["b", {"y": "1"}], ["a", {"x": "2"}], ["b", None]]
    await hears(picker, heard)
    assert "a bug" in picker.log
    # What happened while nobody listened is told as it is now.
    await way.cut()
    await api.create(config_map("c", z="1"))
    await api.delete(config_map("a"))
    await way.mend()
    await hears(picker, [*heard, ["c", {"z": "1"}], ["a", None]])


async def test_a_reload_tells_nothing_twice_and_keeps_nothing_back(api: Api, start: StartPicker) -> None:
    rules = [*role()["rules"], {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "watch"]}]
    await api.patch(role(), {"rules": rules})
    await api.create(pool())
    await api.create(config_map("a", x="1"))
    picker = await start(config=CONFIG)
    await hears(picker, [["a", {"x": "1"}]])
    other = CONFIG.replace("- type: random-picker\n", "- type: random-picker\n- type: queue-scorer\n")
    for config in (other, CONFIG):
        await picker.reload(config)
    await api.patch(config_map("a"), {"data": {"x": "2"}})
    await api.delete(config_map("a"))
    await api.create(config_map("last", y="1"))
    await hears(picker, [["a", {"x": "1"}], ["a", {"x": "2"}], ["a", None], ["last", {"y": "1"}]])
    watches = [found for found in api.cluster.audited() if api.namespace in found.uri and "/configmaps" in found.uri]
    assert sum("watch" not in found.uri for found in watches) == 1, "listed once"
