"""ObjectStore: priorities of objectives, model rewrites. Cases O1 to O14 of the datalayer contract."""

from __future__ import annotations

import logging
import random
from collections import Counter

import pytest

from epp.datalayer.objects import (
    GROUP,
    LEGACY_GROUP,
    InferenceModelRewrite,
    InferenceObject,
    InferenceObjective,
    ObjectKey,
    ObjectStore,
    PoolIdentity,
    PoolRef,
    RewriteRule,
    RewriteTarget,
)

POOL = PoolIdentity("pool")
OURS = PoolRef("pool")


def objective(
    name: str = "gold", priority: int | None = 5, pool: PoolRef | None = OURS, group: str = GROUP, namespace: str = "default"
) -> InferenceObjective:
    return InferenceObjective(ObjectKey(group, namespace, name), priority, pool)


def rule(*targets: str | tuple[str, int | None], models: tuple[str, ...] = (), generic: bool = False) -> RewriteRule:
    made = tuple(RewriteTarget(t) if isinstance(t, str) else RewriteTarget(*t) for t in targets)
    return RewriteRule(made, models, generic)


def rewrite(
    name: str, *rules: RewriteRule, created_s: float = 1.0, pool: PoolRef | None = OURS, group: str = GROUP
) -> InferenceModelRewrite:
    return InferenceModelRewrite(ObjectKey(group, "default", name), rules, pool, created_s)


def store_of(*objects: InferenceObject, seed: int = 1) -> ObjectStore:
    store = ObjectStore(POOL, random.Random(seed))
    store.replace_all(objects)
    return store


@pytest.mark.parametrize(
    ("obj", "priority"),
    [
        pytest.param(objective(), 5, id="O1 right pool and group"),
        pytest.param(objective(priority=None), 0, id="O2 no priority"),
        pytest.param(objective(priority=-3), -3, id="negative"),
        pytest.param(objective(pool=PoolRef("pool", LEGACY_GROUP)), 0, id="O3 other pool group"),
        pytest.param(objective(pool=PoolRef("other")), 0, id="other pool"),
        pytest.param(objective(namespace="elsewhere"), 0, id="other namespace"),
        pytest.param(objective(pool=None), 5, id="no poolRef, as a file may have"),
        pytest.param(objective(group=LEGACY_GROUP), 5, id="O7 legacy group"),
        pytest.param(objective("silver"), 0, id="O5 unknown name"),
    ],
)
def test_the_priority_of_an_objective(obj: InferenceObjective, priority: int) -> None:
    assert store_of(obj).priority("gold") == priority


def test_o4_an_objective_pointed_to_another_pool_and_back() -> None:
    store = store_of(objective())
    store.put(objective(pool=PoolRef("other")))
    assert store.priority("gold") == 0
    store.put(objective(priority=7))
    assert store.priority("gold") == 7
    store.remove(InferenceObjective, objective().key)
    store.remove(InferenceObjective, objective().key)
    assert store.priority("gold") == 0


