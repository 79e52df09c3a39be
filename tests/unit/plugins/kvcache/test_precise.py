"""The precise plugins: which tokens count, what is written, what is assumed, and what fails alone."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from epp.framework.candidates import Candidates
from epp.framework.keys import (
    PREFIX_CACHE_MATCH,
    SERVED_MODELS,
    TOKENIZED_PROMPT,
    MediaFeature,
    PrefixMatch,
    ServedModel,
    TokenizedPrompt,
)
from epp.framework.results import ProfileRunResult, SchedulingResult
from epp.framework.testing import (
    FakeClock,
    RecordedEdits,
    RecordedMetrics,
    make_candidates,
    make_context,
    make_plugin,
    make_request,
)
from epp.framework.types import Endpoint, EndpointChange, EndpointId, EndpointMetrics, InferenceRequest
from plugins.kvcache import build, precise
from plugins.kvcache.block_index import Bounds
from plugins.kvcache.event_processor import Source
from plugins.kvcache.parameters import PreciseProducerParams
from plugins.kvcache.precise import PrecisePrefixCache
from plugins.kvcache.receiver_settings import binds
from plugins.kvcache.request_keys import token_bytes
from plugins.producers import precise_prefix
from plugins.scorers import precise_prefix_cache
from plugins.tokenization.backend import TokenizationError
from plugins.tokenization.pool import TokenizerPool
from tests.unit.plugins.kvcache.payloads import payload, stored

CANDIDATES = make_candidates(3)
A, B, C = CANDIDATES.endpoints
BLOCK = {"tokenProcessorConfig": {"blockSize": 4}}
OWN_TOKENIZER = {"indexerConfig": {"tokenizersPoolConfig": {"modelName": "base"}}}
PROMPT = list(range(1, 17))


def make(parameters: dict[str, Any] | None = None, **context: Any) -> Any:
    """A producer that knows the candidates, and whose thread does not run."""
    plugin = make_plugin(precise_prefix.PLUGIN, {**BLOCK, **(parameters or {})}, make_context("mine", **context))
    plugin.endpoints_changed(EndpointChange(added=tuple(CANDIDATES.endpoints)))
    for endpoint in CANDIDATES.endpoints:
        plugin._parts.index.admit(endpoint.host_port)
    return plugin


def holds(plugin: PrecisePrefixCache, endpoint: Endpoint, tokens: Sequence[int], **more: Any) -> None:
    """Let an endpoint store a prompt's blocks."""
    hashes = [hash((tuple(tokens), n)) & 0xFFFF_FFFF | 1 for n in range(len(tokens) // 4)]
    plugin._parts.index.apply(Source(endpoint.host_port), payload(stored(hashes, tokens, **more)))


def tokenized(ids: Sequence[int] = PROMPT, **more: Any) -> TokenizedPrompt:
    return TokenizedPrompt(array("I", ids), **{"is_exact": True, "model": "base", **more})


def request_with(prompt: TokenizedPrompt | None, **more: Any) -> InferenceRequest:
    request = make_request(**more)
    if prompt is not None:
        request.data.set(TOKENIZED_PROMPT, prompt)
    return request


def matches(request: InferenceRequest) -> dict[EndpointId, PrefixMatch] | None:
    return request.data.get(PREFIX_CACHE_MATCH.by("mine"))


def blocks(plugin: Any, request: InferenceRequest, candidates: Candidates = CANDIDATES) -> dict[str, tuple[int, int]] | None:
    """Endpoint → blocks held, of so many."""
    waiting = plugin.produce(request, candidates)
    if waiting is not None:
        with pytest.raises(StopIteration):
            waiting.send(None)  # nothing has to be waited for
    found = matches(request)
    return None if found is None else {name: (match.match_blocks, match.total_blocks) for name, match in found.items()}


# ── tokens ──


TOKENS: list[Any] = [
    pytest.param(tokenized(), {}, {A.id: (4, 4)}, id="of a producer"),
    pytest.param(tokenized(model=""), {}, {A.id: (4, 4)}, id="of the client, found by a producer"),
    pytest.param(None, {"document": {"prompt": PROMPT}}, {A.id: (4, 4)}, id="of the client"),
    pytest.param(tokenized(is_exact=False), {}, None, id="estimates"),
    pytest.param(tokenized(PROMPT[:3]), {}, {}, id="less than a block"),
    pytest.param(tokenized(PROMPT[:7]), {}, {A.id: (1, 1)}, id="a block and a half"),
    pytest.param(tokenized([7, *PROMPT]), {}, {}, id="another beginning"),
    pytest.param(tokenized(), {"document": {"truncate_prompt_tokens": 8}}, None, id="the engine will cut it"),
    pytest.param(tokenized(), {"document": {"cache_salt": "s"}}, {}, id="salted"),
    pytest.param(tokenized(media=(MediaFeature("image", "i", 4, 2),)), {}, {A.id: (1, 4)}, id="an image in the second block"),
    pytest.param(tokenized(further=(PROMPT[:8], [9] * 8)), {}, {A.id: (6, 8)}, id="three prompts, added up"),
    pytest.param(None, {"document": {"prompt": "hello"}}, None, id="a text that nobody tokenized"),
]


@pytest.mark.parametrize(("prompt", "request_of", "expected"), TOKENS)
def test_tokens_that_count(prompt: TokenizedPrompt | None, request_of: dict[str, Any], expected: Any) -> None:
    plugin = make()
    holds(plugin, A, PROMPT)
    assert blocks(plugin, request_with(prompt, **request_of)) == expected


@pytest.mark.parametrize(("model", "expected"), [("base", {A.id: (4, 4)}), ("", {A.id: (4, 4)})])
def test_tokens_of_its_own_model_are_not_made_again(model: str, expected: Any) -> None:
    plugin = make(OWN_TOKENIZER)
    holds(plugin, A, PROMPT)
    assert blocks(plugin, request_with(tokenized(model=model))) == expected


def test_a_salted_prompt_matches_its_own_blocks() -> None:
    plugin = make()
    holds(plugin, A, PROMPT, extra_keys=[["s"], None, None, None])
    assert blocks(plugin, request_with(tokenized(), document={"cache_salt": "s"})) == {A.id: (4, 4)}


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        pytest.param({}, {B.id: (4, 4)}, id="nobody says that it is an adapter"),
        pytest.param({"active_models": frozenset({"sql"})}, {A.id: (4, 4)}, id="it runs"),
        pytest.param({"waiting_models": frozenset({"sql"})}, {A.id: (4, 4)}, id="it waits"),
        pytest.param(
            {"attributes": {SERVED_MODELS.name: (ServedModel("sql", parent="base"),)}}, {A.id: (4, 4)}, id="it is listed"
        ),
    ],
)
def test_adapters_are_known_from_metrics(metrics: dict[str, Any], expected: Any) -> None:
    plugin = make()
    keys = plugin._parts.index.keys("sql", token_bytes(PROMPT), (), is_adapter=True)
    plugin._parts.index.assume(keys, A.host_port, plugin._clock() + 60)
    holds(plugin, B, PROMPT)
    candidates = make_candidates([EndpointMetrics(**metrics), EndpointMetrics(), EndpointMetrics()])
    assert blocks(plugin, request_with(tokenized(), target_model="sql"), candidates) == expected


