"""InferenceObjective and InferenceModelRewrite objects, precomputed into look-ups of constant time.

Files feed this store, and so does a Kubernetes watch, each without knowing of the other.
Source: llm-d-router: pkg/epp/datastore/modelrewritestore.go, pkg/epp/controller/inferenceobjective_reconciler.go.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from epp.framework import log

_logger = log.get(__name__)

GROUP = "llm-d.ai"
LEGACY_GROUP = "inference.networking.x-k8s.io"
POOL_GROUP = "inference.networking.k8s.io"
"""Group of a poolRef that names none."""

FILES, CLUSTER = "files", "cluster"
"""Where objects come from."""


class ObjectKey(NamedTuple):
    """What identifies an object of one kind."""

    group: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class PoolRef:
    """The pool that an object belongs to; its kind is not compared."""

    name: str
    group: str = POOL_GROUP


@dataclass(frozen=True, slots=True)
class InferenceObjective:
    """A named priority. ``priority`` None = unset, which counts as 0."""

    key: ObjectKey
    priority: int | None = None
    pool: PoolRef | None = None
    """None = of every pool (files only)."""


@dataclass(frozen=True, slots=True)
class RewriteTarget:
    """A model name to send instead, with its share of the traffic."""

    model: str
    weight: int | None = None
    """1 to 1,000,000; None = unset. Either all targets of a rule have one, or none."""


@dataclass(frozen=True, slots=True)
class RewriteRule:
    """Which models are rewritten to what."""

    targets: tuple[RewriteTarget, ...]
    """Empty = models that match keep their name."""
    models: tuple[str, ...] = ()
    """Exact names, any of which matches."""
    generic: bool = False
    """Matches every model; used only where no exact rule does."""


@dataclass(frozen=True, slots=True)
class InferenceModelRewrite:
    """Rules of one object, in order."""

    key: ObjectKey
    rules: tuple[RewriteRule, ...]
    pool: PoolRef | None = None
    created_s: float = math.inf
    """Unix time of ``creationTimestamp``; infinity = none given, younger than all others."""


InferenceObject = InferenceObjective | InferenceModelRewrite


class Rewrite(NamedTuple):
    """The outcome of a rule."""

    name: str
    """Of the InferenceModelRewrite that decided."""
    target: str
    """The model name to send."""


@dataclass(frozen=True, slots=True)
class PoolIdentity:
    """The pool that this process serves."""

    name: str
    namespace: str = "default"
    group: str = POOL_GROUP

    def owns(self, key: ObjectKey, pool: PoolRef | None) -> bool:
        """An object with this key and poolRef is ours."""
        return key.namespace == self.namespace and (pool is None or (pool.name == self.name and pool.group == self.group))


class _Choice:
    """The targets of one rule, ready to draw from."""

    __slots__ = ("_bounds", "_rewrites")

    def __init__(self, name: str, targets: tuple[RewriteTarget, ...]) -> None:
        # Targets without a weight beside weighted ones are never drawn; with no weight at all every target is alike.
        weighted = [t for t in targets if t.weight] or list(targets)
        self._rewrites = [Rewrite(name, t.model) for t in weighted]
        self._bounds = list(accumulate(t.weight or 1 for t in weighted))

    def draw(self, rng: random.Random) -> Rewrite | None:
        rewrites = self._rewrites
        if len(rewrites) == 1:
            return rewrites[0]
        if not rewrites:
            return None
        return rewrites[bisect_right(self._bounds, rng.randrange(self._bounds[-1]))]


class ObjectStore:
    """The objects of one pool, by kind. Objects of other pools are kept, so that re-pointing one works, but never used.

    Args:
        pool: what a poolRef must name.
        rng: draws among weighted targets.
    """

    def __init__(self, pool: PoolIdentity, rng: random.Random | None = None) -> None:
        self.pool = pool
        self._rng = rng or random.Random()
        self._by_origin: dict[str, dict[tuple[type[InferenceObject], ObjectKey], InferenceObject]] = {CLUSTER: {}, FILES: {}}
        self._objects: dict[tuple[type[InferenceObject], ObjectKey], InferenceObject] = {}
        self._priorities: dict[str, int] = {}
        self._explicit_priorities: frozenset[int] = frozenset()
        self._exact: dict[str, _Choice] = {}
        self._generic: _Choice | None = None
        self._models: frozenset[str] = frozenset()
        self._listeners: list[Callable[[], None]] = []
        self._said: set[tuple[str, type[InferenceObject], ObjectKey]] = set()

    # ── reading ──

    def priority(self, objective: str) -> int:
        """The priority of the objective with this name; 0 if it is unknown or has none."""
        return self._priorities.get(objective, 0)

    def resolve(self, model: str) -> Rewrite | None:
        """What ``model`` ("" = the request names none) is rewritten to; None = it keeps its name."""
        choice = self._exact.get(model, self._generic)
        return choice.draw(self._rng) if choice is not None else None

    @property
    def priorities(self) -> frozenset[int]:
        """All priorities that objectives set explicitly."""
        return self._explicit_priorities

    @property
    def rewrite_models(self) -> frozenset[str]:
        """Every model name that a rewrite mentions: these never fold in metric labels."""
        return self._models

    @property
    def objects(self) -> Mapping[tuple[type[InferenceObject], ObjectKey], InferenceObject]:
        """All objects, those of other pools included."""
        return self._objects

    # ── writing ──

    def put(self, obj: InferenceObject, origin: str = FILES) -> None:
        """Add or replace one object of an origin."""
        self._by_origin[origin][(type(obj), obj.key)] = obj
        self._rebuild()

    def remove(self, kind: type[InferenceObject], key: ObjectKey, origin: str = FILES) -> None:
        """Remove one object of an origin; nothing happens if it is not there."""
        if self._by_origin[origin].pop((kind, key), None) is not None:
            self._rebuild()

    def replace_all(self, objects: Iterable[InferenceObject], origin: str = FILES) -> None:
        """Make the objects that came from ``origin`` equal to these; of a doubled key the last one counts."""
        self._by_origin[origin] = {(type(obj), obj.key): obj for obj in objects}
        self._rebuild()

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after every change."""
        self._listeners.append(callback)

    # ── inside ──

    def _rebuild(self) -> None:
        # What a file says of an object wins over what the cluster says of it.
        self._objects = {**self._by_origin[CLUSTER], **self._by_origin[FILES]}
        self._said = {said for said in self._said if said[1:] in self._objects}
        used = self._used_objects()
        objectives = [o for o in used if isinstance(o, InferenceObjective)]
        self._priorities = {o.key.name: o.priority or 0 for o in objectives}
        self._explicit_priorities = frozenset(o.priority for o in objectives if o.priority is not None)
        self._index_rewrites([o for o in used if isinstance(o, InferenceModelRewrite)])
        for callback in self._listeners:
            callback()

    def _used_objects(self) -> list[InferenceObject]:
        """Ours; where both groups have a name, the one of the current group."""
        used: list[InferenceObject] = []
        for (kind, key), obj in self._objects.items():
            if not self.pool.owns(key, obj.pool):
                continue
            if key.group != GROUP and self._is_shadowed(kind, key):
                self._say_once("object of the legacy group ignored, the current group has one of this name", kind, key)
                continue
            if key.group != GROUP:
                self._say_once("object group is deprecated, use llm-d.ai", kind, key)
            used.append(obj)
        return used

    def _is_shadowed(self, kind: type[InferenceObject], key: ObjectKey) -> bool:
        current = self._objects.get((kind, key._replace(group=GROUP)))
        return current is not None and self.pool.owns(current.key, current.pool)

    def _index_rewrites(self, rewrites: list[InferenceModelRewrite]) -> None:
        rewrites.sort(key=lambda r: (r.created_s, r.key.namespace, r.key.name))
        exact: dict[str, _Choice] = {}
        generic: _Choice | None = None
        for rewrite in rewrites:
            for rule in rewrite.rules:
                self._check_weights(rewrite, rule)
                choice = _Choice(rewrite.key.name, rule.targets)
                for model in rule.models:
                    exact.setdefault(model, choice)
                if rule.generic and generic is None:
                    generic = choice
        self._exact, self._generic = exact, generic
        rules = [rule for rewrite in rewrites for rule in rewrite.rules]
        self._models = frozenset(name for rule in rules for name in (*rule.models, *(target.model for target in rule.targets)))

    def _check_weights(self, rewrite: InferenceModelRewrite, rule: RewriteRule) -> None:
        weighted = sum(1 for target in rule.targets if target.weight)
        if 0 < weighted < len(rule.targets):
            self._say_once("rewrite targets without a weight are never chosen", type(rewrite), rewrite.key)

    def _say_once(self, event: str, kind: type[InferenceObject], key: ObjectKey) -> None:
        if (event, kind, key) in self._said:
            return
        self._said.add((event, kind, key))
        _logger.warning(event, kind=kind.__name__, group=key.group, object=key.name)
