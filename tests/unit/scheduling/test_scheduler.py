"""A cycle runs the profiles that the handler asks for, ends always, and fails with a text for the client."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from epp.errors import DropReason, ErrorCode, RequestError, SchedulingError
from epp.framework.interfaces import Role
from epp.framework.results import ProfileRunResult, SchedulingResult
from epp.framework.testing import make_candidates, make_plugin, make_request
from epp.telemetry.decision_record import DecisionRecord
from plugins.profile_handlers import single
from tests.unit.scheduling.doubles import Does, Handler, Reports, Results, keep, make_profile, make_scheduler

REQUEST = make_request(request_id="r-1", model="m", target_model="t")


def names(result: SchedulingResult) -> list[str]:
    return [endpoint.name for endpoint in result.targets]


def test_the_one_profile() -> None:
    scheduler = make_scheduler(make_plugin(single.PLUGIN), make_profile(scorers=[(Does([0.1, 0.9]), 1.0)]))
    result = scheduler.schedule(REQUEST, make_candidates(2))
    assert (result.primary, names(result), result.target.name) == ("default", ["b"], "b")
    assert list(result.profiles) == ["default"]


def test_every_profile_begins_with_all_candidates() -> None:
    prefill, decode = keep("a"), keep("b")
    scheduler = make_scheduler(
        Handler(["prefill", "decode"], primary="decode"),
        make_profile("decode", filters=[decode]),
        make_profile("prefill", filters=[prefill]),
    )
    result = scheduler.schedule(REQUEST, make_candidates(2))
    assert (prefill.given, decode.given) == ([["a", "b"]], [["a", "b"]])
    assert list(result.profiles) == ["prefill", "decode"], "in the order they ran"


class Disaggregated:
    """Decode first; then prefill, unless it was decided against; as a handler with a decider does."""

    def __init__(self, *, prefills: bool) -> None:
        self._prefills = prefills
        self.decisions = 0

    def pick(self, request: object, profiles: object, results: dict[str, ProfileRunResult | None]) -> list[str]:
        if "decode" not in results:
            return ["decode"]
        if results["decode"] is None or "prefill" in results:
            return []
        self.decisions += 1
        if self._prefills:
            return ["prefill"]
        results["prefill"] = None
        return []

    def process_results(self, request: object, results: Results) -> SchedulingResult:
        decode = results["decode"]
        if decode is None:
            raise SchedulingError("failed to find available decode workers")
        return SchedulingResult("decode", dict(results), decode.targets)


def test_a_stage_decided_against_is_not_considered_again() -> None:
    handler = Disaggregated(prefills=False)
    prefill = keep("a")
    scheduler = make_scheduler(handler, make_profile("decode"), make_profile("prefill", filters=[prefill]))
    result = scheduler.schedule(REQUEST, make_candidates(2))
    assert (handler.decisions, prefill.given, result.profiles["prefill"]) == (1, [], None)


def test_a_failed_prefill_is_no_failure() -> None:
    scheduler = make_scheduler(Disaggregated(prefills=True), make_profile("decode"), make_profile("prefill", filters=[keep()]))
    result = scheduler.schedule(REQUEST, make_candidates(2))
    assert (result.primary, result.profiles["prefill"]) == ("decode", None), "S16: decode alone"


def test_without_decode_prefill_does_not_run() -> None:
    prefill = keep("a")
    scheduler = make_scheduler(
        Disaggregated(prefills=True), make_profile("decode", filters=[keep()]), make_profile("prefill", filters=[prefill])
    )
    with pytest.raises(SchedulingError, match=r"^failed to find available decode workers: no endpoints left") as caught:
        scheduler.schedule(REQUEST, make_candidates(2))
    assert caught.value.reason is DropReason.SATURATED
    assert prefill.given == [], "S17: prefill is not run"


def test_three_profiles_of_which_two_run() -> None:
    others = keep("a")
    scheduler = make_scheduler(
        Disaggregated(prefills=True),
        make_profile("decode"),
        make_profile("prefill"),
        make_profile("encode", filters=[others]),
    )
    result = scheduler.schedule(REQUEST, make_candidates(2))
    assert (list(result.profiles), others.given) == (["decode", "prefill"], []), "S18: the third never"


def again(results: Results) -> list[str]:
    return ["default"]


def test_asking_again_for_what_ran_aborts() -> None:
    reports = Reports()
    handler = Handler(*[again] * 5)
    ran = keep("a")
    scheduler = make_scheduler(handler, make_profile(filters=[ran]), reports=reports)
    with pytest.raises(SchedulingError, match=r"^profile handler 'handler' failed$"):
        scheduler.schedule(REQUEST, make_candidates(1))
    assert (handler.asked, len(ran.given)) == (2, 1), "S19: no endless loop"
    assert reports.seen == [(Role.PROFILE_HANDLER, "handler", "asked again for profiles that had run: default")]


@pytest.mark.parametrize(
    "stages",
    [
        pytest.param([["x", "x"]], id="twice at once"),
        pytest.param([["x"], ["x", "y"]], id="again beside a new one"),
        pytest.param([("x",), iter(["y"])], id="a tuple, an iterator"),
        pytest.param([["x"], None], id="None is none"),
    ],
)
def test_no_profile_runs_twice(stages: list[object]) -> None:
    ran = keep("a")
    scheduler = make_scheduler(Handler(*stages), make_profile("x", filters=[ran]), make_profile("y"))
    assert scheduler.schedule(REQUEST, make_candidates(2)).primary == "x"
    assert len(ran.given) == 1


@pytest.mark.parametrize(
    ("handler", "text", "problem"),
    [
        pytest.param(Handler(), "failed to run any scheduler profile for request r-1", None, id="S20 wants nothing"),
        pytest.param(
            Handler(["absent"]),
            "profile handler 'handler' failed",
            "asked for the profile 'absent', which does not exist",
            id="unknown profile",
        ),
        pytest.param(Handler(OSError("disk")), "profile handler 'handler' failed", "disk", id="pick raises"),
        pytest.param(
            Handler(7), "profile handler 'handler' failed", "'int' object is not iterable", id="pick returns a number"
        ),
        pytest.param(
            Handler([["default"]]), "profile handler 'handler' failed", "unhashable type: 'list'", id="names in lists"
        ),
        pytest.param(
            Handler(["default"], outcome=OSError("disk")),
            "profile handler 'handler' failed",
            "disk",
            id="process_results raises",
        ),
        pytest.param(
            Handler(["default"], outcome=lambda results: None),
            "profile handler 'handler' failed",
            "'NoneType' object has no attribute 'targets'",
            id="process_results returns nothing",
        ),
        pytest.param(
            Handler(["default"], outcome=lambda results: SchedulingResult("default", {}, ())),
            "profile handler 'handler' failed",
            "returned the primary profile 'default' without endpoints",
            id="no targets",
        ),
        pytest.param(Handler(SchedulingError("no idea")), "no idea", None, id="pick gives up"),
    ],
)
def test_a_handler_that_fails(handler: Handler, text: str, problem: str | None) -> None:
    reports = Reports()
    record = DecisionRecord()
    with pytest.raises(SchedulingError) as caught:
        make_scheduler(handler, make_profile(), reports=reports).schedule(REQUEST, make_candidates(1), record)
    assert str(caught.value) == record.error == text
    assert caught.value.reason is None
    assert reports.seen == ([(Role.PROFILE_HANDLER, "handler", problem)] if problem else [])


@pytest.mark.parametrize(
    "make_handler",
    [
        pytest.param(Handler, id="in pick"),
        pytest.param(lambda error: Handler(["default"], outcome=error), id="in process_results"),
    ],
)
def test_a_handler_may_refuse_with_a_status_of_its_own(make_handler: Callable[[Exception], Handler]) -> None:
    reports = Reports()
    record = DecisionRecord()
    refusal = RequestError(ErrorCode.PRECONDITION_FAILED, "no cache")
    with pytest.raises(RequestError) as caught:
        make_scheduler(make_handler(refusal), make_profile(), reports=reports).schedule(REQUEST, make_candidates(1), record)
    assert caught.value is refusal
    assert record.error == "inference error: PreconditionFailed - no cache"
    assert reports.seen == []


@pytest.mark.parametrize(
    ("filters", "picker", "causes", "reason"),
    [
        pytest.param(
            [keep()],
            None,
            "no endpoints left after filter 'f1' in profile 'default'",
            DropReason.SATURATED,
            id="S14 filtered out",
        ),
        pytest.param([Does(OSError("x"))], None, "filter 'f1' failed in profile 'default'", None, id="a filter fails"),
        pytest.param([], Does([-1]), "picker 'picker' failed in profile 'default'", None, id="the picker fails"),
    ],
)
def test_the_only_profile_fails(filters: list[Does], picker: Does | None, causes: str, reason: DropReason | None) -> None:
    scheduler = make_scheduler(make_plugin(single.PLUGIN), make_profile(filters=filters, picker=picker))
    with pytest.raises(SchedulingError) as caught:
        scheduler.schedule(REQUEST, make_candidates(3))
    assert str(caught.value) == f"failed to run scheduler profile 'default': {causes}"
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("own", "second_filter", "reason"),
    [
        pytest.param(None, keep(), DropReason.SATURATED, id="shared by all profiles"),
        pytest.param(None, Does(OSError("x")), None, id="not shared"),
        pytest.param(DropReason.NO_ENDPOINTS, keep(), DropReason.NO_ENDPOINTS, id="the handler's own wins"),
    ],
)
def test_the_reason_of_several_failures(own: DropReason | None, second_filter: Does, reason: DropReason | None) -> None:
    scheduler = make_scheduler(
        Handler(["b", "a"], outcome=SchedulingError("all failed", own)),
        make_profile("a", filters=[keep()]),
        make_profile("b", filters=[second_filter]),
    )
    with pytest.raises(SchedulingError, match=r"^all failed: .*'a'; .*'b'$") as caught:
        scheduler.schedule(REQUEST, make_candidates(1))
    assert caught.value.reason is reason


def test_the_record_of_a_cycle() -> None:
    record = DecisionRecord()
    scheduler = make_scheduler(
        Handler(["prefill", "decode"], primary="decode"),
        make_profile("decode", scorers=[(Does([0.0, 1.0]), 1.0)]),
        make_profile("prefill", filters=[keep()]),
    )
    scheduler.schedule(REQUEST, make_candidates(2), record)
    assert (record.request_id, record.model, record.target_model) == ("r-1", "m", "t")
    assert record.candidates == ["192.168.1.1:8000", "192.168.1.2:8000"]
    assert (record.primary, record.picked, record.error) == ("decode", ["192.168.1.2:8000"], "")
    assert [(p.profile, p.picked, p.error) for p in record.profiles] == [
        ("prefill", [], "no endpoints left after filter 'f1' in profile 'prefill'"),
        ("decode", ["192.168.1.2:8000"], ""),
    ]