def test_adapters_are_known_from_events() -> None:
    plugin = make()
    holds(plugin, A, PROMPT, lora_name="sql")
    assert blocks(plugin, request_with(tokenized(), target_model="sql")) == {A.id: (4, 4)}
    assert blocks(plugin, request_with(tokenized(), target_model="base")) == {}


def test_models_of_a_pool_are_told_apart_by_their_aliases() -> None:
    plugin = make({"modelAliases": {"served": "base", "base": "base"}})
    plugin._parts.index.apply(Source(A.host_port, (), "base"), payload(stored([1], PROMPT[:4])))
    plugin._parts.index.apply(Source(B.host_port, (), "other"), payload(stored([1], PROMPT[:4])))
    assert blocks(plugin, request_with(tokenized(PROMPT[:4]), target_model="served")) == {A.id: (1, 1)}
    assert blocks(plugin, request_with(tokenized(PROMPT[:4]), target_model="other")) == {B.id: (1, 1)}


def test_pods_that_are_no_endpoints_are_not_told() -> None:
    plugin = make()
    holds(plugin, Endpoint.of("x", "10.9.9.9", 1), PROMPT)
    assert blocks(plugin, request_with(tokenized())) == {}


def test_tiers_are_told() -> None:
    plugin = make()
    holds(plugin, A, PROMPT, medium="CPU")
    request = request_with(tokenized())
    plugin.produce(request, CANDIDATES)
    found = matches(request)
    assert found is not None
    assert found[A.id] == PrefixMatch(4, 4, 4, pytest.approx(3.2), {"cpu": 4})
    assert found[A.id].ratio == pytest.approx(0.8), "prefix 83: upstream says 0"


