"""Requests that want a cached prefix or nothing."""

from __future__ import annotations

from typing import Any

import pytest

from epp.framework.keys import PREFIX_CACHE_MATCH, PrefixMatch
from epp.framework.types import InferenceRequest
from epp.seam import End
from tests.unit.decision.rig import Plugin, Rig, hooks, outcome, request

MATCH = PREFIX_CACHE_MATCH.by("index")
OTHER_MATCH = PREFIX_CACHE_MATCH.by("precise")


def knows(**blocks: int) -> Any:
    """A producer whose index holds so many blocks of each endpoint."""

    def produce(request: InferenceRequest, candidates: Any) -> None:
        matches = {e.id: PrefixMatch(blocks[e.name], 10, 16) for e in candidates if e.name in blocks}
        request.data.set(MATCH, matches)

    return produce


@pytest.mark.parametrize(
    ("prefer", "produce", "status"),
    [
        pytest.param("if-available", knows(c=1), None, id="C56: the pick has it"),
        pytest.param("if-available", knows(a=9, c=0), 412, id="C56: another endpoint has it"),
        pytest.param("if-available", knows(), 412, id="C56: no endpoint has it"),
        pytest.param("if-available", None, 412, id="nothing is known"),
        pytest.param("respond-async, If-Available; x=1", knows(), 412, id="among others, in any case"),
        pytest.param("if-available-soon, x; if-available", knows(), None, id="another preference"),
        pytest.param(None, knows(), None, id="no preference"),
    ],
)
def test_conditional_requests(prefer: str | None, produce: Any, status: int | None) -> None:
    journal: list[str] = []
    rig = Rig(hooks(Plugin("p", journal, produce=produce)), match_keys=(OTHER_MATCH, MATCH))
    stream = rig.send(request(headers={"prefer": prefer}))
    if status is None:
        assert stream.route
        return
    assert (stream.reply.status, stream.reply.grpc_status) == (status, None)
    assert b"no decode worker has the requested KV cache" in stream.reply.body
    rig.director.finished(stream, outcome(End.REPLIED))
    assert not [call for call in journal if "pre_request" in call or "complete" in call], "no hook was told, nothing to release"
    assert rig.count("request_running") in (None, 0)
