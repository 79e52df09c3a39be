"""Data keys and the data of a request."""

from __future__ import annotations

import copy
import pickle

import pytest

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


class TestOnDemand:
    def test_is_made_once_and_when_it_is_read(self) -> None:
        made: list[int] = []

        def make() -> int:
            made.append(1)
            return 7

        data = RequestData()
        data.set(A, OnDemand(make))
        data.share(A.by("other"), A)
        assert (data.has(A), data.made(A), made) == (True, None, [])
        assert data.get(A) == data.get(A.by("other")) == data.made(A) == data.made(A.by("other")) == 7
        assert made == [1]

    def test_nothing_is_made_of_nothing(self) -> None:
        data = RequestData()
        made: list[int] = []
        data.set(A, OnDemand(lambda: made.append(1)))
        assert (data.get(A), data.get(A), made) == (None, None, [1])

    def test_a_view_with_more_shares_it(self) -> None:
        data = RequestData()
        made: list[int] = []
        data.set(A, OnDemand(lambda: len(made) or made.append(1) or 5))
        more = data.overlaid({A.by("other"): 3})
        assert (more.get(A), data.get(A), more.get(A.by("other")), data.get(A.by("other"))) == (5, 5, 3, None)


def test_a_key_is_written_once() -> None:
    data = RequestData()
    assert (data.get(A), data.made(A), data.has(A)) == (None, None, False)
    data.set(A, 1)
    with pytest.raises(ValueError, match="data key A/made-by was already written"):
        data.set(A, 2)
    with pytest.raises(ValueError, match="already written"):
        data.share(A, A)
    data.discard(A)
    with pytest.raises(KeyError):
        data.share(A.by("other"), A)
