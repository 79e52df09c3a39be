"""Session affinity: scorer, filter and producer; tokens that clients keep, and sessions that the picker keeps."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from epp.framework.candidates import Candidates
from epp.framework.keys import AGENT_IDENTITY, SESSION_ID
from epp.framework.results import ProfileRunResult, SchedulingResult
from epp.framework.testing import (
    FakeClock,
    FakeHeaders,
    RecordedEdits,
    make_candidates,
    make_context,
    make_endpoint,
    make_plugin,
    make_request,
)
from epp.framework.types import Endpoint, EndpointChange, InferenceRequest, ResponseInfo
from plugins.filters import session_affinity as session_filter
from plugins.producers import session_id
from plugins.scorers import session_affinity as session_scorer
from plugins.shared.session_affinity import RememberedAffinity
from tests.unit.plugins.flights import decided

RANKS = Candidates(
    [
        Endpoint.of("p-rank-0", "192.168.1.1", 8000, pod_name="p"),
        Endpoint.of("p-rank-1", "192.168.1.1", 8001, pod_name="p", rank_index=1),
        Endpoint.of("q-rank-0", "192.168.1.2", 8000, pod_name="q"),
    ],
    make_candidates(3).metrics,
)
BY_ID = {"strategy": "session_id"}


def token(text: str) -> dict[str, str]:
    return {"x-session-token": base64.b64encode(text.encode()).decode()}


def score(headers: Mapping[str, str], candidates: Candidates, **parameters: Any) -> list[float]:
    return list(make_plugin(session_scorer.PLUGIN, parameters).score(make_request(headers=headers), candidates))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param(token("default/p-rank-0"), [1, 0, 0], id="C28 the id of an endpoint"),
        pytest.param(token("default/p"), [1, 1, 0], id="a pod with its namespace: all ranks"),
        pytest.param(token("p"), [1, 1, 0], id="C31 a bare pod: all ranks"),
        pytest.param(token("default/z-rank-0"), [0, 0, 0], id="C29 no candidate"),
        pytest.param(token("other/p"), [0, 0, 0], id="another namespace"),
        pytest.param({"x-session-token": "%%%"}, [0, 0, 0], id="C30 not Base64"),
        pytest.param({"x-session-token": "\u00e9"}, [0, 0, 0], id="not ASCII"),
        pytest.param({"x-session-token": "/w=="}, [0, 0, 0], id="not UTF-8"),
        pytest.param({"x-session-token": ""}, [0, 0, 0], id="empty header"),
        pytest.param({}, [0, 0, 0], id="no header"),
    ],
)
def test_score_by_token(headers: dict[str, str], expected: list[float]) -> None:
    assert score(headers, RANKS) == expected


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        pytest.param(token("default/p-rank-1"), [1], id="the session's endpoint"),
        pytest.param(token("p"), [0, 1], id="all ranks of the session's pod"),
        pytest.param(token("z"), [0, 1, 2], id="no candidate: all"),
        pytest.param({}, [0, 1, 2], id="no session: all"),
    ],
)
def test_filter_by_token(headers: dict[str, str], kept: list[int]) -> None:
    plugin = make_plugin(session_filter.SESSION_AFFINITY)
    assert list(plugin.filter(make_request(headers=headers), RANKS)) == [RANKS[position] for position in kept]


@pytest.mark.usefixtures("debug_log")
def test_an_unreadable_token_is_told_in_the_debug_log(caplog: pytest.LogCaptureFixture) -> None:
    score({"x-session-token": "%%%"}, RANKS)
    assert "session token cannot be decoded" in caplog.text


def test_the_token_is_read_from_the_configured_header() -> None:
    parameters = {"encodedEndpointHeaderConfig": {"header": "X-Mine"}}
    assert score({"x-mine": token("q")["x-session-token"]}, RANKS, **parameters) == [0, 0, 1]


def answered(plugin: Any, result: SchedulingResult, served: Endpoint | None = None) -> dict[str, str]:
    edits = RecordedEdits()
    response = ResponseInfo(200, FakeHeaders(), served or result.target, {}, 0.0)
    plugin.response_received(make_request(), result, response, edits)
    return edits.values


@pytest.mark.parametrize(
    "plugin_type", [session_scorer.PLUGIN, session_filter.SESSION_AFFINITY], ids=lambda plugin_type: plugin_type.type
)
def test_the_client_is_told_who_served_it(plugin_type: Any) -> None:
    plugin = make_plugin(plugin_type)
    target, fallback = RANKS[0], RANKS[2]
    assert answered(plugin, decided(target)) == {"x-session-token": "ZGVmYXVsdC9wLXJhbmstMA=="}
    assert answered(plugin, decided(target, fallback), served=fallback) == token("default/q-rank-0")


def test_the_target_of_another_profile_can_be_bound() -> None:
    plugin = make_plugin(session_scorer.PLUGIN, {"profileName": "prefill"})
    assert answered(plugin, decided(RANKS[0], prefill=RANKS[2])) == token("default/q-rank-0")
    assert answered(plugin, decided(RANKS[0])) == {}


# Sessions that the picker keeps


def outcome(candidates: Candidates, position: int) -> SchedulingResult:
    """The profile chose among these candidates."""
    target = candidates[position]
    profiles: dict[str, ProfileRunResult | None] = {"decode": ProfileRunResult((target,), candidates, [0.0] * len(candidates))}
    return replace(decided(target), profiles=profiles)


class Sessions:
    """A scorer with the strategy session_id, three endpoints, and a clock."""

    def __init__(self, **config: Any) -> None:
        self.clock = FakeClock()
        self.candidates = make_candidates(3)
        context = make_context(clock=self.clock)
        self.scorer = make_plugin(session_scorer.PLUGIN, {**BY_ID, "sessionIdConfig": config}, context)

    def request(self, session: str = "s") -> InferenceRequest:
        return make_request(headers={"x-session-id": session})

    def send(self, position: int, session: str = "s", among: Sequence[int] = (0, 1, 2)) -> None:
        """A request of the session goes to the endpoint at a position, chosen among those at ``among``."""
        candidates = self.candidates.select(among)
        result = outcome(candidates, list(among).index(position))
        self.scorer.pre_request(self.request(session), result, RecordedEdits())

    def scores(self, session: str = "s") -> list[float]:
        return list(self.scorer.score(self.request(session), self.candidates))


def test_a_session_keeps_its_endpoint() -> None:
    sessions = Sessions()
    assert sessions.scores() == [0, 0, 0]
    sessions.send(1)
    assert sessions.scores() == [0, 1, 0]
    assert sessions.scores("other") == [0, 0, 0]
    assert answered(sessions.scorer, decided(sessions.candidates[1])) == {}


def test_it_is_not_bound_anew_while_its_endpoint_is_a_candidate() -> None:
    sessions = Sessions()
    sessions.send(1)
    sessions.send(2)
    assert sessions.scores() == [0, 1, 0]


def test_it_is_bound_anew_when_its_endpoint_is_none() -> None:
    sessions = Sessions()
    sessions.send(1)
    sessions.send(2, among=(0, 2))
    assert sessions.scores() == [0, 0, 1]


def test_a_session_ends_some_time_after_its_last_use() -> None:
    sessions = Sessions(evictionTtlSeconds=300)
    sessions.send(1)
    sessions.clock.advance(299)
    sessions.send(1)
    sessions.clock.advance(299)
    assert sessions.scores() == [0, 1, 0]
    sessions.clock.advance(1)
    assert sessions.scores() == [0, 0, 0]


def test_ended_sessions_are_forgotten_at_the_next_sweep() -> None:
    sessions = Sessions(evictionTtlSeconds=5, evictionSweepSeconds=10)
    sessions.send(0, "first")
    sessions.clock.advance(9)
    sessions.send(1, "second")
    assert sessions.scorer.debug_state()["sessions"] == 2
    sessions.clock.advance(1)
    sessions.send(1, "third")
    assert sessions.scorer.debug_state()["sessions"] == 2
    assert sessions.scorer.debug_state()["endpoints"] == {"default/b": 2}


def test_the_sessions_of_a_removed_endpoint_are_bound_anew() -> None:
    sessions = Sessions()
    sessions.send(1)
    sessions.scorer.endpoints_changed(EndpointChange(removed=(sessions.candidates[1],)))
    assert sessions.scores() == [0, 0, 0]
    sessions.send(2)
    assert sessions.scores() == [0, 0, 1]


def test_only_so_many_sessions_are_remembered() -> None:
    clock, candidates = FakeClock(), make_candidates(1)
    affinity = RememberedAffinity(clock, [lambda request: request.request_id], limit=2)
    requests = [make_request(request_id=name) for name in "abc"]
    for request in requests:
        affinity.pre_request(request, outcome(candidates, 0), RecordedEdits())
    assert [affinity.bound(request, candidates) for request in requests] == [[], [0], [0]]


def test_long_session_ids_are_told_apart() -> None:
    sessions = Sessions()
    sessions.send(0, "x" * 1000)
    sessions.send(1, "x" * 999)
    assert sessions.scores("x" * 1000) == [1, 0, 0]
    assert sessions.scores("x" * 999) == [0, 1, 0]


def test_a_failed_profile_binds_nothing() -> None:
    sessions = Sessions()
    result = replace(decided(sessions.candidates[0]), primary="gone")
    sessions.scorer.pre_request(sessions.request(), result, RecordedEdits())
    assert sessions.scores() == [0, 0, 0]


def test_the_filter_keeps_sessions_too() -> None:
    plugin = make_plugin(session_filter.SESSION_AFFINITY, BY_ID)
    candidates, request = make_candidates(2), make_request(headers={"x-session-id": "s"})
    assert plugin.filter(request, candidates) is candidates
    plugin.pre_request(request, outcome(candidates, 1), RecordedEdits())
    assert list(plugin.filter(request, candidates)) == [candidates[1]]
    plugin.endpoints_changed(EndpointChange(removed=(candidates[1],)))
    assert plugin.filter(request, candidates) is candidates
    assert plugin.debug_state() == {"strategy": "session_id", "sessions": 1, "endpoints": {}}


@pytest.mark.parametrize(
    ("headers", "written", "expected"),
    [
        pytest.param({"X-Chat": "s"}, {}, True, id="first source"),
        pytest.param({}, {SESSION_ID.by("cookies"): "s"}, True, id="second source, by its producer"),
        pytest.param({}, {AGENT_IDENTITY: "s"}, True, id="third source"),
        pytest.param({}, {SESSION_ID: "s"}, False, id="another producer is not read"),
        pytest.param({"x-session-id": "s"}, {}, False, id="the usual header is not read"),
    ],
)
def test_configured_sources_are_tried_in_order(headers: dict[str, str], written: dict[Any, str], expected: bool) -> None:
    sources = [{"header": "X-Chat"}, {"attribute": "SessionID", "producer": "cookies"}, {"attribute": "agent-identity"}]
    scorer = make_plugin(session_scorer.PLUGIN, {**BY_ID, "sessionIdConfig": {"sources": sources}})
    candidates, request = make_candidates(1), make_request(headers=headers)
    for key, value in written.items():
        request.data.set(key, value)
    scorer.pre_request(request, outcome(candidates, 0), RecordedEdits())
    assert list(scorer.score(request, candidates)) == [1.0 if expected else 0.0]


# session-id-producer


@pytest.mark.parametrize(
    ("parameters", "headers", "expected"),
    [
        pytest.param({"headerName": "X-Chat"}, [("x-chat", "s1")], "s1", id="a header"),
        pytest.param({"headerName": "X-Chat"}, [("x-chat", "")], None, id="an empty header"),
        pytest.param({"headerName": "X-Chat"}, [("cookie", "x-chat=s1")], None, id="no header"),
        pytest.param({"cookieName": "sid"}, [("cookie", "a=b; sid=s1; c=d")], "s1", id="a cookie"),
        pytest.param({"cookieName": "sid"}, [("cookie", "a=b"), ("cookie", "sid=s1")], "s1", id="in a second header"),
        pytest.param({"cookieName": "sid"}, [("cookie", 'sid="s 1"')], "s 1", id="a quoted value"),
        pytest.param({"cookieName": "sid"}, [("cookie", "sid=a=b")], "a=b", id="a value with an equals sign"),
        pytest.param({"cookieName": "sid"}, [("cookie", "sid=1; sid=2")], "1", id="the first of two"),
        pytest.param({"cookieName": "sid"}, [("cookie", "side=1; sid")], None, id="no such cookie"),
        pytest.param({"cookieName": "sid"}, [], None, id="no cookies"),
    ],
)
def test_session_id(parameters: dict[str, str], headers: list[tuple[str, str]], expected: str | None) -> None:
    producer = make_plugin(session_id.PLUGIN, parameters, make_context("mine"))
    request = replace(make_request(), headers=FakeHeaders(headers))
    producer.produce(request, make_candidates(1))
    assert request.data.get(SESSION_ID.by("mine")) == expected


def test_an_endpoint_that_never_had_a_session_can_go() -> None:
    make_plugin(session_scorer.PLUGIN, BY_ID).endpoints_changed(EndpointChange(removed=(make_endpoint("z"),)))
    plugin = make_plugin(session_scorer.PLUGIN)
    plugin.endpoints_changed(EndpointChange(removed=(make_endpoint("z"),)))
    assert plugin.debug_state() == {"strategy": "encoded_endpoint_header", "header": "x-session-token"}
