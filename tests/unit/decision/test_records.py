"""Records of decisions, and what is counted."""

from __future__ import annotations

import asyncio
import json

import pytest

from epp.datalayer.objects import GROUP, InferenceObjective, ObjectKey
from epp.errors import RequestError
from epp.hooks.slots import Hooks
from epp.seam import End
from epp.telemetry.decision_record import Why
from tests.unit.decision.rig import AsyncPlugin, Plugin, Rig, hooks, outcome, request
from tests.unit.decision.vocabulary import MODEL_HEADER, C
from tests.unit.decision.waiting import FULL, Gate, Stubborn
from tests.unit.scheduling.doubles import keep, make_profile


def test_decisions_are_recorded_only_on_demand() -> None:
    quiet, loud = Rig(), Rig(why=Why.LOG)
    quiet.send()
    loud.send(request(headers=MODEL_HEADER))
    assert quiet.decisions.records == []
    (record,) = loud.decisions.records
    assert (record.request_id, record.model, record.target_model, record.picked) == ("r-1", "m", "h", [C])


def test_a_failed_decision_is_recorded_too() -> None:
    rig = Rig(why=Why.LOG, profile=make_profile(filters=[keep()]))
    assert rig.send().reply.status == 429
    (record,) = rig.decisions.records
    assert record.error.startswith("failed to run scheduler profile 'default'")


def test_what_is_counted_when_a_request_is_scheduled() -> None:
    rig = Rig()
    rig.objects.put(InferenceObjective(ObjectKey(GROUP, "default", "o"), priority=2))
    rig.send(request(headers={"x-llm-d-inference-objective": "o", "x-llm-d-inference-fairness-id": "team", **MODEL_HEADER}))
    labels = {"model_name": "m", "target_model_name": "h", "fairness_id": "team", "priority": "2"}
    assert rig.count("request_total", **labels) == 1
    assert rig.count("request_running", **labels) == 1
    assert rig.count("request_processing_duration_seconds_sum") == 0.25
    assert rig.count("scheduler_attempts_total", status="success", target_model_name="h", endpoint_name="c") == 1
    assert rig.count("request_error_total") is None


async def test_a_record_holds_every_stage() -> None:
    gate = Gate()
    plugin = Plugin("p", [], screen=lambda r, candidates: candidates.select([1, 2]))
    waits = AsyncPlugin("w", [], admit=None)
    both = hooks(plugin, waits, slots=["request_header", "producers", "admitters", "pre_request"])
    slots = Hooks(
        request_header=both.request_header[:1],
        screeners=hooks(plugin, slots=["screeners"]).screeners,
        producers=both.producers,
        admitters=both.admitters,
        pre_request=both.pre_request,
    )
    rig = Rig(slots, admission=gate, why=Why.LOG)
    stream = rig.send(request(headers={"x-llm-d-inference-fairness-id": "t"}))
    gate.held[0].release()
    await stream.answered.wait()
    [record] = rig.decisions.records
    shown = record.as_json()
    assert json.loads(json.dumps(shown)) == shown
    assert (record.schema, record.path, record.fairness_id, record.status) == (1, "/v1/completions", "t", 0)
    assert [(s.plugin, s.dropped, s.kept) for s in record.screeners] == [("p", ["192.168.1.1:8000"], 2)]
    assert record.candidates == ["192.168.1.2:8000", "192.168.1.3:8000"]
    assert record.admission is not None
    assert record.admission.outcome == "admitted"
    points = [(call.extension_point, call.plugin) for call in record.calls]
    assert points == [
        ("RequestHeader", "p"),
        ("Screener", "p"),
        ("DataProducer", "p"),
        ("DataProducer", "w"),
        ("Admission", "p"),
        ("Admission", "w"),
        ("ProfilePicker", "handler"),
        ("Scorer", "s1"),
        ("Picker", "picker"),
        ("ProfilePicker", "handler"),
        ("ProfilePicker", "handler"),
        ("PreRequest", "p"),
        ("PreRequest", "w"),
    ]
    assert all(call.took_s >= 0 for call in record.calls)


@pytest.mark.parametrize(
    ("refusal", "status", "outcome_"),
    [pytest.param(FULL, 429, "refused", id="refused while held"), pytest.param(None, 0, "admitted", id="admitted")],
)
def test_a_record_tells_of_admission(refusal: RequestError | None, status: int, outcome_: str) -> None:
    gate = Gate()
    rig = Rig(admission=gate, why=Why.LOG)
    rig.send()
    if refusal is None:
        gate.held[0].release()
    else:
        gate.held[0].refuse(refusal)
    [record] = rig.decisions.records
    assert record.admission is not None
    assert (record.admission.outcome, record.status) == (outcome_, status)


async def test_a_request_whose_client_leaves_is_recorded_too() -> None:
    held, waiting = Rig(admission=Gate(), why=Why.LOG), Rig(hooks(AsyncPlugin("p", [], produce=Stubborn())), why=Why.LOG)
    for rig in (held, waiting):
        stream = rig.send()
        await asyncio.sleep(0)
        rig.director.finished(stream, outcome(End.DISCONNECTED))
        await rig.settle()
        [record] = rig.decisions.records
        assert (record.error, record.picked) == ("the stream ended before the decision", [])


def test_a_request_that_cannot_be_read_is_recorded_too() -> None:
    rig = Rig(why=Why.LOG)
    rig.send(request(b"{"))
    [record] = rig.decisions.records
    assert (record.status, record.request_id, record.picked) == (400, "r-1", [])
    assert record.error
