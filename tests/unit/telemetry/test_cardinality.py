"""Label values that clients choose stay few, short and valid."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.telemetry.cardinality import MAX_VALUE_BYTES, Cap, clean


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("llama", "llama", id="plain text stays"),
        pytest.param("模型", "模型", id="other scripts stay"),
        pytest.param("", "", id="empty stays"),
        pytest.param("a" * 300, "a" * 256, id="long ASCII is cut"),
        pytest.param("é" * 200, "é" * 128, id="the limit is in bytes"),
        pytest.param("a" + "é" * 200, "a" + "é" * 127, id="no character is cut in two"),
        pytest.param("a\udcffb", "a\ufffdb", id="an undecodable byte is replaced"),
        pytest.param("\ud83d", "\ufffd", id="half a surrogate pair is replaced"),
    ],
)
def test_a_value_is_cleaned(value: str, expected: str) -> None:
    assert clean(value) == expected


@given(st.text(st.characters(codec=None, exclude_categories=()), max_size=400))
def test_a_cleaned_value_is_short_valid_and_final(value: str) -> None:
    cleaned = clean(value)
    assert len(cleaned.encode()) <= MAX_VALUE_BYTES
    assert clean(cleaned) == cleaned


def test_values_above_the_cap_become_other_for_ever() -> None:
    cap = Cap(2)
    assert [cap.fold(value) for value in ("a", "b", "c", "a", "c")] == ["a", "b", "other", "a", "other"]


def test_a_cap_of_zero_folds_everything() -> None:
    assert Cap(0).fold("a") == "other"


def test_admitted_values_never_fold_and_take_no_room() -> None:
    cap = Cap(1)
    cap.admit(["rule-target", "x" * 300])
    assert [cap.fold(value) for value in ("a", "b", "rule-target", "x" * 300)] == ["a", "other", "rule-target", "x" * 256]
