"""What is predicted, what is learned from, what is counted; by way of predicted-latency-producer."""

from __future__ import annotations

from typing import Any

import pytest

from epp.framework.keys import MEDIA_CACHE_MATCH, PREFIX_CACHE_MATCH, LatencyPrediction, MediaMatch, PrefixMatch
from epp.framework.testing import RecordedEdits, make_candidates, make_endpoint
from epp.framework.types import Cause, EndpointChange, EndpointMetrics, Usage
from plugins.latency.regression import Key, Target
from tests.unit.plugins.latency.rig import PRODUCER, Rig, constant, make_rig, sent_to

FIRST: Key = (Target.FIRST_TOKEN, "")
WHOLE: Key = (Target.WHOLE_ANSWER, "")
TOKEN: Key = (Target.PER_TOKEN, "")


def streaming(**parameters: Any) -> Rig:
    """Time to first token 100 ms, 10 ms a token, everywhere."""
    return make_rig({FIRST: constant(100.0), TOKEN: constant(10.0)}, streamingMode=True, **parameters)


# Predictions


@pytest.mark.parametrize(
    ("parameters", "objectives", "expected"),
    [
        pytest.param({}, ("150", "12"), (50.0, 2.0, True, True), id="both are met"),
        pytest.param({}, ("100", "10"), (0.0, 0.0, False, False), id="exactly met is a headroom of 0 and not valid"),
        pytest.param({}, ("", ""), (-100.0, -10.0, False, False), id="no objective: the deficit is the latency"),
        pytest.param({"sloBufferFactor": 1.5}, ("150", "12"), (50.0, 8.0, True, True), id="buffer on the time per token"),
        pytest.param({"sloBufferFactor": 0.5}, ("150", "12"), (50.0, -4.0, True, False), id="buffer below 1"),
    ],
)
def test_headrooms(parameters: dict[str, Any], objectives: tuple[str, str], expected: tuple[float, float, bool, bool]) -> None:
    rig, candidates = streaming(**parameters), make_candidates(1)
    found = rig.predict(rig.request(ttft=objectives[0], tpot=objectives[1]), candidates)
    assert found == {candidates.ids[0]: LatencyPrediction(100.0, 10.0, *expected, 0)}


def test_without_streaming_mode_the_time_per_token_does_not_matter() -> None:
    rig, candidates = make_rig({FIRST: constant(100.0)}), make_candidates(1)
    found = rig.predict(rig.request(ttft="150", tpot="1"), candidates)
    assert found == {candidates.ids[0]: LatencyPrediction(100.0, 0.0, 50.0, 0.0, True, True, 0)}


def test_the_strictest_request_under_way_counts() -> None:
    rig, candidates = streaming(sloBufferFactor=2), make_candidates(2)
    strict, mild, free = rig.request(tpot="6"), rig.request(tpot="8"), rig.request()
    results = [rig.send(request, candidates) for request in (strict, mild, free)]

    def headrooms() -> list[float]:
        found = rig.predict(rig.request(tpot="20"), candidates)
        assert found is not None
        return [prediction.tpot_headroom_ms for prediction in found.values()]

    assert headrooms() == [2.0, 30.0]
    rig.finish(strict, results[0])
    assert headrooms() == [6.0, 30.0]
    rig.finish(mild, results[1])
    assert headrooms() == [30.0, 30.0]


def test_what_the_request_has_waited_is_part_of_its_first_token() -> None:
    rig, candidates = streaming(), make_candidates(1)
    request = rig.request(ttft="150")
    rig.clock.advance(0.04)
    found = rig.predict(request, candidates)
    assert found is not None
    assert found[candidates.ids[0]].ttft_headroom_ms == pytest.approx(10.0)


def test_requests_that_are_not_streamed_have_a_latency_of_their_own() -> None:
    rig, candidates = make_rig({FIRST: constant(100.0), WHOLE: constant(500.0, output=1000.0)}), make_candidates(1)
    capped = rig.predict(rig.request(streams=False, output_cap=700), candidates)
    streamed = rig.predict(rig.request(streams=True, output_cap=700), candidates)
    assert capped is not None
    assert streamed is not None
    assert [found[candidates.ids[0]].ttft_ms for found in (capped, streamed)] == pytest.approx([1200.0, 100.0])


