"""How a test module names a case."""

from __future__ import annotations

import pytest

from tests.spec.document import Document, named_in, named_in_source

CASES = [
    pytest.param('pytest.param(1, id="M7 a NaN value keeps the previous one")', {"M7"}, id="the id of a parameter"),
    pytest.param('CASES = {"prefix 90: two back ends": 1}', {"prefix 90"}, id="the key of a table, by its word"),
    pytest.param('ids = ["M8, M9 no adapters"]', {"M8", "M9"}, id="several at once"),
    pytest.param('assert x == 1, "C02"', {"C2"}, id="beside an assertion, with a zero in front"),
    pytest.param("def test_o4_pointed_to_another_pool(): ...", {"O4"}, id="the name of a test"),
    pytest.param("async def test_flow_28_sheddable(): ...", {"flow 28"}, id="the name of a test, by its word"),
    pytest.param("def test_h15_h16_both(): ...", {"H15", "H16"}, id="several in one name"),
    pytest.param('"""Cases M1 to M27."""', set(), id="not a docstring"),
    pytest.param("# M7\nx = 1", set(), id="not a comment"),
    pytest.param('url = "/v1/models"', set(), id="not a path"),
    pytest.param("def test_m7(): ...", set(), id="not a name that says nothing"),
]


@pytest.mark.parametrize(("source", "expected"), CASES)
def test_what_names_a_case(source: str, expected: set[str]) -> None:
    assert named_in_source(source) == expected


def test_files_of_a_folder_name_cases() -> None:
    assert "V1" in named_in("tests/config/good")


def test_lists_of_cases() -> None:
    document = Document("x.md", {"flow ": 9, "I": 9}, {})
    assert list(document.listed("1 3-5 I2-3")) == ["flow 1", "flow 3", "flow 4", "flow 5", "I2", "I3"]
    with pytest.raises(ValueError, match=r"x\.md: 'flow' is no case"):
        list(document.listed("flow 1"))
    with pytest.raises(ValueError, match=r"y\.md: '1' is no case"):
        list(Document("y.md", {"I": 9}, {}).listed("1"))
