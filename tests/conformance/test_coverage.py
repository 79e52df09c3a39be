"""Every case of the protocol's table is tested or has a reason why not."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re

import tests.conformance
from tests.conformance.pending import ELSEWHERE, PENDING

ALL = {f"C{number:02d}" for number in range(1, 114)}
_NAME = re.compile(r"test_(c\d+)_")


def ids_in_names() -> set[str]:
    """The ids that test functions of this package carry in their names."""
    found = set()
    for module in pkgutil.iter_modules(tests.conformance.__path__):
        if not module.name.startswith("test_"):
            continue
        names = vars(importlib.import_module(f"tests.conformance.{module.name}"))
        functions = (name for name, value in names.items() if inspect.isfunction(value))
        found |= {match[1].upper() for name in functions if (match := _NAME.match(name))}
    return found


def test_each_case_has_its_place() -> None:
    places = (ids_in_names(), set(PENDING), set(ELSEWHERE))
    assert set().union(*places) == ALL
    assert sum(map(len, places)) == len(ALL), "a case is in two places"


def test_each_pending_case_says_what_it_waits_for() -> None:
    assert all(PENDING.values())
    assert all(ELSEWHERE.values())
