"""mm-embeddings-cache-producer and mm-embeddings-cache-scorer: who has encoded which media."""

from __future__ import annotations

from typing import Any

import pytest

from epp.framework.keys import MEDIA_CACHE_MATCH, TOKENIZED_PROMPT, MediaFeature, MediaMatch, TokenizedPrompt
from epp.framework.results import ProfileRunResult, SchedulingResult
from epp.framework.testing import RecordedEdits, RecordedMetrics, make_candidates, make_context, make_plugin, make_request
from epp.framework.types import Endpoint, EndpointChange, InferenceRequest
from plugins.producers import media_cache as producer
from plugins.scorers import media_cache as scorer

A, B, C = CANDIDATES = make_candidates(3)
NAME = "mine"


def request_with(*hashes: str) -> InferenceRequest:
    request = make_request()
    media = tuple(MediaFeature("image", digest, 0, 1) for digest in hashes)
    request.data.set(TOKENIZED_PROMPT, TokenizedPrompt((1,), is_exact=False, media=media))
    return request


class Media:
    """A pool whose endpoints encode media."""

    def __init__(self, size_mb: int = 4096) -> None:
        self.metrics = RecordedMetrics()
        context = make_context(NAME, metrics=self.metrics)
        self.plugin: Any = make_plugin(producer.PLUGIN, {"cacheSizeInMBPerServer": size_mb}, context)
        self.plugin.endpoints_changed(EndpointChange(added=tuple(CANDIDATES)))

    def ask(self, *hashes: str) -> dict[str, MediaMatch] | None:
        request = request_with(*hashes)
        self.plugin.produce(request, CANDIDATES)
        found = request.data.get(MEDIA_CACHE_MATCH.by(NAME))
        return None if found is None else {i.rpartition("/")[2]: match for i, match in found.items()}

    def send(self, to: Endpoint, *hashes: str) -> None:
        run = ProfileRunResult((to, C), CANDIDATES, ())
        result = SchedulingResult("default", {"default": run, "encode": ProfileRunResult((C,), CANDIDATES, ())}, run.targets)
        self.plugin.pre_request(request_with(*hashes), result, RecordedEdits())


def test_what_was_sent_is_encoded() -> None:
    pool = Media()
    assert pool.ask("x", "y") == {}
    pool.send(A, "x", "y", "y")
    pool.send(B, "y")
    assert pool.ask("x", "y", "z", "x", "") == {"a": MediaMatch(2, 3), "b": MediaMatch(1, 3)}, "each counts once"


def test_a_request_without_media_gets_no_match() -> None:
    pool = Media()
    assert pool.ask() is None
    plain = make_request()
    pool.plugin.produce(plain, CANDIDATES)
    assert plain.data.get(MEDIA_CACHE_MATCH.by(NAME)) is None


def test_the_least_recent_is_forgotten_first() -> None:
    pool = Media(size_mb=5)
    for digest in ("x", "y", "x", "z"):
        pool.send(A, digest)
    assert pool.ask("x", "y", "z") == {"a": MediaMatch(2, 3)}
    assert pool.ask("y") == {}
    assert pool.plugin.debug_state() == {"capacity": 2, "items": {"default/a": 2, "default/b": 0, "default/c": 0}}


@pytest.mark.parametrize(("size_mb", "capacity"), [(0, 2048), (-1, 2048), (1, 1), (4096, 2048)])
def test_an_item_takes_2_mb(size_mb: int, capacity: int) -> None:
    assert Media(size_mb).plugin.debug_state()["capacity"] == capacity


def test_an_endpoint_that_left_or_moved_has_nothing() -> None:
    pool = Media()
    pool.send(A, "x")
    pool.send(B, "x")
    pool.plugin.endpoints_changed(EndpointChange(removed=(A, B), added=(A,)))
    pool.send(B, "x")
    assert pool.ask("x") == {}


def test_metrics() -> None:
    pool = Media()
    pool.send(A, "x")
    pool.ask("x", "y")
    assert pool.metrics.counts == {
        ("llm_d_epp_encoder_cache_queries_total", NAME, NAME, "image"): 2,
        ("llm_d_epp_encoder_cache_hits_total", NAME, NAME, "image", "default/a"): 1,
    }
    assert pool.metrics.observed == {("llm_d_epp_encoder_cache_hit_ratio", NAME, NAME): [0.5, 0.0, 0.0]}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param({A.id: MediaMatch(1, 4), B.id: MediaMatch(4, 4)}, [0.25, 1.0, 0.0], id="shares"),
        pytest.param({A.id: MediaMatch(0, 0)}, [0.0, 0.0, 0.0], id="nothing in all"),
        pytest.param({}, [0.0, 0.0, 0.0], id="nobody"),
        pytest.param(None, [0.0, 0.0, 0.0], id="not written"),
    ],
)
@pytest.mark.parametrize("named", ["", "other"])
def test_score(found: dict[Any, MediaMatch] | None, expected: list[float], named: str) -> None:
    request = make_request()
    if found is not None:
        request.data.set(MEDIA_CACHE_MATCH.by(named) if named else MEDIA_CACHE_MATCH, found)
    plugin = make_plugin(scorer.PLUGIN, {"producerName": named} if named else {})
    assert plugin.score(request, CANDIDATES) == expected
