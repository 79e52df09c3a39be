"""The table of twins in ``native/README.md`` is complete, and every test that it names reaches both."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
NATIVE = CHECKOUT / "native"
_PATH = re.compile(r"`([\w/.]+\.(?:py|rs))`")
_IS_TWIN = re.compile(r"\b[Tt]wins? of\b")
REACHES_NATIVE = re.compile(r"epp_native|epp\.transport\.native|\bTwinBare\b|NativeTransport|make_page_reader|make_index")


def rows() -> Iterator[tuple[list[str], list[str], list[str]]]:
    """Python modules, Rust modules, tests of each row."""
    section = (NATIVE / "README.md").read_text().split("## Twins")[1].split("\n## ")[0]
    for line in section.splitlines():
        cells = [_PATH.findall(cell) for cell in line.strip("|").split("|")]
        if len(cells) == 3 and cells[0]:
            yield cells[0], cells[1], cells[2]


ROWS = list(rows())


@pytest.mark.parametrize(("python", "rust", "tests"), ROWS, ids=[row[1][0] for row in ROWS])
def test_what_the_table_names_is_there(python: list[str], rust: list[str], tests: list[str]) -> None:
    assert rust
    assert tests, "without a test that keeps both in step"
    missing = [name for name in (*python, *tests) if not (CHECKOUT / name).is_file()]
    missing += [name for name in rust if not (NATIVE / name).is_file()]
    assert missing == []


def test_every_module_that_says_it_is_a_twin_is_in_the_table() -> None:
    listed = {name for _, rust, _ in ROWS for name in rust}
    heads = {path: path.read_text().split("\n\n")[0] for path in (NATIVE / "src").rglob("*.rs")}
    twins = {str(path.relative_to(NATIVE)) for path, head in heads.items() if _IS_TWIN.search(head.replace("//!", ""))}
    overviews = {"src/lib.rs", "src/py/mod.rs", "src/py/bare.rs"}
    assert twins - listed - overviews == set()


def sources(module: Path, seen: set[Path] | None = None) -> Iterator[str]:
    """The text of a test module, of the fixtures around it, and of the modules of tests that these import."""
    seen = set() if seen is None else seen
    if module in seen or not module.is_file():
        return
    seen.add(module)
    text = module.read_text()
    yield text
    yield from sources(module.parent / "conftest.py", seen)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests."):
            yield from sources(CHECKOUT / f"{(node.module or '').replace('.', '/')}.py", seen)


@pytest.mark.parametrize("name", sorted({name for _, _, tests in ROWS for name in tests}))
def test_a_test_that_keeps_twins_in_step_reaches_both(name: str) -> None:
    assert any(REACHES_NATIVE.search(text) for text in sources(CHECKOUT / name))
