"""The route: the destination, what the plan asks for, scores, metadata and headers of plugins."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from epp.seam import BodyState, Edits, Observe, Plan
from tests.unit.decision.rig import COMPLETION, Plugin, Rig, hooks, request
from tests.unit.decision.vocabulary import CHAT, DESTINATION, SUBSET, A, B, C
from tests.unit.scheduling.doubles import Best, Does, keep, make_profile


def test_a_request_goes_to_the_best_endpoint() -> None:
    route = Rig().send().route
    assert route.headers == Edits(((DESTINATION, C),))
    assert route.metadata == {"envoy.lb": {DESTINATION: C}}
    assert route.splices == ()
    assert route.plan == Plan(readers=("openai-usage",))


def test_two_targets_are_a_list() -> None:
    rig = Rig(profile=make_profile(scorers=[(Does([0.9, 0.7, 0.8]), 1.0)], picker=Best(2)))
    route = rig.send().route
    assert route.headers.set == ((DESTINATION, f"{A},{C}"),), "C29: two targets"
    assert route.metadata == {"envoy.lb": {DESTINATION: f"{A},{C}"}}


def test_the_subset_hint_restricts_the_choice() -> None:
    assert Rig().send(request(metadata=SUBSET)).route.headers.set == ((DESTINATION, B),)


UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@pytest.mark.parametrize("state", [BodyState.COMPLETE, BodyState.ABSENT])
@pytest.mark.parametrize("given", [None, ""], ids=["missing", "empty"])
def test_a_missing_request_id_is_added(state: BodyState, given: str | None) -> None:
    seen: list[str] = []
    plugin = Plugin("p", [], pre_request=lambda r, result, edits: seen.append(r.request_id))
    rig = Rig(hooks(plugin, slots=["pre_request"]))
    sent = [request(headers={"x-request-id": given}, state=state) for _ in range(2)]
    ids = [dict(rig.send(each).route.headers.set)["x-request-id"] for each in sent]
    assert all(UUID4.fullmatch(each) for each in ids), "C24: no request id came"
    assert len(set(ids)) == 2
    assert seen == (ids if state is BodyState.COMPLETE else [])


@pytest.mark.parametrize(
    ("slots", "path", "body", "plan"),
    [
        pytest.param([], "/v1/completions", COMPLETION, Plan(readers=("openai-usage",)), id="no hooks"),
        pytest.param(
            ["received"], "/v1/completions", COMPLETION, Plan(ask_headers=True, readers=("openai-usage",)), id="received"
        ),
        pytest.param(
            ["streaming"], "/v1/completions", COMPLETION, Plan(observe=Observe.FIRST, readers=("openai-usage",)), id="streaming"
        ),
        pytest.param(
            ["complete"], "/v1/completions", COMPLETION, Plan(hold_end=True, readers=("openai-usage",)), id="complete"
        ),
        pytest.param(
            [], "/v1/chat/completions", {**CHAT, "stream": True}, Plan(streams=True, readers=("openai-usage",)), id="a stream"
        ),
        pytest.param([], "/v1/messages", CHAT, Plan(readers=("anthropic-usage",)), id="Anthropic"),
        pytest.param([], "/v1/messages/count_tokens", b"{}", Plan(skip=True), id="count_tokens"),
        pytest.param([], "/other", b"text", Plan(), id="passthrough"),
    ],
)
def test_the_plan_asks_for_what_is_read_and_no_more(slots: list[str], path: str, body: object, plan: Plan) -> None:
    assert Rig(hooks(Plugin("p", []), slots=slots)).send(request(body, path=path)).route.plan == plan


def test_every_chunk_is_asked_for_when_a_hook_reads_them() -> None:
    chosen = replace(hooks(Plugin("p", []), slots=["streaming"]), every_chunk=True)
    assert Rig(chosen).send().route.plan.observe is Observe.EVERY


def test_scores_are_emitted_on_demand() -> None:
    route = Rig(emit_scores=True).send().route
    assert route.metadata == {
        "envoy.lb": {DESTINATION: C, "x-gateway-destination-endpoint-scores": {A: 0.0, B: 0.25, C: 0.5}}
    }, "C31: weighted totals"


def test_scores_are_those_of_what_the_filters_left() -> None:
    rig = Rig(profile=make_profile(filters=[keep("a", "b")], scorers=[(Does([1.0, 0.5]), 1.0)]), emit_scores=True)
    assert rig.send().route.metadata["envoy.lb"]["x-gateway-destination-endpoint-scores"] == {A: 1.0, B: 0.5}


def test_without_scorers_there_are_no_scores() -> None:
    assert Rig(profile=make_profile(), emit_scores=True).send().route.metadata == {"envoy.lb": {DESTINATION: A}}


def annotates(*entries: tuple[str, str, object]) -> Any:
    def pre_request(request: object, result: object, edits: Any) -> None:
        for entry in entries:
            edits.annotate(*entry)

    return pre_request


def test_metadata_of_plugins_is_merged_and_the_destination_stays() -> None:
    plugin = Plugin(
        "p", [], pre_request=annotates(("envoy.lb", "x", 1), ("envoy.lb", DESTINATION, "6.6.6.6:1"), ("o", "y", [2]))
    )
    route = Rig(hooks(plugin, slots=["pre_request"])).send().route
    assert route.metadata == {"envoy.lb": {"x": 1, DESTINATION: C}, "o": {"y": [2]}}, "C32: a plugin's metadata is merged"


def test_headers_of_plugins_follow_ours() -> None:
    def process(request: object, edits: Any) -> None:
        edits.set("x-a", "1")

    def pre_request(request: object, result: object, edits: Any) -> None:
        edits.set(DESTINATION, "6.6.6.6:1")
        edits.remove("x-prefiller-host-port")

    plugin = Plugin("p", [], process_request=process, pre_request=pre_request)
    edits = Rig(hooks(plugin, slots=["request_header", "pre_request"])).send().route.headers
    assert edits == Edits(((DESTINATION, C), ("x-a", "1")), frozenset({"x-prefiller-host-port"})), (
        "C27: a plugin's headers leave the destination"
    )