# ── its own tokenizers ──


class Tokenizers:
    """A back end that answers as told."""

    def __init__(self, answer: TokenizedPrompt | Exception | None, *, never: bool = False) -> None:
        self.answer = answer
        self.never = never
        self.calls = 0

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def debug_state(self) -> dict[str, object]:
        return {}

    async def tokenize(self, body: object) -> TokenizedPrompt | None:
        self.calls += 1
        if self.never:
            await asyncio.Event().wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def with_tokenizers(tokenizers: Tokenizers) -> Any:
    plugin = make(OWN_TOKENIZER)
    assert isinstance(plugin._parts.tokenizer, TokenizerPool)
    plugin._parts = replace(plugin._parts, tokenizer=tokenizers)
    holds(plugin, A, PROMPT)
    return plugin


async def test_a_prompt_is_tokenized_once() -> None:
    tokenizers = Tokenizers(tokenized())
    plugin = with_tokenizers(tokenizers)
    request = request_with(None)
    await plugin.produce(request, CANDIDATES)
    assert matches(request) == {A.id: PrefixMatch(4, 4, 4, 4.0, {"gpu": 4})}
    assert request.data.get(TOKENIZED_PROMPT) == tokenized(), "others may count them"
    await plugin.produce(request_with(tokenized()), CANDIDATES)
    assert tokenizers.calls == 1
    foreign = request_with(tokenized([1, 2, 3, 4], model="other"))
    await plugin.produce(foreign, CANDIDATES)
    found = matches(foreign)
    assert found is not None
    assert found[A.id].match_blocks == 4
    assert foreign.data.get(TOKENIZED_PROMPT) == tokenized([1, 2, 3, 4], model="other")


async def test_prefix_96_a_tokenizer_that_fails_costs_only_the_match(caplog: pytest.LogCaptureFixture) -> None:
    plugin = with_tokenizers(Tokenizers(TokenizationError("no such model")))
    for _ in range(3):
        request = request_with(None)
        await plugin.produce(request, CANDIDATES)
        assert matches(request) is None
    assert plugin.debug_state()["failures"] == {"tokenization": 3}
    assert [record.getMessage() for record in caplog.records] == ["no prefix match"], "one line a minute"
    assert plugin_score(plugin, request) == [0.0, 0.0, 0.0]


async def test_prefix_96_a_tokenizer_that_is_too_slow_leaves_nothing_behind() -> None:
    plugin = with_tokenizers(Tokenizers(None, never=True))
    request = request_with(None)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await plugin.produce(request, CANDIDATES)
    assert matches(request) is None


def plugin_score(plugin: Any, request: InferenceRequest) -> list[float]:
    scorer = precise_prefix_cache.PrecisePrefixCacheScorer(PREFIX_CACHE_MATCH.by("mine"))
    return scorer.score(request, CANDIDATES)


# ── assumptions ──


def result(target: Endpoint, prefill: Endpoint | None = None, *, port: int = 0) -> SchedulingResult:
    def run(endpoint: Endpoint) -> ProfileRunResult:
        return ProfileRunResult((endpoint,), CANDIDATES, [0.0] * 3)

    profiles: dict[str, ProfileRunResult | None] = {"decode": run(target)}
    if prefill is not None:
        profiles["p"] = run(prefill)
    targets = (target.at_port(port),) if port else (target,)
    return SchedulingResult("decode", profiles, targets, prefill="p")


def send(plugin: Any, where: SchedulingResult) -> None:
    request = request_with(tokenized())
    plugin.produce(request, CANDIDATES)
    plugin.pre_request(request, where, RecordedEdits())


SPECULATIVE = {"speculativeIndexing": True}


def test_prefix_84_and_85_the_plugin_assumes_what_it_sent() -> None:
    clock = FakeClock()
    plugin = make(SPECULATIVE, clock=clock)
    send(plugin, result(A))
    assert blocks(plugin, request_with(tokenized())) == {A.id: (4, 4)}
    clock.advance(2.0)
    assert blocks(plugin, request_with(tokenized())) == {}


