"""The picker as the cluster runs it: replicas, container and the flags that it was started with."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from epp.doctor.cluster.view import ClusterView, labels_of, matches, name_of, selector_of
from epp.doctor.documents import Json, mapping, mappings, number

_BY_FLAG = ("--pool-name", "--endpoint-selector", "--config-file", "--pools-file")
"""Flags by which the picker's container is known among others."""
_BY_VARIABLE = tuple(f"EPP_{flag.removeprefix('--').upper().replace('-', '_')}" for flag in _BY_FLAG)
_FALSE = ("0", "f", "F", "false", "FALSE", "False")
_REFERENCE = re.compile(r"\$\((\w+)\)")


@dataclass(frozen=True, slots=True)
class Workload:
    """A Deployment, or a pod where that is all that can be seen."""

    kind: str
    name: str
    replicas: int
    pod: Json
    """``spec`` of its pods."""
    container: Json
    labels: Json = field(default_factory=dict)
    """Of its pods."""
    strategy: Json = field(default_factory=dict)

    @property
    def title(self) -> str:
        """For messages."""
        return f"{self.kind} {self.name}"

    @property
    def account(self) -> str:
        """Name of the service account."""
        return str(self.pod.get("serviceAccountName") or "default")

    @property
    def declared_ports(self) -> Mapping[str, int]:
        """Names of all containers' ports."""
        return {
            str(port["name"]): number(port.get("containerPort"), 0)
            for container in mappings(self.pod.get("containers"))
            for port in mappings(container.get("ports"))
            if port.get("name")
        }

    def flag(self, name: str, default: str = "") -> str:
        """The text of a flag, from the command line or its variable; the last one counts, and an empty one is none."""
        environ = self._environ()
        text = environ.get(f"EPP_{name.upper().replace('-', '_')}", "")
        words = self._words()
        for index, word in enumerate(words):
            following = words[index + 1] if index + 1 < len(words) else ""
            if word == f"--{name}":
                text = following if following and not following.startswith("-") else "true"
            elif word == f"--no-{name}":
                text = "false"
            elif word.startswith(f"--{name}="):
                text = word.partition("=")[2]
        return _REFERENCE.sub(lambda found: environ.get(found[1], ""), text) or default

    def is_on(self, name: str, *, default: bool = False) -> bool:
        """Whether a boolean flag is."""
        text = self.flag(name)
        return text not in _FALSE if text else default

    def variable(self, name: str) -> str:
        """The text of a variable; empty where it comes from elsewhere."""
        return self._environ().get(name, "")

    def mount(self, path: str) -> Json:
        """The mount that a path lies in; empty if it lies in none."""
        found = [m for m in mappings(self.container.get("volumeMounts")) if _lies_in(path, str(m.get("mountPath", "")))]
        return max(found, key=lambda mount: len(str(mount.get("mountPath"))), default={})

    def secret(self, path: str) -> str:
        """Name of the Secret that a path comes from; empty if it comes from none."""
        return str(mapping(self._volume(path).get("secret")).get("secretName") or "")

    def config_map(self, path: str) -> str:
        """Name of the ConfigMap that a path comes from; empty if it comes from none."""
        return str(mapping(self._volume(path).get("configMap")).get("name") or "")

    def key_of(self, path: str) -> str:
        """The key of its ConfigMap that a file comes from."""
        mount = self.mount(path)
        within = path.removeprefix(str(mount.get("mountPath", ""))).strip("/")
        file = "/".join(part for part in (str(mount.get("subPath") or ""), within) if part)
        items = mappings(mapping(self._volume(path).get("configMap")).get("items"))
        return next((str(item.get("key")) for item in items if item.get("path") == file), file)

    def _volume(self, path: str) -> Json:
        name = self.mount(path).get("name")
        return next((volume for volume in mappings(self.pod.get("volumes")) if name and volume.get("name") == name), {})

    def _words(self) -> Sequence[str]:
        return _words(self.container)

    def _environ(self) -> dict[str, str]:
        return {
            str(entry.get("name")): str(entry["value"]) for entry in mappings(self.container.get("env")) if entry.get("value")
        }


def picker_workload(view: ClusterView) -> Workload | None:
    """The picker behind the pool's Service; None if nothing shows it, or what is there is a model server."""
    found = _behind(view)
    if found is not None and not _is_picker(found.container):
        servers = selector_of(view.pool or {})
        if servers and matches(servers, found.labels):
            return None
    return found


def _behind(view: ClusterView) -> Workload | None:
    selector = mapping(mapping(mapping(view.service).get("spec")).get("selector"))
    if not selector:
        return None
    for deployment in view.deployments.items:
        spec = mapping(deployment.get("spec"))
        template = mapping(spec.get("template"))
        if matches(selector, labels_of(template)):
            pod = mapping(template.get("spec"))
            replicas = number(spec.get("replicas"), 1)
            strategy = mapping(spec.get("strategy"))
            return Workload("Deployment", name_of(deployment), replicas, pod, _container(pod), labels_of(template), strategy)
    if pods := view.picker_pods:
        spec = mapping(pods[0].get("spec"))
        return Workload("Pod", name_of(pods[0]), len(pods), spec, _container(spec), labels_of(pods[0]))
    return None


def _container(pod: Json) -> Json:
    """The picker's own; side-cars stand beside it."""
    containers = mappings(pod.get("containers"))
    return next((each for each in containers if _is_picker(each)), containers[0] if containers else {})


def _is_picker(container: Json) -> bool:
    variables = {str(entry.get("name")) for entry in mappings(container.get("env"))}
    return any(word.partition("=")[0] in _BY_FLAG for word in _words(container)) or not variables.isdisjoint(_BY_VARIABLE)


def _words(container: Json) -> list[str]:
    return [str(word) for key in ("command", "args") for word in container.get(key) or ()]


def _lies_in(path: str, folder: str) -> bool:
    return bool(path and folder) and (path == folder or path.startswith(folder.rstrip("/") + "/"))
