"""How a document of the specification says where its cases are tested, and how a test module names a case.

A case is written as a letter and a number, such as ``M7``, or, where a document only counts, as a word and a number, such as
``prefix 7``. Zeros in front do not matter. A module names a case in the id of a parameter, beside an assertion, or in the name
of a test (``test_m7_...``, ``test_prefix_7_...``); what docstrings and comments say does not count.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import plugins

ROOT = Path(__file__).parents[2]

_IN_TEXT = re.compile(r"\b((?:prefix|flow) |[A-Z])0*(\d+)\b")
_IN_NAME = re.compile(r"(?<=_)((?:prefix|flow)_|[a-z])0*(\d+)(?=_)")
_RANGE = re.compile(r"([A-Z]?)(\d+)(?:-(\d+))?")


@dataclass(frozen=True)
class Capability:
    """Something that is not there yet.

    Args:
        name: as reports show it.
        is_built: notices when it comes, so that the cases that wait for it get their tests.
    """

    name: str
    is_built: Callable[[], bool]


def plugin_type(name: str) -> Capability:
    """A plugin type."""

    def is_built() -> bool:
        (found,) = [known for known in plugins.plugin_types() if known.type == name]
        return found.is_built

    return Capability(name, is_built)


@dataclass(frozen=True)
class Document:
    """The cases of a document. Cases are listed as ``M1-7 M9 O1``, without the word in documents that only count.

    Args:
        name: of its file.
        counts: how many cases begin with this letter, or with this word and a blank.
        tested: test module, or folder whose files are named by cases, relative to the repository → its cases.
        pending: capability → the cases that wait for it.
        void: case → why there is nothing to test.
        changed: tested case → in what our answer differs from the document, and why.
        same: case → the case of another document that says the same, such as ``("config-and-ops.md", "X53")``.
        promises: what the document promises without a number → the capability that it waits for.
    """

    name: str
    counts: Mapping[str, int]
    tested: Mapping[str, str]
    pending: Mapping[Capability, str] = field(default_factory=dict)
    void: Mapping[str, str] = field(default_factory=dict)
    changed: Mapping[str, str] = field(default_factory=dict)
    same: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    promises: Mapping[str, Capability] = field(default_factory=dict)

    @cached_property
    def cases(self) -> frozenset[str]:
        """All cases."""
        return frozenset(f"{letter}{number}" for letter, count in self.counts.items() for number in range(1, count + 1))

    def listed(self, text: str) -> Iterator[str]:
        """The cases of a list.

        Raises:
            ValueError: it is malformed.
        """
        word = next((letter for letter in self.counts if letter.endswith(" ")), "")
        for part in text.split():
            match = _RANGE.fullmatch(part)
            if match is None or not (match[1] or word):
                raise ValueError(f"{self.name}: {part!r} is no case and no range of cases")
            for number in range(int(match[2]), int(match[3] or match[2]) + 1):
                yield f"{match[1] or word}{number}"

    def places(self) -> Iterator[str]:
        """Every case once for each place that it has."""
        for listed in (*self.tested.values(), *self.pending.values()):
            yield from self.listed(listed)
        yield from (*self.void, *self.same)

    @cached_property
    def modules(self) -> Mapping[str, str]:
        """Tested case → its module."""
        return {case: module for module, listed in self.tested.items() for case in self.listed(listed)}


def named_in(place: str) -> frozenset[str]:
    """The cases that a test module names, or a folder by the names of its files."""
    path = ROOT / place
    if path.is_dir():
        return frozenset(_found(_IN_TEXT, " ".join(file.stem for file in path.iterdir())))
    return named_in_source(path.read_text())


def named_in_source(source: str) -> frozenset[str]:
    """The cases that a test module of this text names."""
    tree = ast.parse(source)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.update(case.upper() if case[1:].isdigit() else case for case in _found(_IN_NAME, node.name))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            found.update(_found(_IN_TEXT, node.value))
    return frozenset(found)


def _found(pattern: re.Pattern[str], text: str) -> Iterator[str]:
    return (f"{match[1].replace('_', ' ')}{match[2]}" for match in pattern.finditer(text))