def test_prefill_targets_hold_the_prompt_too() -> None:
    plugin = make(SPECULATIVE)
    send(plugin, result(A, B))
    assert blocks(plugin, request_with(tokenized())) == {A.id: (4, 4), B.id: (4, 4)}


def test_prefix_88_the_port_of_a_proxy_is_not_the_pods() -> None:
    plugin = make(SPECULATIVE)
    send(plugin, result(A, port=9999))
    assert blocks(plugin, request_with(tokenized())) == {A.id: (4, 4)}


def test_nothing_is_assumed_unless_asked_for() -> None:
    plugin = make()
    send(plugin, result(A))
    assert blocks(plugin, request_with(tokenized())) == {}


@pytest.mark.parametrize(("ttl", "expected"), [("0s", 2.0), ("-1s", 2.0), ("300ms", 0.3), ("1m30s", 90.0)])
def test_prefix_87_lifetimes(ttl: str, expected: float) -> None:
    assert make({**SPECULATIVE, "speculativeTTL": ttl})._behaviour.assume_s == expected


def test_prefix_87_a_lifetime_that_is_none() -> None:
    with pytest.raises(ValidationError, match="speculativeTTL"):
        make({**SPECULATIVE, "speculativeTTL": "abc"})
    assert make({"speculativeTTL": "abc"})._behaviour.assume_s == 0.0


# ── parameters ──


def memory(section: dict[str, Any]) -> dict[str, Any]:
    return {"indexerConfig": {"kvBlockIndexConfig": section}}


def test_prefix_91_bounds() -> None:
    def bounds(section: dict[str, Any]) -> Bounds:
        params = PreciseProducerParams.decode(memory(section))
        return build.bounds(params.indexer_config.kv_block_index_config)

    assert bounds({"inMemoryConfig": {"size": 1e8}}).max_keys == 100_000_000
    assert bounds({"inMemoryConfig": {"podCacheSize": 10}}).max_pods_per_key == 10
    assert bounds({"inMemoryConfig": {}}).max_pods_per_key is None
    for size, expected in (("2GiB", 2147483648), ("500MB", 500000000), ("1 kib", 1024), ("7", 7), ("1.5Gi", 1610612736)):
        assert bounds({"costAwareMemoryConfig": {"size": size}}).max_bytes == expected
    for wrong in ({"inMemoryConfig": {"size": 0}}, {"costAwareMemoryConfig": {"size": "x"}}):
        with pytest.raises(ValidationError):
            bounds(wrong)


def test_block_sizes_and_their_older_place() -> None:
    def size(parameters: dict[str, Any]) -> int:
        return int(make_plugin(precise_prefix.PLUGIN, parameters, make_context("mine"))._behaviour.block_size)

    assert size({}) == 16
    assert size({"tokenProcessorConfig": {"blockSize": 32}}) == 32
    assert size({"tokenProcessorConfig": {"blockSize": 32, "blockSizeTokens": 64}}) == 64
    assert size({"indexerConfig": {"tokenProcessorConfig": {"blockSize": 8}}}) == 8
    assert size({"tokenProcessorConfig": {"blockSize": 32}, "indexerConfig": {"tokenProcessorConfig": {"blockSize": 8}}}) == 32


def test_endpoints_are_restricted_only_where_that_is_asked_for() -> None:
    def wants(discovery: dict[str, Any], endpoint: Endpoint) -> bool:
        plugin = make({"kvEventsConfig": {"podDiscoveryConfig": discovery}})
        return bool(plugin._parts.receiver._settings.wants(endpoint))

    endpoint = Endpoint.of("a", "10.0.0.1", 8000, {"role": "x"}, namespace="n")
    assert wants({}, endpoint)
    assert wants({"podLabelSelector": "role=x", "podNamespace": "n"}, endpoint)
    assert not wants({"podLabelSelector": "role=y"}, endpoint)
    assert not wants({"podNamespace": "m"}, endpoint)


def test_where_engines_push_the_socket_is_ours() -> None:
    settings = make({"kvEventsConfig": {"zmqEndpoint": "tcp://0.0.0.0:5557", "discoverPods": False}})._parts.receiver._settings
    assert (settings.central, binds(settings.central), settings.follows_pods) == ("tcp://0.0.0.0:5557", True, False)
    assert (settings.topic_filter, settings.pod_topic_filter) == ("kv@", "")
    given = make({"kvEventsConfig": {"topicFilter": "kv@x"}})._parts.receiver._settings
    assert (given.topic_filter, given.pod_topic_filter) == ("kv@x", "kv@x")


