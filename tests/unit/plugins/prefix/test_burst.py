"""burst-prefix-cache-producer: simultaneous requests with equal prefixes go to the same endpoint."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.framework.keys import PREFIX_CACHE_MATCH
from epp.framework.testing import make_candidates, make_context, make_plugin, make_request
from epp.framework.types import EndpointMetrics, InferenceRequest
from plugins.prefix.burst import BurstRules, Held, assign
from plugins.prefix.request_keys import RequestKeys
from plugins.producers import burst_prefix
from tests.unit.plugins.prefix.packed import pack
from tests.unit.plugins.prefix.pool import prompt, text

THREE = make_candidates([EndpointMetrics(running_requests=running) for running in (2, 0, 1)])
TIED = make_candidates(3)


NO_RULES = BurstRules()


def placed(prompts: Sequence[Sequence[int]], rules: BurstRules = NO_RULES, candidates: Any = TIED) -> str:
    """The endpoint of each prompt, ``-`` for none."""
    burst = [Held(RequestKeys((pack(*keys),) if keys else (), len(keys), 64), candidates) for keys in prompts]
    assign(burst, rules)
    return "".join(held.assigned.rpartition("/")[2] if held.assigned else "-" for held in burst)


X, Y, Z = [1, 2, 3], [4, 5], [6]
XA, XB = [1, 2, 7, 8], [1, 2, 9]


@pytest.mark.parametrize(
    ("prompts", "rules", "where"),
    [
        pytest.param([], BurstRules(), "", id="nothing"),
        pytest.param([X, Y, Z], BurstRules(), "---", id="nobody shares anything"),
        pytest.param([[], [], X], BurstRules(), "---", id="no whole block"),
        pytest.param([X, Y, X, Y, X], BurstRules(), "ababa", id="equal ones together, the longest first"),
        pytest.param([Y, X, Y, X], BurstRules(), "baba", id="the longest first, whoever came first"),
        pytest.param([X] * 5, BurstRules(per_replica=2), "aabbc", id="a limit for each"),
        pytest.param([X] * 8, BurstRules(per_replica=2), "aabbccab", id="more than all limits together"),
        pytest.param([XA, XB], BurstRules(), "--", id="different prompts are not kept together"),
        pytest.param([XA, XB], BurstRules(colocate_blocks=2), "ab", id="no more than a fair share of two"),
        pytest.param([XA, XA, XA, XB, Y, Y, Z, Z], BurstRules(colocate_blocks=2), "aaabbbcc", id="the share is used up"),
        pytest.param([XA, XA, XB, Y, Y, Y, Z, Z, Z], BurstRules(colocate_blocks=2), "aaabbbccc", id="join a common beginning"),
        pytest.param([XA, XB, Z], BurstRules(colocate_blocks=3), "---", id="too little in common"),
        pytest.param([X, X, Y, Y, Z, Z], BurstRules(by_tokens=True), "aabbcc", id="by tokens"),
        pytest.param(
            [[1, 2, 3, 4, 5]] * 2 + [Y] * 9 + [Z] * 2, BurstRules(by_tokens=True), "aabbbbbbbbbcc", id="a prefix costs once"
        ),
    ],
)
def test_where_a_burst_goes(prompts: list[list[int]], rules: BurstRules, where: str) -> None:
    assert placed(prompts, rules) == where


def test_of_equally_loaded_endpoints_the_one_with_the_fewest_running_requests() -> None:
    assert placed([X, X, Y, Y, Z, Z], candidates=THREE) == "bbccaa"


@given(
    st.lists(st.lists(st.integers(1, 3), max_size=3), max_size=20),
    st.integers(1, 4) | st.none(),
    st.integers(0, 2),
    st.booleans(),
)
def test_equal_prompts_spread_no_further_than_they_must(
    prompts: list[list[int]], limit: int | None, colocate: int, by_tokens: bool
) -> None:
    where = placed(prompts, BurstRules(limit, colocate, by_tokens))
    for keys, count in Counter(map(tuple, prompts)).items():
        own = [at for at, other in zip(where, prompts, strict=True) if tuple(other) == keys]
        if not keys:
            assert set(own) == {"-"}
        elif count > 1:
            assert "-" not in own
            assert len(set(own)) == (1 if limit is None else min(-(-count // limit), 3))


async def held(plugin: Any, *documents: dict[str, object]) -> list[InferenceRequest]:
    requests = [make_request(document=document) for document in documents]
    await asyncio.gather(*(plugin.produce(request, TIED) for request in requests))
    return requests


def matches(request: InferenceRequest) -> dict[str, tuple[int, int]] | None:
    found = request.data.get(PREFIX_CACHE_MATCH.by("mine"))
    if found is None:
        return None
    return {i.rpartition("/")[2]: (m.match_blocks, m.total_blocks) for i, m in found.items()}


def burst(**parameters: Any) -> Any:
    return make_plugin(burst_prefix.PLUGIN, {"windowDurationMs": 1, **parameters}, make_context("mine"))


async def test_a_window_is_held_and_assigned_together() -> None:
    plugin = burst(blockSizeTokens=16)
    found = await held(plugin, prompt(text(640)), prompt(text(128)), prompt(text(640)), prompt("short"))
    assert [matches(request) for request in found] == [{"a": (10, 10)}, {}, {"a": (10, 10)}, None]
    assert plugin.debug_state() == {"windows": 1, "assigned": 2, "held": 0}
    [alone] = await held(plugin, prompt(text(640)))
    assert matches(alone) == {}, "another window"


async def test_what_is_beyond_the_batch_is_not_held() -> None:
    found = await held(burst(maxBatchSize=2), *[prompt(text(640))] * 3)
    assert [matches(request) for request in found] == [{"a": (2, 2)}, {"a": (2, 2)}, None]


async def test_who_left_is_not_counted() -> None:
    plugin = burst(windowDurationMs=20)
    gone = asyncio.ensure_future(plugin.produce(make_request(document=prompt(text(640))), TIED))
    await asyncio.sleep(0)
    gone.cancel()
    [alone] = await held(plugin, prompt(text(640)))
    assert matches(alone) == {}
    assert gone.cancelled()


async def test_a_longer_prompt_than_is_compared() -> None:
    found = await held(burst(maxPrefixTokensToMatch=128), prompt(text(640)), prompt(text(512) + "other" * 99))
    assert [matches(request) for request in found] == [{"a": (2, 2)}] * 2


def test_it_has_time_for_its_window() -> None:
    assert burst(windowDurationMs=1000).deadline_s == pytest.approx(1.3)
    context = make_context()
    assert make_plugin(burst_prefix.PLUGIN, {"windowDurationMs": 10000}, context).deadline_s == pytest.approx(4.8)
    assert [parameter for parameter, _ in context.warnings] == ["windowDurationMs"]
