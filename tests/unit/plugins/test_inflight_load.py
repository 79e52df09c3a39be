"""inflight-load-producer and token-load-scorer: what is counted, when it is taken off, and how it scores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from epp.framework.data import RequestData
from epp.framework.keys import IN_FLIGHT_LOAD, PREFIX_CACHE_MATCH, TOKENIZED_PROMPT, InFlightLoad, PrefixMatch, TokenizedPrompt
from epp.framework.results import SchedulingResult
from epp.framework.testing import make_candidates, make_context, make_plugin, make_request
from epp.framework.types import EndpointChange, EndpointId, InferenceRequest, StreamingChunk, Usage
from plugins.producers import inflight_load
from plugins.producers.inflight_load import InflightLoadProducer
from plugins.scorers import token_load
from tests.unit.plugins.flights import begin, decided, end

A, B, C = CANDIDATES = make_candidates(3)
KEY = IN_FLIGHT_LOAD.by("mine")


def make_producer(**parameters: Any) -> InflightLoadProducer:
    producer = make_plugin(inflight_load.PLUGIN, parameters, make_context("mine"))
    assert isinstance(producer, InflightLoadProducer)
    return producer


def request_of(tokens: int, matches: dict[EndpointId, PrefixMatch] | None = None, cap: int | None = None) -> InferenceRequest:
    request = make_request(document={"prompt": ""})
    request.body.output_cap = cap
    request.data.set(TOKENIZED_PROMPT, TokenizedPrompt((7,) * tokens, is_exact=True))
    if matches is not None:
        request.data.set(PREFIX_CACHE_MATCH, matches)
    return request


def first_chunk(producer: InflightLoadProducer, request: InferenceRequest, result: SchedulingResult) -> None:
    producer.response_streaming(request, result, StreamingChunk(b"data: {}\n\n", end=False, at_s=0.0, usage=Usage()))


def counts(producer: InflightLoadProducer) -> list[tuple[int, int]]:
    """(requests, tokens) of a, b, c."""
    ids = CANDIDATES.ids
    return list(zip(producer.requests_in_flight(ids), producer.tokens_in_flight(ids), strict=True))


def test_from_the_decision_to_the_end() -> None:
    producer, request = make_producer(), request_of(100)
    result = decided(A, B, prefill=C, encode=None)
    begin(producer, request, result)
    assert counts(producer) == [(1, 100), (0, 0), (1, 100)]
    first_chunk(producer, request, result)
    assert counts(producer) == [(1, 0), (0, 0), (0, 0)]
    first_chunk(producer, request, result)
    assert counts(producer) == [(1, 0), (0, 0), (0, 0)]
    end(producer, request, result)
    end(producer, request, result)
    assert counts(producer) == [(0, 0)] * 3
    assert producer.debug_state() == {"requests": 0, "endpoints": {}}


def test_a_response_that_does_not_stream_counts_to_its_end() -> None:
    producer, request = make_producer(), request_of(100)
    begin(producer, request, decided(A, prefill=C))
    end(producer, request, decided(A))
    assert counts(producer) == [(0, 0)] * 3


@pytest.mark.parametrize(
    ("tokens", "match", "uncached"),
    [
        pytest.param(100, None, 100, id="no match"),
        pytest.param(100, PrefixMatch(2, 6, 16), 68, id="blocks that are missing, and the rest behind the last block"),
        pytest.param(100, PrefixMatch(6, 6, 16), 4, id="all blocks held"),
        pytest.param(90, PrefixMatch(0, 6, 16), 96, id="a last block that is padded"),
        pytest.param(10_000, PrefixMatch(256, 256, 16), 5904, id="a prompt longer than what was looked up"),
        pytest.param(10, PrefixMatch(0, 0, 16), 10, id="no whole block"),
    ],
)
def test_only_what_is_not_cached_counts(tokens: int, match: PrefixMatch | None, uncached: int) -> None:
    producer = make_producer()
    matches = {A.id: match} if match is not None else {}
    request = request_of(tokens, matches)
    producer.produce(request, CANDIDATES)
    loads = request.data.get(KEY)
    assert loads is not None
    assert loads[A.id] == InFlightLoad(0, 0, uncached)
    assert loads[B.id] == InFlightLoad(0, 0, tokens)
    begin(producer, request, decided(A))
    assert counts(producer)[0] == (1, uncached)


def test_candidates_are_told_what_is_in_flight() -> None:
    producer = make_producer()
    begin(producer, request_of(40), decided(B))
    request = request_of(8)
    producer.produce(request, CANDIDATES.select([0, 1]))
    assert request.data.get(KEY) == {A.id: InFlightLoad(0, 0, 8), B.id: InFlightLoad(1, 40, 8)}


@pytest.mark.parametrize(
    ("parameters", "cap", "expected"),
    [
        pytest.param({}, None, 100, id="not asked for"),
        pytest.param({"addEstimatedOutputTokens": True}, None, 250, id="one and a half times the input"),
        pytest.param({"addEstimatedOutputTokens": True, "outputRatio": 0.5}, None, 150, id="another ratio"),
        pytest.param({"addEstimatedOutputTokens": True}, 20, 120, id="the client's limit"),
        pytest.param({"addEstimatedOutputTokens": True, "maxEstimatedOutputTokens": 30}, None, 130, id="the configured limit"),
        pytest.param({"addEstimatedOutputTokens": True, "maxEstimatedOutputTokens": 30}, 20, 120, id="the lower limit"),
        pytest.param({"addEstimatedOutputTokens": True, "maxEstimatedOutputTokens": 0}, None, 100, id="limit 0"),
    ],
)
def test_expected_output(parameters: dict[str, Any], cap: int | None, expected: int) -> None:
    producer, request = make_producer(**parameters), request_of(100, cap=cap)
    result = decided(A, prefill=B)
    begin(producer, request, result)
    assert counts(producer)[:2] == [(1, expected), (1, 100)]
    first_chunk(producer, request, result)
    assert counts(producer)[:2] == [(1, expected - 100), (0, 0)]
    end(producer, request, result)
    assert counts(producer)[:2] == [(0, 0)] * 2


def test_requests_are_told_apart_by_the_object() -> None:
    producer = make_producer()
    first, second = request_of(1), request_of(1)
    begin(producer, first, decided(A))
    begin(producer, second, decided(A))
    end(producer, first, decided(A))
    assert counts(producer)[0] == (1, 1)


def test_a_request_that_is_decided_twice_counts_once() -> None:
    producer, request = make_producer(), request_of(1)
    begin(producer, request, decided(A))
    begin(producer, request, decided(B))
    assert counts(producer)[:2] == [(0, 0), (1, 1)]


def test_a_removed_endpoint_begins_at_zero_again() -> None:
    producer, old, new = make_producer(), request_of(5), request_of(7)
    begin(producer, old, decided(A))
    producer.endpoints_changed(EndpointChange(removed=(A,)))
    producer.endpoints_changed(EndpointChange(removed=(B,)))
    assert counts(producer)[0] == (0, 0)
    begin(producer, new, decided(A))
    first_chunk(producer, old, decided(A))
    end(producer, old, decided(A))
    assert counts(producer)[0] == (1, 7)


def test_a_chunk_of_a_request_that_is_not_counted_is_nothing() -> None:
    producer = make_producer()
    first_chunk(producer, request_of(1), decided(A))
    assert counts(producer) == [(0, 0)] * 3


@pytest.mark.parametrize(("parameters", "warns"), [({}, False), ({"syncCrossReplicaState": False}, False)])
def test_the_default_of_sharing_counts_is_not_worth_a_warning(parameters: dict[str, Any], warns: bool) -> None:
    context = make_context()
    make_plugin(inflight_load.PLUGIN, parameters, context)
    assert bool(context.warnings) is warns


def test_asking_to_share_counts_is_answered() -> None:
    context = make_context()
    make_plugin(inflight_load.PLUGIN, {"syncCrossReplicaState": True}, context)
    assert [name for name, _ in context.warnings] == ["syncCrossReplicaState"]


# token-load-scorer


@pytest.mark.parametrize(
    ("parameters", "loads", "expected"),
    [
        pytest.param({}, [InFlightLoad(1, 1_048_576)], [0.75], id="default threshold"),
        pytest.param(
            {"queueThresholdTokens": 10_000},
            [InFlightLoad(1, 2000, 500), InFlightLoad(0, 0), InFlightLoad(9, 20_000)],
            [0.75, 1, 0],
            id="C43 in flight and uncached together",
        ),
        pytest.param({"queueThresholdTokens": 10_000}, [InFlightLoad(0, -5), None], [1, 1], id="nothing, and no entry"),
        pytest.param({}, [], [], id="no candidates"),
    ],
)
def test_token_load(parameters: dict[str, int], loads: list[InFlightLoad | None], expected: list[float]) -> None:
    candidates, request = make_candidates(len(loads)), make_request()
    known = zip(candidates.ids, loads, strict=True)
    request.data.set(IN_FLIGHT_LOAD, {endpoint_id: load for endpoint_id, load in known if load is not None})
    assert make_plugin(token_load.PLUGIN, parameters).score(request, candidates) == pytest.approx(expected)


def test_without_a_load_all_are_idle() -> None:
    request = replace(make_request(), data=RequestData())
    assert make_plugin(token_load.PLUGIN).score(request, CANDIDATES) == [1.0] * 3


@pytest.mark.parametrize("threshold", [0, -1])
def test_a_threshold_that_is_not_positive_is_replaced(threshold: int) -> None:
    context = make_context()
    scorer = make_plugin(token_load.PLUGIN, {"queueThresholdTokens": threshold}, context)
    assert context.warnings == [("queueThresholdTokens", f"{threshold} is not positive; 4194304 is used")]
    request = make_request()
    request.data.set(IN_FLIGHT_LOAD, {A.id: InFlightLoad(1, 2_097_152)})
    assert scorer.score(request, CANDIDATES.select([0])) == [0.5]


def test_the_named_producers_load_counts() -> None:
    request = make_request()
    request.data.set(KEY, {A.id: InFlightLoad(1, 5_000)})
    parameters = {"queueThresholdTokens": 10_000, "inFlightLoadProducerName": "mine"}
    assert make_plugin(token_load.PLUGIN, parameters).score(request, CANDIDATES.select([0])) == [0.5]
