"""Profiles and the labels of a pool → findings."""

from __future__ import annotations

from typing import Any

import pytest

from epp.doctor.profiles import check_profiles
from epp.framework.types import Endpoint

GOLD = {"type": "by-label-selector", "name": "gold", "parameters": {"matchLabels": {"tier": "gold"}}}
FAST = {"type": "by-label", "name": "fast", "parameters": {"label": "speed", "validValues": ["fast"]}}
ELSEWHERE = {"type": "file-discovery", "name": "f", "parameters": {"path": "/only/where/the/picker/runs"}}
OTHERS = [{"type": "queue-scorer", "name": "queue-scorer"}, ELSEWHERE]


def document(*filters: str, plugins: tuple[dict[str, Any], ...] = (GOLD, FAST)) -> dict[str, Any]:
    """A completed document with one profile of these filters."""
    return {
        "apiVersion": "inference.networking.x-k8s.io/v1alpha1",
        "kind": "EndpointPickerConfig",
        "plugins": [*plugins, *OTHERS],
        "schedulingProfiles": [{"name": "main", "plugins": [{"pluginRef": name} for name in (*filters, "queue-scorer")]}],
    }


def pool(*labels: dict[str, str]) -> list[tuple[Endpoint, dict[str, Any]]]:
    return [(Endpoint.of(f"e{i}", "10.0.0.1", 8000 + i, each), {"waitingQueue": 0}) for i, each in enumerate(labels)]


CASES: list[tuple[str, dict[str, Any], list[tuple[Endpoint, dict[str, Any]]], list[object]]] = [
    ("no filter", document(), pool({}), []),
    ("some pass", document("gold"), pool({"tier": "gold"}, {}), []),
    ("none passes", document("gold"), pool({"tier": "silver"}, {}), ["gold"]),
    ("none passes both", document("gold", "fast"), pool({"tier": "gold"}, {"speed": "fast"}), ["fast"]),
    ("one passes both", document("gold", "fast"), pool({"tier": "gold", "speed": "fast"}), []),
    ("a filter that no profile has", document("fast"), pool({"speed": "fast"}), []),
    ("no endpoint", document("gold"), pool(), []),
    ("no document", {}, pool({}), []),
]


@pytest.mark.parametrize(("effective", "endpoints", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_filters_are_tried_on_the_labels_of_the_pool(
    effective: dict[str, Any], endpoints: list[tuple[Endpoint, dict[str, Any]]], expected: list[object]
) -> None:
    findings = check_profiles("http://picker", effective, endpoints)
    assert [(found.code, found.path, found.value) for found in findings] == [
        ("POL008", "schedulingProfiles[main]", name) for name in expected
    ]


def test_a_filter_that_cannot_be_made_here_is_told() -> None:
    broken = {**GOLD, "parameters": {"matchLabels": 1}}
    [found] = check_profiles("http://picker", document("gold", plugins=(broken,)), pool({}))
    assert found.code == "DOC002"
    assert "cannot be made here" in found.message


def test_a_filter_that_raises_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no such label")

    monkeypatch.setattr("plugins.filters.by_label.ByLabelFilter.filter", broken)
    [found] = check_profiles("http://picker", document("fast"), pool({}))
    assert (found.code, found.value) == ("POL009", "fast")
    assert "raised RuntimeError: no such label" in found.message


def covered() -> set[str]:
    """Codes that a case of this module expects."""
    return {"POL008", "POL009"}