def test_beside_a_producer_the_scorer_has_no_index() -> None:
    declared = {"theirs": "precise-prefix-cache-producer"}
    scorer = make_plugin(precise_prefix_cache.PLUGIN, {}, make_context("mine", declared=declared))
    assert not hasattr(scorer, "produce")
    request = make_request()
    request.data.set(PREFIX_CACHE_MATCH.by("theirs"), {A.id: PrefixMatch(1, 2, 16)})
    assert scorer.score(request, CANDIDATES) == [0.5, 0.0, 0.0]


# ── metrics ──


def test_counts_of_the_index_are_written_where_asked_for() -> None:
    for enabled in (True, False):
        metrics = RecordedMetrics()
        plugin = make(memory({"enableMetrics": enabled}), metrics=metrics)
        holds(plugin, A, PROMPT)
        blocks(plugin, request_with(tokenized()))
        plugin._parts.reporting.write(plugin._parts.index, plugin._parts.receiver)
        plugin._parts.reporting.write(plugin._parts.index, plugin._parts.receiver)
        index = {name[0].removeprefix("llm_d_epp_kv_cache_index_"): value for name, value in metrics.counts.items()}
        expected = {"admissions_total": 4, "lookup_requests_total": 1, "lookup_hits_total": 4, "max_pod_hit_count_total": 4}
        assert {name: value for name, value in index.items() if name in expected} == (expected if enabled else {})
        assert metrics.levels["llm_d_epp_kv_cache_events_orphans",] == 0


def test_a_defect_is_told_in_metrics_and_state() -> None:
    metrics = RecordedMetrics()
    plugin = make(metrics=metrics)
    parts = plugin._parts
    parts.reporting.write(parts.index, parts.receiver)
    assert metrics.levels["llm_d_epp_kv_cache_events_receiving", "mine"] == 1
    assert plugin.debug_state()["receiving"]
    parts.receiver.problem = "RuntimeError: a defect"
    parts.reporting.write(parts.index, parts.receiver)
    assert metrics.levels["llm_d_epp_kv_cache_events_receiving", "mine"] == 0
    state = plugin.debug_state()
    assert (state["receiving"], state["problem"]) == (False, "RuntimeError: a defect")
    assert ("llm_d_epp_kv_cache_events_receiver_restarts_total", "mine") not in metrics.counts
    parts.receiver.problem, parts.receiver.restarts, parts.receiver.last_problem = "", 1, "RuntimeError: a defect"
    parts.reporting.write(parts.index, parts.receiver)
    assert metrics.levels["llm_d_epp_kv_cache_events_receiving", "mine"] == 1
    assert metrics.counts["llm_d_epp_kv_cache_events_receiver_restarts_total", "mine"] == 1
    state = plugin.debug_state()
    assert (state["receiving"], state["restarts"], state["lastProblem"]) == (True, 1, "RuntimeError: a defect")


def test_the_debug_page_is_bounded() -> None:
    plugin = make()
    for number in range(precise.MOST_SHOWN + 20):
        plugin._parts.index.admit(f"10.1.{number // 250}.{number % 250}:8000")
    holds(plugin, B, PROMPT)
    state = plugin.debug_state()
    assert state["podCount"] == precise.MOST_SHOWN + 20 + 3
    assert len(state["pods"]) == precise.MOST_SHOWN
    assert state["pods"][0] == {"pod": B.host_port, "blocks": 4, "messages": 0, "connected": None}
    assert state["keys"] == 4


def test_silent_endpoints_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    plugin = make(clock=clock)
    send(plugin, result(A))
    check = plugin._silence.check
    clock.advance(299)
    check(clock(), {}, {})
    assert not caplog.records
    clock.advance(1)
    for _ in range(2):
        check(clock(), {}, {A.host_port: True})
    [record] = caplog.records
    assert "no KV events of an endpoint that serves requests" in record.getMessage()
    assert plugin.debug_state()["silent"] == [A.host_port]
    check(clock(), {A.host_port: clock()}, {})
    assert plugin.debug_state()["silent"] == []
    clock.advance(1_000)
    check(clock(), {}, {})
    assert len(caplog.records) == 1
