"""data-parallel-profile-handler and header-profile-handler."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from epp.errors import SchedulingError
from epp.framework.results import SchedulingResult
from epp.framework.testing import RecordedEdits, make_candidates, make_context, make_plugin, make_request
from epp.framework.types import InferenceRequest
from plugins.profile_handlers import data_parallel, header
from tests.unit.plugins.disaggregated import Stage, endpoints
from tests.unit.scheduling.doubles import Reports, make_scheduler

RANKS = endpoints(("10.0.0.5", 8003), ("fd00::5", 8001))


def schedule(
    handler: object, *stages: Stage, request: InferenceRequest | None = None, candidates: Any = None
) -> SchedulingResult:
    reports = Reports()
    scheduler = make_scheduler(handler, *(stage.profile([]) for stage in stages), reports=reports)
    try:
        return scheduler.schedule(request or make_request(request_id="r-1"), candidates or make_candidates(3))
    finally:
        assert not reports.seen


@pytest.mark.parametrize(
    ("parameters", "targets", "rank"),
    [
        pytest.param({}, ["10.0.0.5:8000", "[fd00::5]:8000"], "10.0.0.5:8003", id="default port"),
        pytest.param({"primaryPort": 9000}, ["10.0.0.5:9000", "[fd00::5]:9000"], "10.0.0.5:8003", id="another port"),
        pytest.param({"primaryPort": 0}, ["10.0.0.5:8003", "[fd00::5]:8001"], None, id="off"),
    ],
)
def test_data_parallel_ports(parameters: dict[str, Any], targets: list[str], rank: str | None) -> None:
    handler = make_plugin(data_parallel.PLUGIN, parameters)
    result = schedule(handler, Stage("default", "ab", count=2), candidates=RANKS)
    edits = RecordedEdits()
    handler.pre_request(make_request(), result, edits)
    assert [endpoint.host_port for endpoint in result.targets] == targets
    assert [endpoint.id for endpoint in result.targets] == [endpoint.id for endpoint in RANKS]
    assert edits.values == ({"x-data-parallel-host-port": rank} if rank else {})
    assert [endpoint.port for endpoint in RANKS] == [8003, 8001], "as they were"


def test_data_parallel_runs_its_profile_once() -> None:
    handler = make_plugin(data_parallel.PLUGIN)
    assert tuple(handler.pick(make_request(), {"p": None}, {})) == ("p",)
    assert tuple(handler.pick(make_request(), {"p": None}, {"p": None})) == ()


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        pytest.param([Stage("p", "")], "failed to run scheduler profile 'p'", id="the profile fails"),
        pytest.param([Stage("p", "a"), Stage("q", "a")], "failed to run any scheduler profile", id="two profiles"),
    ],
)
def test_data_parallel_failures(stages: list[Stage], message: str) -> None:
    with pytest.raises(SchedulingError, match=message):
        schedule(make_plugin(data_parallel.PLUGIN), *stages)


def test_data_parallel_refuses_results_of_several_profiles() -> None:
    with pytest.raises(SchedulingError, match="exactly one scheduling profile, 2 ran"):
        make_plugin(data_parallel.PLUGIN).process_results(make_request(), {"p": None, "q": None})


def test_data_parallel_with_several_profiles_does_not_load() -> None:
    with pytest.raises(ValueError, match="works with one scheduling profile, but there are 2"):
        make_plugin(data_parallel.PLUGIN, None, make_context(profiles=("a", "b")))


AB = (Stage("a", "a"), Stage("b", "b"))


@pytest.mark.parametrize(
    ("parameters", "headers", "primary"),
    [
        pytest.param({}, {"EPP-Profile": "b"}, "b", id="H21: named"),
        pytest.param({"defaultProfile": "a"}, {}, "a", id="H21: no header"),
        pytest.param({"defaultProfile": " a "}, {"epp-profile": "  "}, "a", id="a blank header"),
        pytest.param({}, {"epp-profile": " b "}, "b", id="blanks around the name"),
        pytest.param({"headerName": " X-Stage "}, {"x-stage": "b"}, "b", id="another header"),
    ],
)
def test_header_chooses(parameters: dict[str, Any], headers: dict[str, str], primary: str) -> None:
    result = schedule(make_plugin(header.PLUGIN, parameters), *AB, request=make_request(headers=headers))
    assert (result.primary, list(result.profiles), result.target.name) == (primary, [primary], primary)


@pytest.mark.parametrize(
    ("parameters", "headers"),
    [
        pytest.param({"defaultProfile": "a"}, {"epp-profile": "c"}, id="H21: an unknown name"),
        pytest.param({"defaultProfile": "a"}, {"epp-profile": "B"}, id="another case"),
        pytest.param({}, {}, id="no header, and the default profile does not exist"),
    ],
)
def test_header_that_names_no_profile(parameters: dict[str, Any], headers: dict[str, str]) -> None:
    request = make_request(headers=headers, request_id="r-1")
    with pytest.raises(SchedulingError, match=r"^failed to run any scheduler profile for request r-1$"):
        schedule(make_plugin(header.PLUGIN, parameters), *AB, request=request)


@pytest.mark.parametrize("headers", [{}, {"epp-profile": "other"}], ids=["no header", "another name"])
def test_the_only_profile_always_runs(headers: dict[str, str]) -> None:
    result = schedule(make_plugin(header.PLUGIN), Stage("only", "a"), request=make_request(headers=headers))
    assert result.primary == "only"


def test_header_profile_that_fails() -> None:
    with pytest.raises(SchedulingError, match=r"^failed to run scheduler profile 'b'"):
        schedule(make_plugin(header.PLUGIN, {"defaultProfile": "b"}), Stage("a", "a"), Stage("b", ""))


def test_header_handler_refuses_results_of_several_profiles() -> None:
    with pytest.raises(SchedulingError, match="one scheduling profile per request, 2 ran"):
        make_plugin(header.PLUGIN).process_results(make_request(), {"p": None, "q": None})


@pytest.mark.parametrize("name", ["headerName", "defaultProfile"])
def test_blank_names_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="must not be blank"):
        header.PLUGIN.params.decode({name: " "})
