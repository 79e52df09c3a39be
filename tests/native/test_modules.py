"""The modules of the extension import one way: rooms in layers, and no circle within a room. Reads the sources alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "native" / "src"

LAYERS = ("wire", "prefix", "bodies", "machine", "net", "pages", "py")
"""Each may import those before it."""

Module = tuple[str, ...]
"""``("net", "server")``; the crate itself is ``()``."""

_NOISE = re.compile(r"//[^\n]*|\"(?:\\.|[^\"\\])*\"")
_TESTS = re.compile(r"#\[cfg\(test\)\]\s*(?:pub )?mod tests \{.*", re.DOTALL)
_TREE = re.compile(r"\buse\s+([^;]+);")
_PATH = re.compile(r"\b(?:crate|super)(?:::\w+)+")


def modules(root: Path) -> dict[Module, str]:
    """The text of each module without comments, literals and tests."""
    found: dict[Module, str] = {}
    for path in root.rglob("*.rs"):
        if path.stem.endswith("_tests"):
            continue
        parts = path.relative_to(root).with_suffix("").parts
        name = parts[:-1] if parts[-1] in ("mod", "lib") else parts
        found[name] = _TESTS.sub("", _NOISE.sub("", path.read_text()))
    return found


def imports(name: Module, text: str, known: frozenset[Module]) -> frozenset[Module]:
    """The modules that this one names, by ``use`` or by a path within an expression.

    Without itself and without the crate's root, where nothing is but the modules.
    """
    paths = [path for tree in _TREE.findall(text) for path in _spread(re.sub(r"\s+", " ", tree))]
    paths += [tuple(path.split("::")) for path in _PATH.findall(_TREE.sub("", text))]
    return frozenset(target for path in paths for target in _module(name, path, known)) - {name, ()}


def _spread(tree: str) -> Iterator[tuple[str, ...]]:
    """``a::{b, c::d}`` → ``a::b``, ``a::c::d``."""
    head, brace, rest = tree.partition("{")
    base = tuple(part.partition(" as ")[0].strip() for part in head.split("::") if part.strip())
    if not brace:
        yield base
        return
    depth, start, body = 0, 0, rest[: rest.rindex("}")] + ","
    for place, char in enumerate(body):
        depth += (char == "{") - (char == "}")
        if char == "," and not depth:
            if body[start:place].strip():
                yield from (base + inner for inner in _spread(body[start:place]))
            start = place + 1


def _module(name: Module, path: tuple[str, ...], known: frozenset[Module]) -> Iterator[Module]:
    """The module that a path is in: the longest beginning of it that is one."""
    at: Module = () if path[0] == "crate" else name
    rest = list(path[1:] if path[0] in ("crate", "self") else path)
    while rest and rest[0] == "super":
        at, rest = at[:-1], rest[1:]
    if path[0] not in ("crate", "self", "super") and (*at, rest[0]) not in known:
        return  # another crate
    while rest and (*at, rest[0]) in known:
        at, rest = (*at, rest[0]), rest[1:]
    yield at


def graph(root: Path) -> dict[Module, frozenset[Module]]:
    """Module → modules that it imports."""
    texts = modules(root)
    known = frozenset(texts)
    return {name: imports(name, text, known) for name, text in texts.items()}


def circle(imported: dict[Module, frozenset[Module]]) -> list[str]:
    """Modules that import each other in a ring; empty if there is none."""
    try:
        TopologicalSorter(imported).prepare()
    except CycleError as error:
        return ["::".join(name) for name in error.args[1]]
    return []


def test_no_modules_import_each_other() -> None:
    assert not circle(graph(SOURCES))


def test_rooms_import_one_way() -> None:
    found = graph(SOURCES)
    assert {name[0] for name in found if name} == set(LAYERS), "every room has a place among the layers"
    upward = {
        ("::".join(name), "::".join(target))
        for name, targets in found.items()
        for target in targets
        if name and target and LAYERS.index(target[0]) > LAYERS.index(name[0])
    }
    assert not upward


CIRCLES = [
    pytest.param("use super::b::Thing;", "use super::a;", id="by super"),
    pytest.param("use crate::room::{b::{self, Thing}};", "use crate::room::{c::Other, a};", id="by nested braces"),
    pytest.param("fn f() { super::b::call(); }", "use super::a::call;", id="by a path in an expression"),
]


@pytest.mark.parametrize(("a", "b"), CIRCLES)
def test_a_circle_is_found(tmp_path: Path, a: str, b: str) -> None:
    (tmp_path / "room").mkdir()
    texts = {"lib": "pub mod room;", "room/mod": "mod a;\nmod b;\nmod c;", "room/a": a, "room/b": b, "room/c": "use std::fmt;"}
    for name, text in texts.items():
        (tmp_path / f"{name}.rs").write_text(text)
    assert set(circle(graph(tmp_path))) == {"room::a", "room::b"}


def test_tests_and_comments_import_nothing(tmp_path: Path) -> None:
    (tmp_path / "lib.rs").write_text("mod a;\nmod b;")
    (tmp_path / "a.rs").write_text("// use crate::b;\n#[cfg(test)]\nmod tests {\n    use crate::b;\n}\n")
    (tmp_path / "b.rs").write_text("use crate::a;")
    assert graph(tmp_path)["a",] == frozenset()
    assert graph(tmp_path)["b",] == {("a",)}
