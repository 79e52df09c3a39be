"""Data keys and the data of a request."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from epp.framework import data
from epp.framework.data import DataKey, OnDemand, RequestData, Scope

A: DataKey[int] = DataKey("A", int, "made-by")


def test_equal_keys_are_one_object() -> None:
    again: DataKey[int] = DataKey("A", int, "made-by", Scope.REQUEST)
    assert again is A
    assert A.by("other") is A.by("other")
    assert A.by("other") is not A
    assert DataKey("A", str, "made-by") is not A
    assert DataKey("A", int, "made-by", Scope.ENDPOINT) is not A


def test_a_copied_key_is_the_same_key() -> None:
    assert copy.deepcopy(A) is A
    assert pickle.loads(pickle.dumps(A)) is A


def test_a_key_that_two_threads_make_at_once_is_one_object(monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(dict[Any, Any]):
        def get(self, *_: object) -> None:
            """Both look before either has made it."""

    monkeypatch.setattr(data, "_KEYS", Late())
    assert DataKey("B", int, "made-by") is DataKey("B", int, "made-by")


class TestOnDemand:
    def test_is_made_once_and_when_it_is_read(self) -> None:
        made: list[int] = []

        def make() -> int:
            made.append(1)
            return 7

        values = RequestData()
        values.set(A, OnDemand(make))
        values.share(A.by("other"), A)
        assert (values.has(A), values.made(A), made) == (True, None, [])
        assert values.get(A) == values.get(A.by("other")) == values.made(A) == values.made(A.by("other")) == 7
        assert made == [1]

    def test_nothing_is_made_of_nothing(self) -> None:
        values = RequestData()
        made: list[int] = []
        values.set(A, OnDemand(lambda: made.append(1)))
        assert (values.get(A), values.get(A), made) == (None, None, [1])

    def test_a_view_with_more_shares_it(self) -> None:
        values = RequestData()
        made: list[int] = []
        values.set(A, OnDemand(lambda: len(made) or made.append(1) or 5))
        more = values.overlaid({A.by("other"): 3})
        assert (more.get(A), values.get(A), more.get(A.by("other")), values.get(A.by("other"))) == (5, 5, 3, None)


def test_a_key_is_written_once() -> None:
    values = RequestData()
    assert (values.get(A), values.made(A), values.has(A)) == (None, None, False)
    values.set(A, 1)
    with pytest.raises(ValueError, match="data key A/made-by was already written"):
        values.set(A, 2)
    with pytest.raises(ValueError, match="already written"):
        values.share(A, A)
    values.discard(A)
    with pytest.raises(KeyError):
        values.share(A.by("other"), A)
