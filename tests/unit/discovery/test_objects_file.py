"""Objectives and rewrites from files."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from epp.datalayer.objects import InferenceModelRewrite, InferenceObjective, ObjectStore, PoolIdentity
from epp.discovery.objects_file import ObjectsFiles
from epp.errors import ConfigError
from tests.unit.discovery.writing import WAYS, Write, watch_begun

GOLD = """\
apiVersion: llm-d.ai/v1alpha2
kind: InferenceObjective
metadata: {name: gold, labels: {team: a}, uid: "1"}
spec: {priority: 10, poolRef: {name: pool}}
status: {conditions: []}
"""
REWRITE = """\
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModelRewrite
metadata:
  name: canary
  creationTimestamp: "2026-01-31T12:00:00Z"
spec:
  poolRef: {group: inference.networking.k8s.io, kind: InferencePool, name: pool}
  rules:
  - matches: [{model: {type: Exact, value: llama}}, {model: {value: llama-2}}]
    targets: [{modelRewrite: llama-v3, weight: 1}]
  - targets: [{modelRewrite: base}]
"""
BOTH = f"{GOLD}---\n{REWRITE}"


@pytest.fixture
def store() -> ObjectStore:
    return ObjectStore(PoolIdentity("pool"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "objects.yaml"


def load(path: Path, text: str, store: ObjectStore) -> ObjectsFiles:
    path.write_text(text)
    files = ObjectsFiles([str(path)], store)
    files.load()
    return files


def state(store: ObjectStore) -> tuple[int, str | None, str | None]:
    """Priority of gold; what llama and other models become."""
    llama, other = store.resolve("llama"), store.resolve("x")
    return store.priority("gold"), llama.target if llama else None, other.target if other else None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(BOTH, (10, "llama-v3", "base"), id="both kinds"),
        pytest.param(f"---\n---\n{GOLD}---\n", (10, None, None), id="empty documents"),
        pytest.param("", (0, None, None), id="empty file"),
        pytest.param(GOLD.replace(", poolRef: {name: pool}", ""), (10, None, None), id="no poolRef"),
        pytest.param(GOLD.replace("priority: 10, ", ""), (0, None, None), id="no priority"),
        pytest.param(GOLD.replace("name: pool", "name: other"), (0, None, None), id="another pool"),
        pytest.param(GOLD.replace("name: gold", "name: gold, namespace: elsewhere"), (0, None, None), id="another namespace"),
        pytest.param(GOLD.replace("priority: 10", "priority: -2.0"), (-2, None, None), id="negative, integral float"),
        pytest.param(
            "kind: List\napiVersion: v1\nitems:\n- " + GOLD.replace("\n", "\n  ").rstrip(),
            (10, None, None),
            id="list of kubectl",
        ),
    ],
)
def test_objects_of_a_file(path: Path, store: ObjectStore, text: str, expected: tuple[int, str | None, str | None]) -> None:
    load(path, text, store)
    assert state(store) == expected


def test_an_object_of_another_pool_is_told(path: Path, store: ObjectStore, caplog: pytest.LogCaptureFixture) -> None:
    load(path, GOLD.replace("name: pool", "name: other"), store)
    told = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert told == ["object belongs to another pool, it is not used"]


def test_several_files_make_one_set(tmp_path: Path, store: ObjectStore) -> None:
    (tmp_path / "a.yaml").write_text(GOLD)
    (tmp_path / "b.yaml").write_text(REWRITE)
    ObjectsFiles([str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")], store).load()
    assert state(store) == (10, "llama-v3", "base")


@pytest.mark.parametrize(
    "timestamp", ['"2026-01-31T12:00:00Z"', "2026-01-31T12:00:00Z", '"2026-01-31T13:00:00+01:00"'], ids=["text", "time", "zone"]
)
def test_the_creation_time(path: Path, store: ObjectStore, timestamp: str) -> None:
    load(path, REWRITE.replace('"2026-01-31T12:00:00Z"', timestamp), store)
    rewrites = [obj for obj in store.objects.values() if isinstance(obj, InferenceModelRewrite)]
    assert [rewrite.created_s for rewrite in rewrites] == [1769860800.0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a: [", ["2:: while parsing a flow node: did not find expected node content"], id="syntax"),
        pytest.param(
            "[]",
            [
                "1:: a manifest must be a mapping",
            ],
            id="no mapping",
        ),
        pytest.param(GOLD.replace("Objective", "Objectiv"), ["2:kind: this kind of object is not read from files"], id="kind"),
        pytest.param(GOLD.replace("v1alpha2", "v1"), ["1:apiVersion: this version is not known"], id="version"),
        pytest.param(
            GOLD.replace("name: gold, ", ""), ["3:metadata.name: the name must be a string that is not empty"], id="no name"
        ),
        pytest.param(
            GOLD.replace("name: gold", "name: 7"),
            ["3:metadata.name: the name must be a string that is not empty"],
            id="number as name",
        ),
        pytest.param(
            GOLD.replace("name: gold", "name: gold, namespace: []"),
            ["3:metadata.namespace: the namespace must be a string that is not empty"],
            id="namespace",
        ),
        pytest.param(
            GOLD.replace("priority: 10", "priorty: 10"), ["4:spec.priorty: unknown field 'priorty'"], id="unknown field"
        ),
        pytest.param(
            GOLD.replace("priority: 10", "priority: high"), ["4:spec.priority: Input should be a valid integer"], id="priority"
        ),
        pytest.param(
            GOLD.replace("priority: 10", "priority: 2147483648"),
            ["4:spec.priority: Input should be less than 2147483648"],
            id="priority beyond 32 bits",
        ),
        pytest.param(GOLD + "extra: 1\n", ["6:extra: unknown field 'extra'"], id="unknown key"),
        pytest.param(
            GOLD.replace("spec:", "speck:"), ["4:speck: unknown field 'speck'", "1:spec: spec is missing"], id="no spec"
        ),
        pytest.param(
            GOLD.replace("{name: pool}", "{}"), ["4:spec.poolRef.name: this field is required"], id="pool without name"
        ),
        pytest.param(
            REWRITE.replace("value: llama-2", "value: ''"),
            ["9:spec.rules[0].matches[1].model.value: String should have at least 1 character"],
            id="empty model",
        ),
        pytest.param(
            REWRITE.replace("type: Exact", "type: Regex"),
            ["9:spec.rules[0].matches[0].model.type: Input should be 'Exact'"],
            id="match type",
        ),
        pytest.param(
            REWRITE.replace("weight: 1", "weight: 0"),
            ["10:spec.rules[0].targets[0].weight: Input should be greater than or equal to 1"],
            id="weight",
        ),
        pytest.param(
            REWRITE.replace('"2026-01-31T12:00:00Z"', "yesterday"), ["5:metadata.creationTimestamp: this is no time"], id="time"
        ),
        pytest.param(f"{GOLD}---\n{GOLD}", ["7:: InferenceObjective 'gold' occurs twice in this file"], id="doubled"),
        pytest.param(
            f"{GOLD.replace('10', 'high')}---\n{REWRITE.replace('weight: 1', 'weight: x')}",
            [
                "4:spec.priority: Input should be a valid integer",
                "16:spec.rules[0].targets[0].weight: Input should be a valid integer",
            ],
            id="all at once",
        ),
    ],
)
def test_mistakes_end_the_start_with_their_place(path: Path, store: ObjectStore, text: str, expected: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(path, text, store)
    assert [f"{f.line}:{f.path}: {f.message}" for f in caught.value.findings] == expected
    assert {f.file for f in caught.value.findings} == {str(path)}
    assert store.objects == {}


def test_a_missing_file_ends_the_start(path: Path, store: ObjectStore) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        ObjectsFiles([str(path)], store).load()


def test_a_near_name_is_offered(path: Path, store: ObjectStore) -> None:
    with pytest.raises(ConfigError) as caught:
        load(path, GOLD.replace("poolRef", "poolref").replace("v1alpha2", "v1alpha1"), store)
    assert [f.fix for f in caught.value.findings] == ["did you mean 'llm-d.ai/v1alpha2'?", "did you mean 'poolRef'?"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(GOLD.replace("10", "20"), (20, None, None), id="changed, and one removed"),
        pytest.param("", (0, None, None), id="all removed"),
        pytest.param("a: [", (10, "llama-v3", "base"), id="syntax error"),
        pytest.param(BOTH.replace("priority: 10", "priority: high"), (10, "llama-v3", "base"), id="one became invalid"),
        pytest.param(
            BOTH.replace("priority: 10", "priority: high").replace("llama-v3", "llama-v4"),
            (10, "llama-v4", "base"),
            id="one became invalid, the other changed",
        ),
        pytest.param(BOTH.replace("name: gold", "nam: gold"), (0, "llama-v3", "base"), id="one lost its name"),
    ],
)
def test_later_readings(
    path: Path, store: ObjectStore, text: str, expected: tuple[int, str | None, str | None], caplog: pytest.LogCaptureFixture
) -> None:
    files = load(path, BOTH, store)
    path.write_text(text)
    files.reload()
    assert state(store) == expected
    has_mistake = "high" in text or "nam:" in text or "[" in text[:5]
    assert any(r.levelno == logging.ERROR for r in caplog.records) is has_mistake


def test_a_file_that_vanished_changes_nothing(path: Path, store: ObjectStore) -> None:
    files = load(path, BOTH, store)
    path.unlink()
    files.reload()
    assert state(store) == (10, "llama-v3", "base")


def test_an_unchanged_set_is_not_published_again(path: Path, store: ObjectStore) -> None:
    files = load(path, BOTH, store)
    told = []
    store.on_change(lambda: told.append(1))
    files.reload()
    assert told == []


@pytest.mark.parametrize("write", WAYS)
async def test_files_are_followed(path: Path, store: ObjectStore, write: Write) -> None:
    write(path, GOLD)
    files = ObjectsFiles([str(path)], store)
    files.load()
    changed = asyncio.Event()
    store.on_change(changed.set)
    stop = asyncio.Event()
    task = asyncio.create_task(files.run(stop))
    await watch_begun()
    async with asyncio.timeout(5):
        for priority in ("21", "22"):
            write(path, GOLD.replace("10", priority))
            await changed.wait()
            changed.clear()
            assert store.priority("gold") == int(priority)
        stop.set()
        await task


def test_kinds_are_told_apart(path: Path, store: ObjectStore) -> None:
    load(path, BOTH, store)
    assert {kind for kind, _ in store.objects} == {InferenceObjective, InferenceModelRewrite}
