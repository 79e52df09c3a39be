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


@pytest.mark.parametrize("changes", [True, False])
def test_what_was_read_of_a_body_is_forgotten_once_a_plugin_has_changed_it(changes: bool) -> None:
    seen: list[Any] = []
    rewriter = Plugin("r", [], rewrites=True, rewrite=lambda _, edits: edits.set("prompt", "other") if changes else None)
    watcher = Plugin("w", [], produce=lambda request, _: seen.append(request))
    both = replace(hooks(watcher, slots=["producers"]), rewriters=hooks(rewriter, slots=["rewriters"]).rewriters)
    rig = Rig(both, request_readers=("a",))
    rig.send(replace(request(), read=(b"hashes",)))
    assert seen[0].data.get(reading("a")) == (None if changes else b"hashes")
