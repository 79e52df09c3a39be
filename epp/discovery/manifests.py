"""Kubernetes manifests of InferenceObjective and InferenceModelRewrite → objects of the datalayer."""

from __future__ import annotations

import datetime as dt
import difflib
import math
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, ValidationError

from epp.datalayer.objects import (
    GROUP,
    LEGACY_GROUP,
    POOL_GROUP,
    InferenceModelRewrite,
    InferenceObject,
    InferenceObjective,
    ObjectKey,
    PoolRef,
    RewriteRule,
    RewriteTarget,
)
from epp.errors import Finding
from epp.framework.documents import Path, path_text
from epp.framework.params import Int, Params

VERSIONS = tuple(f"{group}/v1alpha2" for group in (GROUP, LEGACY_GROUP))
KINDS = ("InferenceObjective", "InferenceModelRewrite")
_INT32 = 2**31


class _PoolRef(Params):
    group: str = POOL_GROUP
    kind: str = "InferencePool"
    name: str = Field(min_length=1)


class _Objective(Params):
    priority: Int | None = Field(None, ge=-_INT32, lt=_INT32)
    pool_ref: _PoolRef | None = None


class _Model(Params):
    type: Literal["Exact"] = "Exact"
    value: str = Field(min_length=1)


class _Match(Params):
    model: _Model | None = None


class _Target(Params):
    model_rewrite: str = Field(min_length=1)
    weight: Int | None = Field(None, ge=1, le=1_000_000)


class _Rule(Params):
    matches: list[_Match] | None = None
    targets: list[_Target] | None = None


class _Rewrite(Params):
    pool_ref: _PoolRef | None = None
    rules: list[_Rule]


class ManifestError(Exception):
    """A manifest that is no valid object.

    Args:
        findings: all that is wrong with it; their places are still unknown.
        paths: for each finding, where in the manifest.
        identity: kind and key of the object it was meant to be, if they can be read.
    """

    def __init__(
        self, findings: list[Finding], paths: list[Path], identity: tuple[type[InferenceObject], ObjectKey] | None
    ) -> None:
        super().__init__("; ".join(f"{finding.path}: {finding.message}" for finding in findings))
        self.findings = findings
        self.paths = paths
        self.identity = identity


def parse_manifest(manifest: object, namespace: str, *, from_cluster: bool = False) -> InferenceObject:
    """The object of one manifest.

    Args:
        manifest: plain values.
        namespace: of objects that name none.
        from_cluster: fields that are not known are those of a newer definition, not mistakes.

    Raises:
        ManifestError: with all that is wrong.
    """
    return _Reader(manifest, namespace, from_cluster=from_cluster).read()


