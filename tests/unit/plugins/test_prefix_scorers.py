"""prefix-cache-scorer and precise-prefix-cache-scorer: their scores, given what an index found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from epp.framework.candidates import Candidates
from epp.framework.keys import PREFIX_CACHE_MATCH, PrefixMatch
from epp.framework.testing import make_candidates, make_context, make_plugin, make_request
from epp.framework.types import EndpointId
from plugins.scorers import precise_prefix_cache, prefix_cache

APPROXIMATE = prefix_cache.PLUGIN
PRECISE = replace(precise_prefix_cache.PLUGIN, factory=precise_prefix_cache.create_scorer)
POOL = {"indexerConfig": {"tokenizersPoolConfig": {"modelName": "m"}}}


def of(held: int, total: int, weighted: float | None = None) -> PrefixMatch:
    return PrefixMatch(held, total, block_size_tokens=16, weighted_match=weighted)


def score(scorer: Any, writer: str, found: dict[str, PrefixMatch] | None, candidates: Candidates) -> list[float]:
    request = make_request()
    if found is not None:
        request.data.set(PREFIX_CACHE_MATCH.by(writer), {EndpointId(f"default/{name}"): match for name, match in found.items()})
    return list(scorer.score(request, candidates))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param({"a": of(12, 16), "b": of(4, 16)}, [0.75, 0.25, 0.0], id="C23 held share"),
        pytest.param({"a": of(0, 0)}, [0.0, 0.0, 0.0], id="no whole block"),
        pytest.param({"a": of(6, 15)}, [0.4, 0.0, 0.0], id="the worked example of 1000 bytes"),
        pytest.param({"a": of(16, 16), "b": of(0, 16)}, [1.0, 0.0, 0.0], id="all and nothing"),
        pytest.param({"elsewhere": of(16, 16)}, [0.0, 0.0, 0.0], id="held only outside the candidates"),
        pytest.param({}, [0.0, 0.0, 0.0], id="held nowhere"),
        pytest.param(None, [0.0, 0.0, 0.0], id="nothing written"),
        pytest.param({"a": of(6, 8), "b": of(6, 8, 5.6)}, [0.75, 0.7, 0.0], id="weighted by tier"),
    ],
)
@pytest.mark.parametrize(("plugin_type", "parameters"), [(APPROXIMATE, {}), (PRECISE, POOL)], ids=["approximate", "precise"])
def test_ratio(
    plugin_type: Any, parameters: dict[str, Any], found: dict[str, PrefixMatch] | None, expected: list[float]
) -> None:
    scorer = make_plugin(plugin_type, parameters, make_context("mine"))
    assert score(scorer, "mine", found, make_candidates(3)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        pytest.param(of(256, 512), 0.375, id="C24, prefix 33: half of a long prompt"),
        pytest.param(of(128, 128), 0.53125, id="C24 all of a short one"),
        pytest.param(of(512, 512), 1.0, id="all of a prompt as long as the scale"),
        pytest.param(of(2048, 2048), 1.0, id="longer than the scale"),
        pytest.param(of(0, 512), 0.0, id="nothing"),
    ],
)
def test_the_length_of_the_match_can_count_too(match: PrefixMatch, expected: float) -> None:
    scorer = make_plugin(APPROXIMATE, {"matchLengthWeight": 0.5}, make_context("mine"))
    assert score(scorer, "mine", {"a": match}, make_candidates(1)) == pytest.approx([expected])


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param({"a": of(8, 10), "b": of(2, 10)}, [1.0, 0.0, 0.0], id="C25, prefix 81: between the extremes"),
        pytest.param({"a": of(0, 10), "b": of(0, 10)}, [1.0, 1.0, 0.0], id="C25 equal: all that the index knows"),
        pytest.param({"a": of(5, 10)}, [1.0, 0.0, 0.0], id="one endpoint"),
        pytest.param({"a": of(5, 10), "elsewhere": of(10, 10), "b": of(0, 10)}, [0.5, 0.0, 0.0], id="others set the scale"),
        pytest.param(None, [0.0, 0.0, 0.0], id="no answer of the index"),
    ],
)
def test_minmax_is_what_v0_4_did(found: dict[str, PrefixMatch] | None, expected: list[float]) -> None:
    scorer = make_plugin(PRECISE, {**POOL, "scoreNormalization": "minmax"}, make_context("mine"))
    assert score(scorer, "mine", found, make_candidates(3)) == pytest.approx(expected)


def test_the_ratio_keeps_how_long_the_match_is() -> None:
    scorer = make_plugin(PRECISE, POOL, make_context("mine"))
    assert score(scorer, "mine", {"a": of(8, 10), "b": of(2, 10)}, make_candidates(2)) == [0.8, 0.2], "C25, prefix 81"
    assert score(scorer, "mine", {"a": of(0, 10), "b": of(0, 10)}, make_candidates(2)) == [0.0, 0.0]


def test_another_producer_can_be_named() -> None:
    """The scorer keeps no index, and who asks for its match gets the other's."""
    scorer = make_plugin(APPROXIMATE, {"prefixMatchInfoProducerName": "other"}, make_context("mine"))
    candidates, request = make_candidates(1), make_request()
    assert list(scorer.score(request, candidates)) == [0.0]
    scorer.produce(request, candidates)
    assert request.data.get(PREFIX_CACHE_MATCH.by("mine")) is None
    found = {candidates.ids[0]: of(1, 2)}
    request.data.set(PREFIX_CACHE_MATCH.by("other"), found)
    scorer.produce(request, candidates)
    assert list(scorer.score(request, candidates)) == [0.5]
    assert request.data.get(PREFIX_CACHE_MATCH.by("mine")) is found
    assert not hasattr(scorer, "pre_request")


def test_it_is_not_served_before_its_index_exists() -> None:
    assert not precise_prefix_cache.PLUGIN.is_built
