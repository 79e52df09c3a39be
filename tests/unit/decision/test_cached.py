"""Cached prefixes of a request: in its decision record, and beside what its response reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from epp.framework import log
from epp.framework.keys import PREFIX_CACHE_MATCH, PrefixMatch
from epp.framework.results import ProfileRunResult, SchedulingResult
from epp.framework.types import InferenceRequest, Usage
from epp.seam import Outcome
from epp.telemetry.decision_record import Why
from tests.unit.decision.rig import FakeHead, Plugin, Rig, hooks, outcome, request

INDEX, OTHER, SILENT = (PREFIX_CACHE_MATCH.by(name) for name in ("index", "other", "silent"))


def knows(blocks: int, *keys: Any, copies: Sequence[Any] = ()) -> Any:
    """A producer whose index holds so many of ten blocks on endpoint c, which is picked."""

    def produce(request: InferenceRequest, candidates: Any) -> None:
        for key in keys:
            matches = {candidates[-1].id: PrefixMatch(blocks, 10, 16)} if blocks else {}
            request.data.set(key, matches)
            for copy in copies:
                request.data.set(copy, matches)

    return produce


def picker(produce: Any, **more: Any) -> Rig:
    plugin = Plugin("p", [], produce=produce)
    return Rig(hooks(plugin, slots=["producers"]), match_keys=(SILENT, INDEX, OTHER), **more)


def answered(cached: int | None, prompt: int = 160, served: str = "192.168.1.3:8000") -> Outcome:
    head = FakeHead(metadata={"envoy.lb": {"x-gateway-destination-endpoint-served": served}})
    return outcome(read=(Usage(prompt, 1, prompt + 1, cached, found=True),), head=head)


def shown(rig: Rig, name: str = "c") -> list[tuple[object, object, object]]:
    endpoint = next(e for e in rig.store.snapshot().endpoints if e.name == name)
    return [(s["producer"], s["predictedTokens"], s["reportedTokens"]) for s in rig.cache_truth.page(endpoint.id)]


@pytest.mark.parametrize(
    ("produce", "told"),
    [
        pytest.param(knows(5, INDEX), [("index", 80, 96)], id="one producer"),
        pytest.param(knows(5, OTHER, INDEX), [("index", 80, 96), ("other", 80, 96)], id="two"),
        pytest.param(knows(0, INDEX), [("index", 0, 96)], id="nothing held"),
        pytest.param(knows(5, INDEX, copies=[OTHER]), [("index", 80, 96)], id="one that takes over what another has written"),
        pytest.param(None, [], id="nobody looked it up"),
    ],
)
def test_what_producers_predicted_is_compared(produce: Any, told: list[tuple[str, int, int]]) -> None:
    rig = picker(produce)
    rig.director.finished(rig.send(), answered(96))
    assert shown(rig) == told
    assert rig.failures == []


def test_it_is_that_of_the_endpoint_that_answered() -> None:
    rig = picker(knows(5, INDEX))
    rig.director.finished(rig.send(), answered(96, served="192.168.1.1:8000"))
    assert (shown(rig), shown(rig, "a")) == ([], [("index", 0, 96)])


@pytest.mark.parametrize(("cached", "prompt"), [(None, 160), (0, 0)], ids=["not reported", "no length"])
def test_responses_that_do_not_tell(cached: int | None, prompt: int) -> None:
    rig = picker(knows(5, INDEX))
    rig.director.finished(rig.send(), answered(cached, prompt))
    assert shown(rig) == []


class Disaggregates:
    """Decodes on the last candidate, prefills on another one or on the same."""

    def __init__(self, prefill: int) -> None:
        self._prefill = prefill

    def pick(self, request: Any, profiles: Any, results: Any) -> Sequence[str]:
        return () if results else ("default",)

    def process_results(self, request: Any, results: Any) -> SchedulingResult:
        run = results["default"]
        prefill = ProfileRunResult((run.candidates[self._prefill],), run.candidates, run.totals)
        return SchedulingResult("default", {"default": run, "prefill": prefill}, run.targets)


@pytest.mark.parametrize(("prefill", "told"), [(0, []), (2, [("index", 80, 96)])], ids=["elsewhere", "by itself"])
def test_a_prompt_that_another_endpoint_computed_tells_nothing(prefill: int, told: list[object]) -> None:
    rig = picker(knows(5, INDEX), handler=Disaggregates(prefill))
    rig.director.finished(rig.send(), answered(96))
    assert shown(rig) == told


def test_the_record_has_both() -> None:
    rig = picker(knows(5, INDEX), why=Why.LOG)
    stream = rig.send(request())
    [record] = rig.decisions.records
    prediction = {"plugin": "index", "endpoint": "192.168.1.3:8000", "matched_blocks": 5, "total_blocks": 10}
    prediction |= {"block_size_tokens": 16, "matched": {"192.168.1.3:8000": 5}}
    assert record.as_json()["prefixes"] == [{**prediction, "predicted_tokens": None, "reported_tokens": None}]
    rig.director.finished(stream, answered(96))
    assert record.as_json()["prefixes"] == [{**prediction, "predicted_tokens": 80, "reported_tokens": 96}]


def test_both_are_logged_where_decisions_are(caplog: pytest.LogCaptureFixture) -> None:
    log.set_verbosity(log.VERBOSE)
    rig = picker(knows(5, INDEX), why=Why.LOG)
    rig.director.finished(rig.send(), answered(96))
    fields = {"plugin": "index", "predictedTokens": 80, "reportedTokens": 96}
    assert [r.fields for r in caplog.records if r.message == "Cached prefix"] == [fields]  # type: ignore[attr-defined]
