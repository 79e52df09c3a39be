"""From a request to its route or refusal: order of the stages, errors, model names, headers and metadata."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import Any

import pytest

from epp.datalayer.objects import GROUP, InferenceModelRewrite, InferenceObjective, ObjectKey, RewriteRule, RewriteTarget
from epp.decision import progress
from epp.decision.pipeline import PipelineInUse
from epp.errors import ErrorCode, RequestError
from epp.framework.candidates import Candidates
from epp.framework.keys import AGENT_IDENTITY, PREFIX_CACHE_MATCH, PrefixMatch
from epp.framework.types import InferenceRequest
from epp.plugin_calls import step
from epp.seam import BodyState, Edits, End, Observe, Plan, Rename
from tests.unit.decision.rig import COMPLETION, AsyncPlugin, FakeStream, Plugin, Rig, hooks, outcome, request
from tests.unit.scheduling.doubles import Best, Does, Handler, keep, make_profile

A, B, C = "192.168.1.1:8000", "192.168.1.2:8000", "192.168.1.3:8000"
DESTINATION = "x-gateway-destination-endpoint"
SUBSET = {"envoy.lb.subset_hint": {"x-gateway-destination-endpoint-subset": [B]}}
BUG = ZeroDivisionError("secret")
CHAT = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


def refusal(rig: Rig, *args: Any, **kwargs: Any) -> tuple[int, str, dict[str, str]]:
    """Status, text and headers of the refusal of this request."""
    reply = rig.send(request(*args, **{"path": "/plain", **kwargs})).reply
    return reply.status, reply.body.decode(), dict(reply.headers)


# ── the route ──


def test_a_request_goes_to_the_best_endpoint() -> None:
    route = Rig().send().route
    assert route.headers == Edits(((DESTINATION, C),))
    assert route.metadata == {"envoy.lb": {DESTINATION: C}}
    assert route.splices == ()
    assert route.plan == Plan(readers=("openai-usage",))


def test_two_targets_are_a_list() -> None:
    rig = Rig(profile=make_profile(scorers=[(Does([0.9, 0.7, 0.8]), 1.0)], picker=Best(2)))
    route = rig.send().route
    assert route.headers.set == ((DESTINATION, f"{A},{C}"),), "C29"
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
    assert all(UUID4.fullmatch(each) for each in ids), "C24"
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
    assert route.metadata == {"envoy.lb": {"x": 1, DESTINATION: C}, "o": {"y": [2]}}, "C32"


def test_headers_of_plugins_follow_ours() -> None:
    def process(request: object, edits: Any) -> None:
        edits.set("x-a", "1")

    def pre_request(request: object, result: object, edits: Any) -> None:
        edits.set(DESTINATION, "6.6.6.6:1")
        edits.remove("x-prefiller-host-port")

    plugin = Plugin("p", [], process_request=process, pre_request=pre_request)
    edits = Rig(hooks(plugin, slots=["request_header", "pre_request"])).send().route.headers
    assert edits == Edits(((DESTINATION, C), ("x-a", "1")), frozenset({"x-prefiller-host-port"})), "C27"


# ── order of the stages ──

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


# ── conditional requests ──


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


# ── model names ──


def rule(name: str, target: str, *models: str) -> InferenceModelRewrite:
    return InferenceModelRewrite(
        ObjectKey(GROUP, "default", name), (RewriteRule((RewriteTarget(target),), models, generic=not models),)
    )


def forwarded(rig: Rig, body: bytes, headers: dict[str, str] | None = None, path: str = "/v1/completions") -> bytes:
    route = rig.send(request(body, path=path, headers=headers)).route
    for start, end, new in reversed(route.splices):
        body = body[:start] + new + body[end:]
    return body


BODY = b'{ "prompt":"x", "model" : "m","n":1,"big":12345678901234567890,"f":1.0}'
HEADER = {"x-llm-d-model-name-rewrite": "h"}


@pytest.mark.parametrize(
    ("rules", "headers", "sent", "rewrites"),
    [
        pytest.param([], {}, b"m", None, id="as it came"),
        pytest.param([], HEADER, b"h", None, id="header"),
        pytest.param([], {"x-gateway-model-name-rewrite": "h"}, b"h", None, id="header, older name"),
        pytest.param([], {"x-llm-d-model-name-rewrite": ""}, b"m", None, id="empty header"),
        pytest.param([rule("r", "t", "m")], {}, b"t", ("r", "m", "t"), id="C15 rule"),
        pytest.param([rule("r", "t", "m")], HEADER, b"t", ("r", "m", "t"), id="C16 rule and header"),
        pytest.param([rule("r", "t", "other")], HEADER, b"h", None, id="rule of another model"),
        pytest.param([rule("r", "t")], {}, b"t", ("r", "m", "t"), id="generic rule"),
        pytest.param([rule("r", "m", "m")], {}, b"m", ("r", "m", "m"), id="rule that keeps the name"),
    ],
)
def test_the_model_that_is_sent(
    rules: list[InferenceModelRewrite], headers: dict[str, str], sent: bytes, rewrites: tuple[str, str, str] | None
) -> None:
    rig = Rig()
    for each in rules:
        rig.objects.put(each)
    assert forwarded(rig, BODY, headers) == BODY.replace(b'"m"', b'"' + sent + b'"')
    names = dict(zip(("model_rewrite_name", "model_name", "target_model"), rewrites or (), strict=bool(rewrites)))
    assert rig.count("model_rewrite_decisions_total", **names) == (1 if rewrites else None)
    name = sent.decode()
    assert rig.count("request_total", model_name="m", target_model_name=name, fairness_id="default-flow", priority="0") == 1


@pytest.mark.parametrize(
    ("rules", "headers"),
    [([rule("r", "g")], {}), ([], {"x-llm-d-model-name-rewrite": "g"})],
    ids=["C17 generic rule", "header"],
)
def test_a_missing_model_can_be_supplied(rules: list[InferenceModelRewrite], headers: dict[str, str]) -> None:
    rig = Rig()
    for each in rules:
        rig.objects.put(each)
    assert forwarded(rig, b'{"prompt":"x"}', headers) == b'{"model":"g","prompt":"x"}'
    stream = rig.send(request(b'{"prompt":"x"}', headers=headers))
    assert stream.flight.inference.model == ""
    assert stream.route.plan.rename is None, "there is no name to restore"


@pytest.mark.parametrize("body", [{"prompt": "x"}, {"prompt": "x", "model": ""}, {"prompt": "x", "model": 5}], ids=repr)
@pytest.mark.parametrize("endpoints", ["", "abc"], ids=["without endpoints", "with endpoints"])
def test_without_any_model(body: object, endpoints: str) -> None:
    reply = Rig(endpoints=endpoints).send(request(body)).reply
    assert reply.status == 400, "C46, C59"
    assert b"inference error: BadRequest - model not found in request body" in reply.body


@pytest.mark.parametrize(
    ("headers", "rename"), [(HEADER, Rename("model", "h", "m")), ({}, None), ({"x-llm-d-model-name-rewrite": "m"}, None)]
)
def test_the_clients_name_is_restored_in_the_response(headers: dict[str, str], rename: Rename | None) -> None:
    assert Rig().send(request(BODY, headers=headers)).route.plan.rename == rename


def test_an_unread_body_is_not_rewritten() -> None:
    rig = Rig()
    rig.objects.put(rule("r", "g"))
    assert forwarded(rig, b"passthrough-parser", HEADER, "/other") == b"passthrough-parser", "C20"
    assert rig.count("request_total", model_name="h", target_model_name="h") == 1
    assert rig.count("model_rewrite_decisions_total") is None


# ── bodies that are not there ──


def test_a_request_without_a_body_goes_anywhere() -> None:
    journal: list[str] = []
    rig = Rig(hooks(Plugin("p", journal)))
    stream = rig.send(request(state=BodyState.ABSENT, path="/v1/models"))
    assert stream.route == (Edits(((DESTINATION, A),)), {"envoy.lb": {DESTINATION: A}}, Plan(), ()), "C41"
    assert rig.director.response_headers(stream, outcome().head) is None  # type: ignore[arg-type]  # it has one
    assert rig.director.finished(stream, outcome()) is None
    assert journal == [], "C44, D16"
    assert rig.count("request_total") is None


def test_the_subset_hint_counts_without_a_body() -> None:
    route = Rig().send(request(state=BodyState.ABSENT, metadata=SUBSET)).route
    assert route.headers.set == ((DESTINATION, B),), "C43"


def test_no_endpoints_without_a_body() -> None:
    status, text, headers = refusal(Rig(endpoints=""), state=BodyState.ABSENT)
    assert (status, text) == (503, "inference error: ServiceUnavailable - no pods available in datastore"), "C42"
    assert headers["x-llm-d-request-dropped-reason"] == "rejected-no-endpoints"


def test_a_body_that_cannot_be_seen_is_scheduled_unread() -> None:
    rig = Rig(hooks(Plugin("p", []), slots=["complete"]))
    rig.objects.put(rule("r", "g"))
    route = rig.send(request(state=BodyState.UNSEEN)).route
    assert (route.headers.set, route.splices, route.plan) == (((DESTINATION, C),), (), Plan(hold_end=True))


@pytest.mark.parametrize(
    ("state", "headers", "status", "text"),
    [
        (BodyState.UNSEEN, HEADER, 400, "BadRequest - request body not available for model rewrite"),
        (BodyState.TIMED_OUT, {}, 408, "RequestTimeout - request body incomplete"),
        (BodyState.TOO_LARGE, {}, 413, "PayloadTooLarge - request body is larger than this service accepts"),
        (BodyState.NO_MEMORY, {}, 503, "ServiceUnavailable - too many request bodies in memory, try again in a moment"),
    ],
)
def test_bodies_that_are_refused(state: BodyState, headers: dict[str, str], status: int, text: str) -> None:
    rig = Rig()
    assert refusal(rig, state=state, headers=headers)[:2] == (status, f"inference error: {text}")
    code = text.partition(" ")[0]
    assert rig.count("request_error_total", error_code=code) == 1


def test_refusals_keep_nothing_of_earlier_requests() -> None:
    rig = Rig(hooks(Plugin("p", [], screen=lambda r, candidates: candidates.select([])), slots=["screeners"]))
    raised: list[RequestError] = []
    keep_error = rig.director._refuse

    def refuse(flight: Any, error: RequestError) -> Any:
        raised.append(error)
        return keep_error(flight, error)

    rig.director._refuse = refuse  # type: ignore[method-assign]  # to see the exceptions
    for state in (BodyState.TIMED_OUT, BodyState.TIMED_OUT, BodyState.COMPLETE, BodyState.COMPLETE):
        rig.send(request(state=state))
    assert len({id(error) for error in raised}) == 4, "an exception that is raised again grows by a traceback each time"


# ── refusals ──


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("/v1/completions", b"no healthy upstream", "error unmarshaling request bodyMap: "),
        (
            "/v1/chat/completions/?x=1",
            b'{"model":"m","messages":[]}',
            "invalid chat completions request: must have valid messages field",
        ),
        ("/v1/messages", b'{"messages":[]}', "invalid messages request: must have at least one message"),
    ],
)
def test_bodies_that_no_parser_takes(path: str, body: bytes, text: str) -> None:
    rig = Rig()
    reply = rig.send(request(body, path=path)).reply
    assert reply.status == 400
    assert f"inference error: BadRequest - {text}".encode() in reply.body, "C45, C48, C51"
    assert rig.count("request_error_total", error_code="BadRequest", model_name="") == 1


def test_no_endpoints() -> None:
    rig = Rig(endpoints="")
    status, text, headers = refusal(rig)
    assert (status, text) == (
        503,
        "inference error: ServiceUnavailable - failed to find endpoint candidates for serving the request",
    ), "S15, C35"
    assert headers["x-llm-d-request-dropped-reason"] == "rejected-no-endpoints"
    assert rig.count("scheduler_attempts_total") is None


@pytest.mark.parametrize(
    ("profile", "text", "reason"),
    [
        pytest.param(
            make_profile(filters=[keep()]),
            "failed to run scheduler profile 'default': no endpoints left after filter 'f1' in profile 'default'",
            "rejected-saturated",
            id="C52 filters leave nothing",
        ),
        pytest.param(
            make_profile(filters=[Does(BUG)]),
            "failed to run scheduler profile 'default': filter 'f1' failed in profile 'default'",
            None,
            id="C61 a filter fails",
        ),
        pytest.param(
            make_profile(picker=Does([-1])),
            "failed to run scheduler profile 'default': picker 'picker' failed in profile 'default'",
            None,
            id="the picker fails",
        ),
    ],
)
def test_nothing_is_found(profile: object, text: str, reason: str | None) -> None:
    rig = Rig(profile=profile)
    status, body, headers = refusal(rig, path="/other")
    assert (status, body) == (429, f"inference error: ResourceExhausted - failed to find target endpoint: {text}")
    assert headers.get("x-llm-d-request-dropped-reason") == reason
    assert rig.count("scheduler_attempts_total", status="failure") == 1
    assert rig.count("request_error_total", error_code="ResourceExhausted") == 1
    assert rig.count("request_total") is None


def test_a_profile_handler_may_refuse() -> None:
    rig = Rig(handler=Handler(RequestError(ErrorCode.PRECONDITION_FAILED, "no cache")))
    assert refusal(rig)[:2] == (412, "inference error: PreconditionFailed - no cache")
    assert rig.count("scheduler_attempts_total", status="failure") == 1


class Detector:
    """A pool that is this full; counts how often it is asked."""

    def __init__(self, level: float) -> None:
        self._level = level
        self.asked = 0

    def saturation(self, candidates: Candidates) -> float:
        self.asked += 1
        return self._level


def ask_a_pool(level: float, objective: str, **rig: Any) -> tuple[Detector, FakeStream]:
    """A request with this objective (``low`` has the priority -1, ``high`` 1) to a pool that is this full."""
    detector = Detector(level)
    made = Rig(detector=detector, **rig)
    for name, priority in (("low", -1), ("high", 1)):
        made.objects.put(InferenceObjective(ObjectKey(GROUP, "default", name), priority=priority))
    return detector, made.send(request(path="/other", headers={"x-llm-d-inference-objective": objective}))


def test_flow_28_a_sheddable_request_is_refused_by_a_full_pool() -> None:
    _, stream = ask_a_pool(1.0, "low")
    reply = stream.reply
    assert (reply.status, reply.body) == (
        429,
        b"inference error: ResourceExhausted - system saturated, sheddable request dropped",
    )
    assert dict(reply.headers)["x-llm-d-request-dropped-reason"] == "rejected-saturated"


@pytest.mark.parametrize(
    ("objective", "level", "asked"),
    [
        pytest.param("low", 0.99, 1, id="flow 29: sheddable, a pool that is almost full"),
        pytest.param("none", 7.0, 0, id="flow 30: the detector is not asked about priority 0"),
        pytest.param("high", 7.0, 0, id="nor about higher priorities"),
        pytest.param("unknown", 1.0, 0, id="flow 32: an unknown objective has priority 0"),
    ],
)
def test_who_passes_legacy_admission(objective: str, level: float, asked: int) -> None:
    detector, stream = ask_a_pool(level, objective)
    assert stream.route
    assert detector.asked == asked


def test_flow_31_without_endpoints_there_is_nothing_to_admit_to() -> None:
    detector, stream = ask_a_pool(1.0, "none", endpoints="")
    assert stream.reply.status == 503
    assert dict(stream.reply.headers)["x-llm-d-request-dropped-reason"] == "rejected-no-endpoints"
    assert detector.asked == 0


def test_screeners_leave_nothing() -> None:
    rig = Rig(hooks(Plugin("p", [], screen=lambda r, candidates: candidates.select([])), slots=["screeners"]))
    status, text, headers = refusal(rig)
    assert (status, text) == (503, "inference error: ServiceUnavailable - screeners eliminated all endpoint candidates")
    assert headers["x-llm-d-request-dropped-reason"] == "rejected-no-endpoints"


def test_screeners_restrict_scheduling() -> None:
    rig = Rig(hooks(Plugin("p", [], screen=lambda r, candidates: candidates.select([0])), slots=["screeners"]))
    assert rig.send().route.headers.set == ((DESTINATION, A),)


@pytest.mark.parametrize("kind", [Plugin, AsyncPlugin])
@pytest.mark.parametrize(
    ("does", "status", "text"),
    [
        pytest.param({"admit": "no"}, 429, "ResourceExhausted - request cannot be admitted: no", id="C57 denied"),
        pytest.param({"admit": BUG}, 500, "Internal - internal error", id="an admitter fails"),
        pytest.param(
            {"process_request": RequestError(ErrorCode.UNAUTHORIZED, "who?")}, 401, "Unauthorized - who?", id="not authorized"
        ),
        pytest.param({"process_request": BUG}, 500, "Internal - internal error", id="a header hook fails"),
        pytest.param(
            {"pre_request": RequestError(ErrorCode.PRECONDITION_FAILED, "no cache")},
            412,
            "PreconditionFailed - no cache",
            id="C55 PreRequest refuses",
        ),
    ],
)
async def test_hooks_that_refuse(kind: type[Plugin], does: dict[str, object], status: int, text: str) -> None:
    rig = Rig(hooks(kind("p", [], **does), slots=["request_header", "producers", "admitters", "pre_request"]))
    reply = (await rig.sent(request(path="/other"))).reply
    assert (reply.status, reply.body.decode()) == (status, f"inference error: {text}")
    assert rig.count("request_error_total", error_code=text.partition(" ")[0]) == 1


@pytest.mark.parametrize("kind", [Plugin, AsyncPlugin])
async def test_a_producer_that_fails_costs_only_its_data(kind: type[Plugin]) -> None:
    rig = Rig(hooks(kind("p", [], produce=BUG), slots=["producers"]))
    assert (await rig.sent()).route, "C58"
    assert [text for _, _, text in rig.reports.seen] == ["secret"]


async def for_ever(*args: object) -> None:
    await asyncio.Event().wait()


async def test_a_slow_producer_costs_only_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "HOOK_DEADLINE_S", 0.01)
    rig = Rig(hooks(AsyncPlugin("p", [], produce=for_ever), slots=["producers"]))
    assert (await rig.sent()).route, "C58"


async def test_the_whole_decision_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "DECISION_DEADLINE_S", 0.01)
    rig = Rig(hooks(AsyncPlugin("p", [], admit=for_ever), slots=["admitters"]))
    reply = (await rig.sent(request(path="/other"))).reply
    assert (reply.status, reply.body) == (503, b"inference error: ServiceUnavailable - no decision in time")


@pytest.mark.parametrize("kind", [Plugin, AsyncPlugin])
async def test_a_defect_of_ours_is_an_internal_error(kind: type[Plugin]) -> None:
    class Broken:
        def saturation(self, candidates: Candidates) -> float:
            raise BUG

    rig = Rig(hooks(kind("p", []), slots=["producers"]), detector=Broken())
    rig.objects.put(InferenceObjective(ObjectKey(GROUP, "default", "o"), priority=-1))
    stream = await rig.sent(request(path="/other", headers={"x-llm-d-inference-objective": "o"}))
    assert (stream.reply.status, stream.reply.body) == (500, b"inference error: Internal - internal error"), "C61"
    assert [error for _, error in rig.failures] == [BUG]
    assert rig.count("request_error_total", error_code="Internal") == 1


@pytest.mark.parametrize(
    ("path", "headers", "content_type", "grpc_status"),
    [
        ("/v1/completions", {}, "application/json", None),
        ("/v1/messages", {}, "application/json", None),
        ("/other", {}, "text/plain; charset=utf-8", None),
        ("/v1/completions", {"content-type": "application/grpc"}, "text/plain; charset=utf-8", 14),
    ],
)
def test_the_shape_of_a_refusal(path: str, headers: dict[str, str], content_type: str, grpc_status: int | None) -> None:
    body = CHAT if path == "/v1/messages" else COMPLETION
    reply = Rig(endpoints="").send(request(body, path=path, headers=headers)).reply
    assert dict(reply.headers)["content-type"] == content_type
    assert (reply.grpc_status, reply.details) == (grpc_status, "rejected-no-endpoints"), "C60, D14"


def test_a_path_that_is_no_text() -> None:
    rig = Rig()
    rig.director.pipeline.parsers._fallback = None
    reply = rig.send(request(path="/v1/\udcff/")).reply
    assert reply.status == 400
    assert "no parser registered matching path suffix for: /v1/\ufffd".encode() in reply.body


def test_the_root_path_is_named() -> None:
    rig = Rig()
    rig.director.pipeline.parsers._fallback = None
    assert rig.send(request(path="/")).reply.body.decode().endswith("matching path suffix for: /")


# ── records and metrics ──


def test_decisions_are_recorded_only_on_demand() -> None:
    quiet, loud = Rig(), Rig(wanted=True)
    quiet.send()
    loud.send(request(headers=HEADER))
    assert quiet.decisions.records == []
    (record,) = loud.decisions.records
    assert (record.request_id, record.model, record.target_model, record.picked) == ("r-1", "m", "h", [C])


def test_a_failed_decision_is_recorded_too() -> None:
    rig = Rig(wanted=True, profile=make_profile(filters=[keep()]))
    assert rig.send().reply.status == 429
    (record,) = rig.decisions.records
    assert record.error.startswith("failed to run scheduler profile 'default'")


def test_what_is_counted_when_a_request_is_scheduled() -> None:
    rig = Rig()
    rig.objects.put(InferenceObjective(ObjectKey(GROUP, "default", "o"), priority=2))
    rig.send(request(headers={"x-llm-d-inference-objective": "o", "x-llm-d-inference-fairness-id": "team", **HEADER}))
    labels = {"model_name": "m", "target_model_name": "h", "fairness_id": "team", "priority": "2"}
    assert rig.count("request_total", **labels) == 1
    assert rig.count("request_running", **labels) == 1
    assert rig.count("request_processing_duration_seconds_sum") == 0.25
    assert rig.count("scheduler_attempts_total", status="success", target_model_name="h", endpoint_name="c") == 1
    assert rig.count("request_error_total") is None


# ── streams that end while the decision waits ──


async def test_a_decision_is_withdrawn_when_the_stream_ends() -> None:
    journal: list[str] = []
    rig = Rig(hooks(AsyncPlugin("p", journal, produce=for_ever)))
    stream = rig.send()
    await asyncio.sleep(0)
    assert rig.director.finished(stream, outcome(End.DISCONNECTED, head=None)) is None
    await rig.settle()
    assert stream.answers == []
    assert "p.response_complete" not in journal, "C93: nothing was scheduled"
    assert rig.count("request_running") is None


async def test_a_decision_is_withdrawn_before_it_began() -> None:
    rig = Rig(hooks(AsyncPlugin("p", []), slots=["producers"]))
    stream = rig.send()
    rig.director.finished(stream, outcome(End.DISCONNECTED, head=None))
    await rig.settle()
    assert stream.answers == []


async def test_a_plugin_that_ignores_its_cancellation_schedules_nothing() -> None:
    async def stubborn(*args: object) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    rig = Rig(hooks(AsyncPlugin("p", [], produce=stubborn), slots=["producers"]))
    stream = rig.send()
    await asyncio.sleep(0)
    rig.director.finished(stream, outcome(End.DISCONNECTED, head=None))
    await rig.settle()
    assert rig.count("request_running") is None


async def test_a_stream_that_ends_during_pre_request_is_completed_once() -> None:
    journal: list[str] = []
    begun = asyncio.Event()

    def pre_request(*args: object) -> Any:
        begun.set()
        return for_ever()

    rig = Rig(hooks(AsyncPlugin("p", journal, pre_request=pre_request), slots=["pre_request", "complete"]))
    stream = rig.send()
    await begun.wait()
    assert rig.count("request_running") == 1
    rig.director.finished(stream, outcome(End.DISCONNECTED, head=None))
    await rig.settle()
    assert journal == ["p.pre_request", "p.response_complete"]
    assert stream.answers == []
    assert rig.count("request_running") == 0


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