@pytest.mark.parametrize(
    ("weights", "parameters", "streams"),
    [
        pytest.param({}, {}, True, id="nothing was learned"),
        pytest.param({FIRST: constant(1.0)}, {"streamingMode": True}, True, id="no time per token"),
        pytest.param({FIRST: constant(1.0)}, {}, False, id="no whole answer"),
        pytest.param({FIRST: constant(1.0)}, {"predictInProduce": False}, True, id="predictInProduce is off"),
    ],
)
def test_nothing_is_predicted(weights: dict[Key, Any], parameters: dict[str, Any], streams: bool) -> None:
    rig = make_rig(weights, **parameters)
    assert rig.predict(rig.request(streams=streams), make_candidates(2)) is None


def test_every_feature_counts_on_its_endpoint() -> None:
    weights = constant(10.0, uncached_prompt=1.0, waiting=2.0, running=3.0, KV=4.0, requests=5.0, their=6.0, prompt=7.0)
    rig = make_rig({FIRST: weights})
    candidates = make_candidates([EndpointMetrics(10, 20, 0.5), EndpointMetrics()])
    before = rig.request(prompt_tokens=4000)
    before.data.set(PREFIX_CACHE_MATCH, {candidates.ids[1]: PrefixMatch(3, 4, 16)})
    result = rig.send(before, candidates, 1)
    request = rig.request(prompt_tokens=2000)
    request.data.set(PREFIX_CACHE_MATCH, {candidates.ids[0]: PrefixMatch(1, 4, 16)})
    found = rig.predict(request, candidates)
    assert found is not None
    busy = 10 + 1.5 * 1.0 + 1.0 * 2.0 + 2.0 * 3.0 + 0.5 * 4.0
    sent = 10 + 2.0 * 1.0 + 0.1 * 5.0 + 0.4 * 6.0 + 1.0 * 7.0
    assert [found[i].ttft_ms for i in candidates.ids] == pytest.approx([busy, sent])
    rig.chunk(before, result)
    after = rig.predict(rig.request(prompt_tokens=2000), candidates)
    assert after is not None
    assert after[candidates.ids[1]].ttft_ms == pytest.approx(sent - 7.0)


def test_media_count_where_they_are_known() -> None:
    rig = make_rig({FIRST: constant(10.0, uncached_media=3.0)}, useEncoderCacheFeatures=True)
    candidates = make_candidates(2)
    request = rig.request()
    request.data.set(MEDIA_CACHE_MATCH, {candidates.ids[0]: MediaMatch(500, 2500)})
    found = rig.predict(request, candidates)
    assert found is not None
    assert [found[i].ttft_ms for i in candidates.ids] == pytest.approx([16.0, 10.0])


def test_roles_are_learned_apart() -> None:
    rig = make_rig({(Target.FIRST_TOKEN, "x"): constant(50.0), FIRST: constant(100.0)}, endpointRoleLabel="role")
    candidates = make_candidates([EndpointMetrics()] * 3, [{"role": "x"}, {}, {"role": "new"}])
    found = rig.predict(rig.request(), candidates)
    assert found is not None
    assert {i: p.ttft_ms for i, p in found.items()} == {candidates.ids[0]: 50.0, candidates.ids[1]: 100.0}


def test_a_prompt_that_cannot_be_read_is_measured_by_its_bytes() -> None:
    rig, candidates = make_rig({FIRST: constant(10.0, uncached_prompt=1.0)}), make_candidates(1)
    request = rig.request(prompt_tokens=0)
    request.size_bytes = 8000
    found = rig.predict(request, candidates)
    assert found is not None
    assert found[candidates.ids[0]].ttft_ms == pytest.approx(12.0)


# Learning


def served(rig: Rig, *, streams: bool = True, status: int = 200, **changes: Any) -> None:
    """A request: first chunk after 0.2 s, end after 1.2 s, 11 tokens; it waited 0.05 s for its decision."""
    candidates = make_candidates([EndpointMetrics(1, 2, 0.3)])
    request = rig.request(streams=streams, output_cap=500)
    rig.clock.advance(0.05)
    rig.predict(request, candidates)
    result = rig.send(request, candidates)
    rig.respond(request, result, status)
    rig.clock.advance(0.2)
    if streams and not changes.pop("unseen", False):
        rig.chunk(request, result)
    rig.clock.advance(1.0)
    rig.finish(request, result, **{"ttft_s": 0.25, "status": status, **changes})


