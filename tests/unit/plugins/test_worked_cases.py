"""Every worked case of the plugin specification is tested, or there is a reason why not."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

import plugins
from tests.unit.plugins.worked_cases import ALL, CHANGED, PENDING, PLACES, VOID

TESTS = Path(__file__).parents[2]


@cache
def numbers_in(module: str) -> frozenset[str]:
    """The cases that a test module names."""
    text = (TESTS / module).read_text()
    named = {f"{letter.upper()}{number}" for letter, number in re.findall(r"\bdef test_([slcpfh])(\d+)_", text)}
    return frozenset(named | set(re.findall(r"\b[SLCPFH]\d+\b", text)))


def test_there_are_154_and_each_has_one_place() -> None:
    places = (PLACES, PENDING, VOID)
    assert len(ALL) == 154
    assert set().union(*places) == ALL
    assert sum(map(len, places)) == len(ALL), "a case is in two places"
    assert CHANGED.keys() <= PLACES.keys()


@pytest.mark.parametrize(("case", "module"), PLACES.items(), ids=PLACES)
def test_the_module_names_the_case(case: str, module: str) -> None:
    assert case in numbers_in(module), f"{module} has no test with the number {case}"


@pytest.mark.parametrize(("case", "waits_for"), PENDING.items(), ids=PENDING)
def test_what_a_case_waits_for_is_not_built(case: str, waits_for: str) -> None:
    (built,) = [t.is_built for t in plugins.plugin_types() if t.type == waits_for]
    assert not built, f"write the test of {case}"
