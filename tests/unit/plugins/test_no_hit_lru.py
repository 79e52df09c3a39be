"""no-hit-lru-scorer: when a request is cold, how cold ones are ranked, and what is remembered."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from epp.framework.candidates import Candidates
from epp.framework.keys import PREFIX_CACHE_MATCH, PrefixMatch
from epp.framework.results import ProfileRunResult, SchedulingResult
from epp.framework.testing import make_candidates, make_context, make_endpoint, make_plugin, make_request
from epp.framework.types import Endpoint, EndpointChange, EndpointMetrics, InferenceRequest
from plugins.scorers import no_hit_lru, queue
from plugins.scorers.no_hit_lru import NoHitLruScorer
from tests.unit.plugins.flights import begin, decided

KEY = PREFIX_CACHE_MATCH.by("prefix-cache-scorer")


def make_scorer(**parameters: Any) -> NoHitLruScorer:
    scorer = make_plugin(no_hit_lru.PLUGIN, parameters, make_context(declared={"prefix-cache-scorer": "prefix-cache-scorer"}))
    assert isinstance(scorer, NoHitLruScorer)
    return scorer


def serve(scorer: NoHitLruScorer, names: str) -> None:
    """Cold requests to these endpoints, one after the other."""
    for name in names:
        begin(scorer, make_request(), decided(make_endpoint(name)))


def remembered(scorer: NoHitLruScorer) -> str:
    """Oldest first."""
    state = scorer.debug_state()
    assert isinstance(state, dict)
    return "".join(endpoint_id.removeprefix("default/") for endpoint_id in state["endpoints"])


def warm_request(candidates: Candidates, blocks: int = 1) -> InferenceRequest:
    """The last candidate holds some blocks, the others were looked up in vain."""
    request = make_request()
    found = {endpoint_id: PrefixMatch(0, 4, 16) for endpoint_id in candidates.ids}
    request.data.set(KEY, {**found, candidates.ids[-1]: PrefixMatch(blocks, 4, 16)})
    return request


@pytest.mark.parametrize(
    ("count", "used", "expected"),
    [
        pytest.param(3, "", [1, 0.5, 0], id="C16 never used: in their order"),
        pytest.param(4, "ca", [0, 1, 1 / 3, 2 / 3], id="C17 never used before used, the longest ago first"),
        pytest.param(3, "bca", [0, 1, 0.5], id="all used"),
        pytest.param(2, "xyab", [1, 0], id="C18 endpoints that are no candidates take no rank"),
        pytest.param(1, "", [1], id="C20 one endpoint"),
        pytest.param(1, "a", [1], id="one endpoint, used"),
        pytest.param(0, "a", [], id="no candidates"),
        pytest.param(3, "aba", [0, 0.5, 1], id="used again is recent"),
    ],
)
def test_cold(count: int, used: str, expected: list[float]) -> None:
    scorer = make_scorer()
    serve(scorer, used)
    assert scorer.score(make_request(), make_candidates(count)) == pytest.approx(expected)


def test_warm_when_a_candidate_holds_a_block() -> None:
    scorer, candidates = make_scorer(), make_candidates(3)
    serve(scorer, "a")
    request = warm_request(candidates)
    assert scorer.score(request, candidates) == [0.5, 0.5, 0.5]
    begin(scorer, request, with_candidates(candidates, candidates[2]))
    assert remembered(scorer) == "a", "C19: a warm request does not touch the LRU"


def test_cold_when_only_others_hold_it() -> None:
    scorer, everyone = make_scorer(), make_candidates(3)
    assert scorer.score(warm_request(everyone), everyone.select([0, 1])) == [1.0, 0.0]


def test_cold_when_all_were_looked_up_in_vain() -> None:
    scorer, candidates = make_scorer(), make_candidates(2)
    assert scorer.score(warm_request(candidates, blocks=0), candidates) == [1.0, 0.0]


def with_candidates(candidates: Candidates, target: Endpoint, **others: Endpoint) -> SchedulingResult:
    result = decided(target, **others)
    profiles: dict[str, ProfileRunResult | None] = {
        **result.profiles,
        "decode": ProfileRunResult((target,), candidates, [0.0] * len(candidates)),
    }
    return replace(result, profiles=profiles)


def test_the_primary_profile_says_whether_a_request_was_cold() -> None:
    scorer, everyone = make_scorer(), make_candidates(3)
    a, _, c = everyone
    request = warm_request(everyone)
    begin(scorer, request, with_candidates(everyone.select([0, 1]), a, prefill=c))
    assert remembered(scorer) == "ac"


def test_scoring_alone_remembers_nothing() -> None:
    scorer = make_scorer()
    scorer.score(make_request(), make_candidates(3))
    assert remembered(scorer) == ""


def test_the_prefill_target_is_remembered_too() -> None:
    scorer = make_scorer()
    a, b, c = make_candidates(3)
    begin(scorer, make_request(), decided(a, b, prefill=c, encode=b))
    assert remembered(scorer) == "ac"


def test_the_same_target_for_both_is_remembered_once() -> None:
    scorer = make_scorer()
    a = make_endpoint("a")
    begin(scorer, make_request(), decided(a, prefill=a))
    assert remembered(scorer) == "a"


def test_the_oldest_is_forgotten_beyond_the_size() -> None:
    scorer = make_scorer(lruSize=2)
    serve(scorer, "abc")
    assert remembered(scorer) == "bc", "C21: a is as if never used"
    assert scorer.score(make_request(), make_candidates(3)) == [1.0, 0.5, 0.0]


def test_a_removed_endpoint_was_never_used() -> None:
    scorer = make_scorer()
    serve(scorer, "ab")
    scorer.endpoints_changed(EndpointChange(removed=(make_endpoint("a"),)))
    scorer.endpoints_changed(EndpointChange(removed=(make_endpoint("z"),)))
    assert remembered(scorer) == "b"


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_that_is_not_positive_is_replaced(size: int) -> None:
    context = make_context()
    make_plugin(no_hit_lru.PLUGIN, {"lruSize": size}, context)
    assert context.warnings == [("lruSize", f"{size} is not positive; 1024 is used")]


def test_together_with_the_queue() -> None:
    scorer = make_scorer()
    serve(scorer, "a")
    candidates = make_candidates([EndpointMetrics(waiting_queue=waiting) for waiting in (0, 4, 8)])
    request = make_request()
    waiting = make_plugin(queue.PLUGIN).score(request, candidates)
    totals = [2 * q + cold for q, cold in zip(waiting, scorer.score(request, candidates), strict=True)]
    assert list(totals) == [2.0, 2.0, 0.5], "C22: a tie with the queue of double weight"


@pytest.mark.parametrize(
    ("parameters", "declared", "writers", "expected"),
    [
        pytest.param({}, {"prefix-cache-scorer": "prefix-cache-scorer"}, {}, "prefix-cache-scorer", id="of the usual name"),
        pytest.param({}, {"mine": "prefix-cache-scorer"}, {}, "mine", id="of the usual type"),
        pytest.param(
            {"prefixPluginType": "precise-prefix-cache-scorer"},
            {"first": "prefix-cache-scorer", "second": "precise-prefix-cache-scorer"},
            {},
            "second",
            id="of a given type",
        ),
        pytest.param({"prefixPluginName": "mine"}, {"mine": "prefix-cache-scorer"}, {}, "mine", id="by name"),
        pytest.param({"prefixMatchInfoProducerName": "p"}, {"p": "approx-prefix-cache-producer"}, {}, "p", id="newer name"),
        pytest.param({"prefixPluginName": "nobody"}, {"x": "y"}, {}, "approx-prefix-cache-producer", id="undeclared name"),
        pytest.param({}, {"p": "burst"}, {"PrefixCacheMatchInfo": "p"}, "p", id="whoever writes it"),
    ],
)
def test_whose_match_counts(
    parameters: dict[str, str], declared: dict[str, str], writers: dict[str, str], expected: str
) -> None:
    context = make_context(declared=declared)
    context.writers = writers
    scorer, candidates, request = make_plugin(no_hit_lru.PLUGIN, parameters, context), make_candidates(1), make_request()
    request.data.set(PREFIX_CACHE_MATCH.by(expected), {candidates.ids[0]: PrefixMatch(1, 1, 16)})
    assert scorer.score(request, candidates) == [0.5]