@pytest.mark.parametrize(
    ("changes", "first", "whole", "token"),
    [
        pytest.param({}, [200.0], [], [100.0], id="a stream"),
        pytest.param({"streams": False}, [], [200.0], [], id="no stream"),
        pytest.param({"unseen": True}, [200.0], [], [100.0], id="the first chunk was not told of"),
        pytest.param({"usage": Usage(events=21)}, [200.0], [], [50.0], id="no usage: events are tokens"),
        pytest.param({"usage": Usage(completion_tokens=1)}, [200.0], [], [], id="one token"),
        pytest.param({"length_known": False}, [200.0], [], [], id="length unknown: only what was seen before"),
        pytest.param({"streams": False, "length_known": False}, [], [], [], id="length unknown, no stream"),
        pytest.param({"unseen": True, "ttft_s": None}, [], [], [], id="the response was not seen"),
        pytest.param({"cause": Cause.CLIENT_DISCONNECT}, [200.0], [], [], id="the client went away"),
        pytest.param({"streams": False, "cause": Cause.ERROR}, [], [], [], id="failed"),
        pytest.param({"status": 500}, [], [], [], id="the server failed"),
        pytest.param({"streams": False, "status": 429}, [], [], [], id="the server refused"),
        pytest.param({"served": make_endpoint("other", 9)}, [200.0], [], [], id="another endpoint answered"),
    ],
)
def test_what_is_learned(changes: dict[str, Any], first: list[float], whole: list[float], token: list[float]) -> None:
    rig = make_rig(streamingMode=True)
    served(rig, **changes)
    learned = [rig.recorder.of(target) for target in (Target.FIRST_TOKEN, Target.WHOLE_ANSWER, Target.PER_TOKEN)]
    assert learned == [first, whole, token]


def test_without_streaming_mode_no_time_per_token_is_learned() -> None:
    rig = make_rig()
    served(rig)
    assert (rig.recorder.of(Target.FIRST_TOKEN), rig.recorder.of(Target.PER_TOKEN)) == ([200.0], [])


def test_a_sample_has_the_features_of_the_decision() -> None:
    rig = make_rig(streamingMode=True)
    served(rig, streams=False)
    (sample,) = rig.recorder.samples
    assert sample.row == pytest.approx((1.0, 1.0, 0.1, 0.2, 0.3, 0.0, 0.0, 0.0, 0.0, 0.5))
    assert (sample.key, sample.expected_ms) == (WHOLE, None)


def test_it_learns_even_if_it_does_not_predict() -> None:
    rig = make_rig(predictInProduce=False)
    served(rig)
    assert rig.recorder.of(Target.FIRST_TOKEN) == [200.0]


def test_an_endpoint_that_went_away_is_not_learned_from() -> None:
    rig, candidates = make_rig(streamingMode=True), make_candidates(1)
    request = rig.request()
    result = rig.send(request, candidates)
    rig.plugin.endpoints_changed(EndpointChange(removed=(candidates[0],)))
    rig.clock.advance(1.0)
    rig.chunk(request, result)
    rig.finish(request, result)
    assert rig.recorder.samples == []


def test_the_rate_of_tokens_is_measured_on_the_way() -> None:
    rig, candidates = make_rig(streamingMode=True, samplingMean=10), make_candidates(1)
    request = rig.request()
    result = rig.send(request, candidates)
    for events in range(1, 1002):
        rig.clock.advance(0.02)
        rig.chunk(request, result, events)
    measured = rig.recorder.of(Target.PER_TOKEN)
    assert 70 <= len(measured) <= 130
    assert measured == pytest.approx([20.0] * len(measured))


# Counting


def counts(rig: Rig) -> tuple[int, dict[str, int]]:
    state = rig.plugin.debug_state()
    assert isinstance(state, dict)
    return state["requests"], state["dispatched"]


def test_requests_are_counted_from_decision_to_end() -> None:
    rig, candidates = make_rig(), make_candidates(2)
    first, second = rig.request(), rig.request()
    results = [rig.send(first, candidates, 0), rig.send(second, candidates, 0)]
    assert counts(rig) == (2, {candidates.ids[0]: 2})
    rig.finish(first, results[0])
    rig.finish(first, results[0])
    assert counts(rig) == (1, {candidates.ids[0]: 1})
    rig.finish(second, results[1], cause=Cause.ERROR, status=0)
    assert counts(rig) == (0, {})


def test_a_request_that_is_decided_twice_counts_once() -> None:
    rig, candidates = make_rig(), make_candidates(2)
    request = rig.request()
    rig.send(request, candidates, 0)
    rig.send(request, candidates, 1)
    assert counts(rig) == (1, {candidates.ids[1]: 1})