def test_o6_the_current_group_goes_before_the_legacy_one(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        store = store_of(objective(priority=1), objective(priority=2, group=LEGACY_GROUP))
        store.put(objective(priority=1))
    assert store.priority("gold") == 1
    assert [r.getMessage() for r in caplog.records].count(
        "object of the legacy group ignored, the current group has one of this name"
    ) == 1


def test_the_legacy_group_is_deprecated_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        store = store_of(objective(group=LEGACY_GROUP))
        store.put(objective("silver"))
    assert [r.getMessage() for r in caplog.records] == ["object group is deprecated, use llm-d.ai"]


def test_explicit_priorities_are_known_in_advance() -> None:
    heard = []
    store = ObjectStore(POOL)
    store.on_change(lambda: heard.append(store.priorities))
    store.replace_all([objective(), objective("b", -1), objective("c", None), objective("d", 9, PoolRef("other"))])
    assert heard == [frozenset({5, -1})]


@pytest.mark.parametrize(
    ("objects", "model", "expected"),
    [
        pytest.param(
            [rewrite("g", rule("G", generic=True), created_s=1), rewrite("e", rule("E", models=("m",)), created_s=2)],
            "m",
            ("e", "E"),
            id="O8 exact before an older generic",
        ),
        pytest.param(
            [rewrite("g", rule("G", generic=True)), rewrite("e", rule("E", models=("m",)))],
            "other",
            ("g", "G"),
            id="generic for the rest",
        ),
        pytest.param([rewrite("g", rule("G", generic=True))], "", ("g", "G"), id="generic for a request without a model"),
        pytest.param(
            [rewrite("new", rule("N", models=("m",)), created_s=2), rewrite("old", rule("O", models=("m",)), created_s=1)],
            "m",
            ("old", "O"),
            id="O9 the oldest of two exact ones",
        ),
        pytest.param(
            [rewrite("new", rule("N", generic=True), created_s=2), rewrite("old", rule("O", generic=True), created_s=1)],
            "m",
            ("old", "O"),
            id="the oldest of two generic ones",
        ),
        pytest.param(
            [rewrite("b", rule("B", models=("m",))), rewrite("a", rule("A", models=("m",)))],
            "m",
            ("a", "A"),
            id="of the same age, the first by name",
        ),
        pytest.param(
            [rewrite("r", rule("1", models=("x", "m")), rule("2", models=("m",)))],
            "m",
            ("r", "1"),
            id="O10 the first rule of an object",
        ),
        pytest.param(
            [rewrite("r", rule(models=("m",)), rule("G", generic=True))], "m", None, id="O14 a rule without targets decides"
        ),
        pytest.param([rewrite("r", rule("T"))], "m", None, id="a match without a model matches nothing"),
        pytest.param([rewrite("r", rule("T", models=("m",)))], "M", None, id="names are compared exactly"),
        pytest.param([rewrite("r", rule("T", generic=True), pool=PoolRef("other"))], "m", None, id="of another pool"),
        pytest.param([rewrite("r", rule("T", generic=True), pool=None)], "m", ("r", "T"), id="no poolRef, as a file may have"),
        pytest.param([], "m", None, id="no rewrites"),
    ],
)
def test_which_rule_decides(objects: list[InferenceObject], model: str, expected: tuple[str, str] | None) -> None:
    assert store_of(*objects).resolve(model) == expected
    assert store_of(*reversed(objects)).resolve(model) == expected


def test_the_next_rule_decides_when_the_first_object_is_deleted() -> None:
    first, second = rewrite("a", rule("A", models=("m",)), created_s=1), rewrite("b", rule("B", models=("m",)), created_s=2)
    store = store_of(first, second)
    store.remove(InferenceModelRewrite, first.key)
    assert store.resolve("m") == ("b", "B")


@pytest.mark.parametrize(
    ("targets", "shares"),
    [
        pytest.param([("a", 1), ("b", 3)], {"a": 0.25, "b": 0.75}, id="O11 weights"),
        pytest.param([("a", None), ("b", None)], {"a": 0.5, "b": 0.5}, id="O12 no weights"),
        pytest.param([("a", 10), ("b", None)], {"a": 1.0}, id="O13 mixed"),
        pytest.param([("a", 1_000_000)] * 2200 + [("b", 1)], {"a": 1.0}, id="total above 32 bits"),
    ],
)
def test_targets_are_drawn_by_weight(targets: list[tuple[str, int | None]], shares: dict[str, float]) -> None:
    store = store_of(rewrite("r", rule(*targets, generic=True)))
    draws = Counter(result.target for result in (store.resolve("m") for _ in range(40_000)) if result)
    assert {name: pytest.approx(share, abs=0.01) for name, share in shares.items()} == {
        name: count / 40_000 for name, count in draws.items()
    }


def test_mixed_weights_are_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        store = store_of(rewrite("r", rule(("a", 10), ("b", None), generic=True)))
        store.put(objective())
    assert [r.getMessage() for r in caplog.records] == ["rewrite targets without a weight are never chosen"]


def test_every_mentioned_model_is_known_for_labels() -> None:
    store = store_of(rewrite("r", rule("a", "b", models=("m", "n"))), rewrite("x", rule("z"), pool=PoolRef("other")))
    assert store.rewrite_models == {"a", "b", "m", "n"}
