"""An extension that was built from other sources is refused, not mixed up with."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from epp.transport import choose

epp_native = pytest.importorskip("epp_native")
native = pytest.importorskip("epp.transport.native")
Layout = dict[str, Any]


def test_the_extension_fits() -> None:
    native.check_layout(epp_native.layout())


def swap_a_field(layout: Layout) -> None:
    layout["records"]["Plan"] = layout["records"]["Plan"][::-1]


def lose_a_field(layout: Layout) -> None:
    layout["results"]["Usage"].pop()


def renumber(layout: Layout) -> None:
    layout["observe"].reverse()


def invent_a_reader(layout: Layout) -> None:
    layout["request_readers"].append("block-hash")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(swap_a_field, "the fields of Plan are", id="fields in another order"),
        pytest.param(lose_a_field, "the fields of Usage are", id="a field less"),
        pytest.param(renumber, "the numbers of Observe", id="other numbers"),
        pytest.param(invent_a_reader, "the names in REQUEST_READERS", id="a reader that Python lacks"),
    ],
)
def test_another_layout_is_refused(change: Callable[[Layout], None], words: str) -> None:
    layout = copy.deepcopy(epp_native.layout())
    change(layout)
    with pytest.raises(ImportError, match=words) as caught:
        native.check_layout(layout)
    assert "build and install it again" in str(caught.value)


def test_events_have_numbers_of_their_own() -> None:
    events = epp_native.layout()["events"]
    assert sorted(events.values()) == list(range(len(events)))


def test_auto_serves_without_an_extension_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    made = choose._made

    def refuse(name: str) -> Any:
        if name == "native":
            raise ImportError("it does not fit")
        return made(name)

    monkeypatch.setattr(choose, "_made", refuse)
    assert choose.make_transport("auto")[0] == "grpcio"
    with pytest.raises(choose.UsageError, match="it does not fit"):
        choose.make_transport("native")
