"""From a request to its answer: the order of the stages, what plugins see, and streams that are not ours."""

from __future__ import annotations

from typing import Any

import pytest

from epp.datalayer.objects import GROUP, InferenceObjective, ObjectKey
from epp.decision.pipeline import PipelineInUse
from epp.framework.keys import AGENT_IDENTITY
from epp.framework.types import InferenceRequest
from tests.unit.decision.rig import COMPLETION, AsyncPlugin, Plugin, Rig, hooks, outcome, request
from tests.unit.decision.vocabulary import DESTINATION, C
from tests.unit.scheduling.doubles import Handler

STAGES = ["process_request", "screen", "produce", "admit", "pre_request"]


@pytest.mark.parametrize("kind", [Plugin, AsyncPlugin])
async def test_the_order_of_the_stages(kind: type[Plugin]) -> None:
    journal: list[str] = []
    rig = Rig(hooks(kind("p0", journal), kind("p1", journal)), handler=Journalled(journal))
    stream = await rig.sent()
    assert stream.route.headers.set[0] == (DESTINATION, C)
    before = [f"{p}.{stage}" for stage in STAGES[:-1] for p in ("p0", "p1")]
    assert journal == [*before, "schedule", "p0.pre_request", "p1.pre_request"]
    rig.director.finished(stream, outcome())
    await rig.settle()


class Journalled(Handler):
    """A handler that writes when it is asked first."""

    def __init__(self, journal: list[str]) -> None:
        super().__init__(["default"])
        self._journal = journal

    def pick(self, *args: Any) -> Any:
        if not self.asked:
            self._journal.append("schedule")
        return super().pick(*args)


def test_plugins_see_the_request() -> None:
    seen: list[InferenceRequest] = []
    rig = Rig(hooks(Plugin("p", [], process_request=lambda r, edits: seen.append(r)), slots=["request_header"]))
    rig.objects.put(InferenceObjective(ObjectKey(GROUP, "default", "urgent"), priority=7))
    control = {
        "x-llm-d-inference-objective": "urgent",
        "x-llm-d-inference-fairness-id": "team",
        "x-llm-d-model-name-rewrite": "t",
    }
    rig.send(request(path="/v1/completions/?x=1", headers=control))
    (made,) = seen
    assert (made.request_id, made.path, made.model, made.target_model) == ("r-1", "/v1/completions/", "m", "t")
    assert (made.priority, made.fairness_id, made.received_s) == (7, "team", 1000.0)
    assert made.size_bytes == len(b'{"model": "t", "prompt": "hello"}')
    assert made.body.document == COMPLETION
    assert made.headers.get("x-llm-d-inference-objective") == "urgent"


@pytest.mark.parametrize(
    ("headers", "priority"),
    [
        ({}, 0),
        ({"x-llm-d-inference-objective": "unknown"}, 0),
        ({"x-llm-d-inference-objective": "unset"}, 0),
        ({"x-llm-d-inference-objective": "low"}, -1),
        ({"x-gateway-inference-objective": "low"}, -1),
        ({"x-llm-d-inference-objective": "", "x-gateway-inference-objective": "low"}, 0),
        ({"x-llm-d-inference-objective": "unset", "x-gateway-inference-objective": "low"}, 0),
    ],
)
def test_objective_and_priority(headers: dict[str, str], priority: int) -> None:
    rig = Rig()
    rig.objects.put(InferenceObjective(ObjectKey(GROUP, "default", "low"), priority=-1))
    rig.objects.put(InferenceObjective(ObjectKey(GROUP, "default", "unset")))
    assert rig.send(request(headers=headers)).flight.inference.priority == priority


def identify(request: InferenceRequest, edits: object) -> None:
    request.data.set(AGENT_IDENTITY, "agent-7")


@pytest.mark.parametrize(
    ("headers", "identity", "fairness_id"),
    [
        pytest.param({}, None, "default-flow", id="none"),
        pytest.param({"x-llm-d-inference-fairness-id": ""}, None, "default-flow", id="empty"),
        pytest.param({"x-gateway-inference-fairness-id": "team"}, None, "team", id="older name"),
        pytest.param(
            {"x-llm-d-inference-fairness-id": "", "x-gateway-inference-fairness-id": "t1"},
            None,
            "default-flow",
            id="flow 54: the newer name counts even if it is empty",
        ),
        pytest.param({}, identify, "agent-7", id="identity of the agent"),
        pytest.param({"x-llm-d-inference-fairness-id": "team"}, identify, "team", id="the header wins"),
        pytest.param(
            {"x-llm-d-inference-fairness-id": "default-flow"}, identify, "default-flow", id="also by the default's name"
        ),
        pytest.param({"x-llm-d-inference-fairness-id": ""}, identify, "agent-7", id="an empty header does not"),
    ],
)
def test_fairness_id(headers: dict[str, str], identity: Any, fairness_id: str) -> None:
    rig = Rig(hooks(Plugin("p", [], process_request=identity), slots=["request_header"]))
    assert rig.send(request(headers=headers)).flight.inference.fairness_id == fairness_id


async def test_a_configuration_that_is_replaced_does_not_touch_open_streams() -> None:
    old, new = list[str](), list[str]()
    rig = Rig(hooks(Plugin("old", old), slots=["complete"]))
    first = rig.send()
    rig.director.use(PipelineInUse(Rig(hooks(Plugin("new", new), slots=["complete"])).director.pipeline))
    second = rig.send()
    rig.director.finished(first, outcome())
    rig.director.finished(second, outcome())
    assert (old, new) == (["old.response_complete"], ["new.response_complete"])


def test_a_stream_that_sent_no_request_is_nothing_to_us() -> None:
    rig = Rig()
    stream = Rig().send()
    stream.state = None
    assert rig.director.response_headers(stream, outcome().head) is None  # type: ignore[arg-type]  # it has one
    rig.director.response_body(stream, [])
    assert rig.director.finished(stream, outcome()) is None
