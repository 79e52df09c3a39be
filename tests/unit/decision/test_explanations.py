"""What the director writes down for explanations."""

from __future__ import annotations

import pytest

from epp.framework.data import RequestData
from epp.framework.keys import PREFIX_CACHE_MATCH, PrefixMatch
from epp.framework.types import EndpointId
from epp.seam import End
from epp.telemetry.decision_record import PrefixRecord, Why
from tests.unit.decision.rig import FakeHead, Plugin, Rig, hooks, outcome, request
from tests.unit.decision.vocabulary import C
from tests.unit.scheduling.doubles import Does, Reports, keep, make_profile

MATCH = PREFIX_CACHE_MATCH.by("index")


def test_a_record_tells_how_much_of_the_prompt_was_thought_cached() -> None:
    found = {EndpointId("default/c"): PrefixMatch(3, 8, 16), EndpointId("default/gone"): PrefixMatch(8, 8, 16)}

    def produce(inference: object, candidates: object) -> None:
        data: RequestData = inference.data  # type: ignore[attr-defined]  # an InferenceRequest
        data.set(MATCH, found)

    plugin = Plugin("index", [], produce=produce)
    rig = Rig(hooks(plugin, slots=["producers"]), why=Why.SHARE, match_keys=(MATCH,))
    rig.send()
    [record] = rig.decisions.records
    assert record.prefixes == [PrefixRecord("index", C, 3, 8, 16, matched={C: 3})]
    assert record.as_json()["predicted_cached_tokens"] == 48


def test_a_flight_holds_no_candidates_while_its_response_runs() -> None:
    flight = Rig(why=Why.SHARE).send().flight
    assert flight.candidates is None
    assert flight.kept is not None


def test_a_refusal_is_written_down_though_nobody_wanted_its_record() -> None:
    rig = Rig()
    rig.send(request(b"{"))
    [record] = rig.decisions.records
    assert (record.why, record.status, record.request_id) == (Why.NOTHING, 400, "r-1")
    assert record.error


@pytest.mark.parametrize(("repeats", "dropped"), [(True, [["192.168.1.1:8000", "192.168.1.2:8000", C]]), (False, [])])
def test_a_failed_decision_is_repeated_for_its_record(repeats: bool, dropped: list[list[str]]) -> None:
    rig = Rig(profile=make_profile(filters=[keep()]))
    rig.decisions.repeats_failures = repeats
    assert rig.send().reply.status == 429
    [record] = rig.decisions.records
    assert [step.dropped for profile in record.profiles for step in profile.filters] == dropped
    assert rig.count("scheduler_attempts_total", status="failure") == 1


def test_a_decision_that_failed_by_a_defect_is_not_repeated() -> None:
    reports = Reports()
    rig = Rig(profile=make_profile(filters=[Does(RuntimeError("broken"))], reports=reports))
    rig.decisions.repeats_failures = True
    assert rig.send().reply.status == 429
    assert [name for _, name, _ in reports.seen] == ["f1"]
    [record] = rig.decisions.records
    assert record.error


@pytest.mark.parametrize(
    ("why", "end", "status", "told"),
    [
        pytest.param(Why.NOTHING, End.NATURAL, 200, False, id="well, not kept"),
        pytest.param(Why.SHARE, End.NATURAL, 200, True, id="well, kept"),
        pytest.param(Why.NOTHING, End.NATURAL, 500, True, id="an error, not kept"),
        pytest.param(Why.NOTHING, End.FAILED, 200, True, id="the stream failed"),
        pytest.param(Why.NOTHING, End.DISCONNECTED, 200, False, id="the client left"),
    ],
)
def test_what_becomes_of_a_request_is_told(why: Why, end: End, status: int, told: bool) -> None:
    rig = Rig(why=why)
    stream = rig.send()
    rig.director.finished(stream, outcome(end, head=FakeHead(status)))
    assert bool(rig.decisions.outcomes) is told
    for kept, became, late in rig.decisions.outcomes:
        assert (kept is not None) is bool(why)
        assert (became.status, became.served) == (status, C)
        assert (late.request_id, late.picked) == ("r-1", [C])


def test_a_request_that_asked_is_told_in_its_response() -> None:
    rig = Rig(why=Why.ASKED)
    stream = rig.send()
    assert stream.route.plan.ask_headers
    edits = rig.director.response_headers(stream, FakeHead())
    assert edits is not None
    assert [name for name, _ in edits.set] == ["x-epp-explain"]
    assert dict(edits.set)["x-epp-explain"].startswith(f"picked={C}; candidates=3; profile=default;")


def test_a_request_that_did_not_ask_is_not() -> None:
    rig = Rig(why=Why.SHARE)
    stream = rig.send()
    assert not stream.route.plan.ask_headers
    edits = rig.director.response_headers(stream, FakeHead())
    assert edits is None or edits.set == ()