def test_the_prompt_counts_where_it_is_computed() -> None:
    rig = make_rig({FIRST: constant(10.0, prompt=100.0, requests=1000.0)})
    candidates = make_candidates(2)
    request = rig.request(prompt_tokens=2000, tpot="5")
    rig.plugin.pre_request(request, sent_to(candidates, 0, prefill=candidates[1]), RecordedEdits())
    assert counts(rig) == (1, {candidates.ids[0]: 1, candidates.ids[1]: 1})
    found = rig.predict(rig.request(), candidates)
    assert found is not None
    assert [found[i].ttft_ms for i in candidates.ids] == pytest.approx([110.0, 310.0])


def test_a_request_without_end_is_forgotten() -> None:
    rig, candidates = make_rig(contextTTL="10s"), make_candidates(1)
    lost = rig.request(tpot="5")
    result = rig.send(lost, candidates)
    rig.clock.advance(9.9)
    rig.predict(rig.request(), candidates)
    assert counts(rig)[0] == 1
    rig.clock.advance(0.1)
    rig.predict(rig.request(), candidates)
    assert counts(rig) == (0, {})
    rig.finish(lost, result)
    assert rig.recorder.samples == []


def test_a_removed_endpoint_begins_at_zero_again() -> None:
    rig, candidates = make_rig(), make_candidates(1)
    old, new = rig.request(tpot="5"), rig.request(tpot="7")
    rig.send(old, candidates)
    rig.plugin.endpoints_changed(EndpointChange(removed=(candidates[0],)))
    assert counts(rig) == (1, {})
    rig.send(new, candidates)
    rig.finish(old, sent_to(candidates))
    assert counts(rig) == (1, {candidates.ids[0]: 1})


def test_unknown_requests_and_endpoints_are_nothing() -> None:
    rig, candidates = make_rig(), make_candidates(1)
    rig.chunk(rig.request(), sent_to(candidates))
    rig.respond(rig.request(), sent_to(candidates))
    rig.finish(rig.request(), sent_to(candidates))
    rig.plugin.endpoints_changed(EndpointChange(removed=(candidates[0],)))
    assert counts(rig) == (0, {})


# Metrics


def test_metrics_of_a_request_that_missed_its_objectives() -> None:
    rig, candidates = streaming(), make_candidates(1)
    request = rig.request(ttft="150", tpot="120")
    rig.predict(request, candidates)
    result = rig.send(request, candidates)
    rig.clock.advance(1.2)
    rig.finish(request, result, ttft_s=0.2)
    labels = (PRODUCER, PRODUCER, "m", "m")
    prefix = "llm_d_epp_"
    assert rig.metrics.counts == {(f"{prefix}request_slo_violation_total", *labels, "ttft"): 1.0}
    assert rig.metrics.observed[f"{prefix}request_predicted_ttft_seconds", *labels] == [0.1]
    assert rig.metrics.observed[f"{prefix}request_predicted_tpot_seconds", *labels] == [0.01]
    for kind in ("ttft", "tpot"):
        (took_s,) = rig.metrics.observed[f"{prefix}request_{kind}_prediction_duration_seconds", *labels]
        assert 0 < took_s < 1
    levels = {key[-1]: value for key, value in rig.metrics.levels.items()}
    assert levels.pop("ttft_prediction_duration") > 0
    assert levels.pop("tpot_prediction_duration") > 0
    assert levels == pytest.approx(
        {
            "ttft": 0.2, "predicted_ttft": 0.1, "ttft_slo_violation": 1.0,
            "tpot": 0.1, "predicted_tpot": 0.01, "tpot_slo_violation": 0.0,
        }
    )  # fmt: skip


def test_what_is_not_known_has_no_series() -> None:
    rig, candidates = make_rig(), make_candidates(1)
    request = rig.request()
    rig.finish(request, rig.send(request, candidates), usage=Usage())
    assert {key[-1]: value for key, value in rig.metrics.levels.items()} == {"ttft": 0.1}
    assert (rig.metrics.counts, rig.metrics.observed) == ({}, {})


def test_a_request_that_failed_has_no_series() -> None:
    rig, candidates = make_rig(), make_candidates(1)
    request = rig.request(ttft="1")
    rig.finish(request, rig.send(request, candidates), status=500)
    assert (rig.metrics.levels, rig.metrics.counts) == ({}, {})
