"""What the transport's readers know of a body is data of the request."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from epp.framework.keys import reading
from tests.unit.decision.rig import Plugin, Rig, hooks, request


@pytest.mark.parametrize(
    ("results", "known"),
    [
        pytest.param((b"hashes", 3), (b"hashes", 3), id="in the order of the readers"),
        pytest.param((), (None, None), id="a stream that began under other settings"),
    ],
)
def test_results_of_request_readers_are_data_of_the_request(results: tuple[object, ...], known: tuple[object, ...]) -> None:
    seen: list[Any] = []
    watcher = Plugin("w", [], produce=lambda request, _: seen.append(request))
    rig = Rig(hooks(watcher, slots=["producers"]), request_readers=("a", "b"))
    rig.send(replace(request(), read=results))
    assert (seen[0].data.get(reading("a")), seen[0].data.get(reading("b"))) == known