class _Reader:
    def __init__(self, manifest: object, namespace: str, *, from_cluster: bool) -> None:
        self._from_cluster = from_cluster
        self._manifest: dict[str, Any] = manifest if isinstance(manifest, dict) else {}
        self._is_mapping = isinstance(manifest, dict)
        self._namespace = namespace
        self._findings: list[Finding] = []
        self._paths: list[Path] = []

    def read(self) -> InferenceObject:
        if not self._is_mapping:
            self._add((), "a manifest must be a mapping", "write apiVersion, kind, metadata and spec")
            raise ManifestError(self._findings, self._paths, None)
        kind, group = self._kind(), self._group()
        if not kind:
            raise ManifestError(self._findings, self._paths, None)
        metadata = self._mapping("metadata")
        key = ObjectKey(group, self._namespace_of(metadata), self._name(metadata))
        created_s = self._created(metadata)
        if not self._from_cluster:
            self._check_keys()
        is_objective = kind == "InferenceObjective"
        spec = self._spec(_Objective if is_objective else _Rewrite)
        if self._findings:
            known = (InferenceObjective if is_objective else InferenceModelRewrite, key) if all(key) else None
            raise ManifestError(self._findings, self._paths, known)
        if isinstance(spec, _Objective):
            return InferenceObjective(key, spec.priority, _pool(spec.pool_ref))
        assert isinstance(spec, _Rewrite)
        return InferenceModelRewrite(key, tuple(map(_rule, spec.rules)), _pool(spec.pool_ref), created_s)

    def _kind(self) -> str:
        kind = self._manifest.get("kind")
        if kind in KINDS:
            return str(kind)
        self._add(("kind",), "this kind of object is not read from files", _nearest(kind, KINDS), kind)
        return ""

    def _group(self) -> str:
        version = self._manifest.get("apiVersion")
        if version in VERSIONS:
            return str(version).partition("/")[0]
        self._add(("apiVersion",), "this version is not known", _nearest(version, VERSIONS), version)
        return ""

    def _mapping(self, key: str) -> dict[str, Any]:
        value = self._manifest.get(key)
        if isinstance(value, dict):
            return value
        what = f"{key} is missing" if value is None else f"{key} must be a mapping"
        self._add((key,), what, f"give the object its {key}", value)
        return {}

    def _name(self, metadata: dict[str, Any]) -> str:
        name = metadata.get("name")
        if isinstance(name, str) and name:
            return name
        if metadata:
            self._add(("metadata", "name"), "the name must be a string that is not empty", "name the object", name)
        return ""

    def _namespace_of(self, metadata: dict[str, Any]) -> str:
        namespace = metadata.get("namespace")
        if namespace is None:
            return self._namespace
        if isinstance(namespace, str) and namespace:
            return namespace
        self._add(("metadata", "namespace"), "the namespace must be a string that is not empty", "leave it out", namespace)
        return ""

    def _created(self, metadata: dict[str, Any]) -> float:
        """Unix time; infinity where none is given: what was never created in a cluster is younger than all else."""
        value = metadata.get("creationTimestamp")
        if value is None:
            return math.inf
        try:
            moment = dt.datetime.fromisoformat(value) if isinstance(value, str) else value
        except ValueError:
            moment = None
        if not isinstance(moment, dt.datetime):
            fix = "write it as 2026-01-31T12:00:00Z, or leave it out"
            self._add(("metadata", "creationTimestamp"), "this is no time", fix, value)
            return math.inf
        # A time without zone is UTC, as PyYAML converts all it reads.
        return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()

    def _check_keys(self) -> None:
        known = ("apiVersion", "kind", "metadata", "spec", "status")
        for key in self._manifest:
            if key not in known:
                self._add((key,), f"unknown field {key!r}", _nearest(key, known))

    def _spec(self, model: type[Params]) -> Params | None:
        spec = self._mapping("spec")
        if "spec" not in self._manifest:
            return None
        try:
            return model.decode(spec)
        except ValidationError as error:
            entries = error.errors(include_url=False)
        unknown = [entry for entry in entries if entry["type"] == "extra_forbidden"]
        if self._from_cluster and unknown:
            for entry in unknown:
                _remove(spec, entry["loc"])
            return self._spec(model)
        for entry in entries:
            self._add_invalid(model, entry)
        return None

    def _add_invalid(self, model: type[Params], entry: Any) -> None:
        path: Path = ("spec", *entry["loc"])
        value = entry["input"] if isinstance(entry["input"], (str, int, float, bool)) else None
        if entry["type"] == "extra_forbidden":
            key = str(entry["loc"][-1])
            self._add(path, f"unknown field {key!r}", _nearest(key, _field_names(model)))
        elif entry["type"] == "missing":
            self._add(path, "this field is required", "give it a value")
        else:
            self._add(path, entry["msg"], "correct the value", value)

    def _add(self, path: Path, message: str, fix: str, value: object = None) -> None:
        shown = value if isinstance(value, (str, int, float, bool)) else None
        self._findings.append(Finding("OBJ002", path_text(path), message, fix, shown))
        self._paths.append(path)


def _remove(document: Any, path: Sequence[str | int]) -> None:
    """Delete the member at a path."""
    for step in path[:-1]:
        document = document[step]
    del document[path[-1]]


def _pool(reference: _PoolRef | None) -> PoolRef | None:
    return PoolRef(reference.name, reference.group) if reference is not None else None


def _rule(rule: _Rule) -> RewriteRule:
    targets = tuple(RewriteTarget(target.model_rewrite, target.weight) for target in rule.targets or ())
    # A match without a model matches nothing; only a rule without any match is generic.
    models = tuple(match.model.value for match in rule.matches or () if match.model is not None)
    return RewriteRule(targets, models, generic=not rule.matches)


def _field_names(model: type[Params]) -> list[str]:
    """All field names of the objects, for suggestions."""
    models = (model, _PoolRef, _Model, _Match, _Target, _Rule)
    return [info.alias or name for each in models for name, info in each.model_fields.items()]


def _nearest(value: object, known: tuple[str, ...] | list[str]) -> str:
    near = difflib.get_close_matches(str(value), known, 1, 0.5)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
