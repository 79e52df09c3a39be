"""prefix-cache-scorer and approx-prefix-cache-producer: what endpoints are guessed to hold."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.framework.keys import PREFIX_CACHE_MATCH
from epp.framework.params import Params
from epp.framework.registry import PluginType
from epp.framework.results import ProfileRunResult, SchedulingResult
from epp.framework.testing import RecordedEdits, make_candidates, make_context, make_plugin, make_request
from epp.framework.types import Api, Endpoint, EndpointMetrics
from plugins.prefix import twins
from plugins.prefix.settings import IndexSettings
from plugins.producers import approximate_prefix
from plugins.scorers import prefix_cache
from tests.unit.plugins.prefix.pool import NAME, Pool, chat, prompt, settled, text

each_source = pytest.mark.parametrize("is_read", [False, True], ids=["from the document", "read by the transport"])


# ── prompts ──


@each_source
def test_prefix_1_prefix_2_a_prompt_is_known_once_it_was_sent(is_read: bool) -> None:
    pool = Pool(is_read=is_read)
    request = pool.request(prompt(text(1000)))
    assert pool.found(request) == {}, "prefix 1"
    assert pool.scores(prompt(text(1000))) == [0.0, 0.0, 0.0], "prefix 1"
    pool.decided(request, "a")
    assert pool.ask(prompt(text(1000))) == {"a": (15, 15)}, "prefix 2"
    assert pool.scores(prompt(text(1000))) == [1.0, 0.0, 0.0], "prefix 2"


@each_source
def test_prefix_3_a_common_beginning(is_read: bool) -> None:
    pool = Pool(is_read=is_read)
    pool.send(prompt(text(1000)), "a")
    assert pool.scores(prompt(text(400) + "x" * 600)) == [0.4, 0.0, 0.0]


@pytest.mark.parametrize(("size", "blocks"), [(63, 0), (64, 1)])
def test_prefix_4_whole_blocks_only(size: int, blocks: int) -> None:
    pool = Pool()
    pool.send(prompt(text(size)), "a")
    assert pool.ask(prompt(text(size))) == ({"a": (1, 1)} if blocks else {})
    assert pool.scores(prompt(text(size))) == [float(blocks), 0.0, 0.0]


@each_source
def test_prefix_5_only_the_first_blocks_are_looked_at(is_read: bool) -> None:
    pool = Pool(is_read=is_read)
    pool.send(prompt(text(100_000)), "a")
    assert pool.ask(prompt(text(16384) + "other")) == {"a": (256, 256)}
    assert pool.scores(prompt(text(16384) + "other" * 1000)) == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("parameters", "blocks"),
    [
        pytest.param({"maxPrefixTokensToMatch": 100}, 6, id="in tokens"),
        pytest.param({"maxPrefixTokensToMatch": 100, "maxPrefixBlocksToMatch": 3}, 6, id="tokens win"),
        pytest.param({"maxPrefixTokensToMatch": 5}, 1, id="less than a block of tokens"),
        pytest.param({"maxPrefixBlocksToMatch": 0, "maxPrefixTokensToMatch": 0}, 1562, id="all of it"),
        pytest.param({"maxPrefixBlocksToMatch": -1}, 256, id="prefix 29: the default"),
        pytest.param({"maxPrefixBlocksToMatch": 0}, 256, id="prefix 29: the default for 0"),
    ],
)
def test_how_much_is_looked_at(parameters: dict[str, Any], blocks: int) -> None:
    pool = Pool(parameters)
    pool.send(prompt(text(100_000)), "a")
    assert pool.ask(prompt(text(100_000))) == {"a": (blocks, blocks)}
    if parameters.get("maxPrefixBlocksToMatch", 1) <= 0 and "maxPrefixTokensToMatch" not in parameters:
        assert [parameter for parameter, _ in pool.context.warnings] == ["maxPrefixBlocksToMatch"]


@pytest.mark.parametrize(
    ("sent", "asked"),
    [
        pytest.param({"cache_salt": "s"}, {}, id="prefix 6: salt"),
        pytest.param({"cache_salt": "s"}, {"cache_salt": "t"}, id="prefix 6: another salt"),
        pytest.param(
            {"target_model": "ab", "cache_salt": "c"}, {"target_model": "a", "cache_salt": "bc"}, id="prefix 7: framed"
        ),
        pytest.param({"target_model": "adapter"}, {}, id="prefix 8: an adapter and its base model"),
        pytest.param({"add_generation_prompt": False}, {}, id="the template is asked for otherwise"),
        pytest.param(
            {"chat_template_kwargs": {"thinking": True}}, {"chat_template_kwargs": {"thinking": False}}, id="thinking"
        ),
    ],
)
def test_what_keeps_prompts_apart(sent: dict[str, Any], asked: dict[str, Any]) -> None:
    def split(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        return {k: v for k, v in given.items() if k != "target_model"}, {k: v for k, v in given.items() if k == "target_model"}

    pool = Pool()
    members, model = split(sent)
    pool.send(prompt(text(640), **members), "a", **model)
    assert pool.ask(prompt(text(640), **members), **model) == {"a": (10, 10)}
    members, model = split(asked)
    assert pool.ask(prompt(text(640), **members), **model) == {}


@each_source
def test_prefix_9_a_conversation_that_goes_on(is_read: bool) -> None:
    pool = Pool(is_read=is_read)
    first, more = chat(text(300)), chat(text(300), text(200), text(500))
    pool.send(first, "a")
    common = len("system") + 1 + 640 + 1 + len("user") + 1 + 300 + 1
    assert pool.ask(more) == {"a": (common // 64, (common + 200 + 500 + len("assistantuser") + 4) // 64)}


def test_prefix_10_other_tools_are_another_prompt() -> None:
    pool = Pool()
    pool.send(chat(text(300), tools=[{"name": "a"}]), "a")
    assert pool.ask(chat(text(300), tools=[{"name": "b"}])) == {}
    assert pool.ask(chat(text(300))) == {}
    assert "a" in pool.ask(chat(text(300), tools=[{"name": "a"}]))


def test_prefix_11_a_message_that_grows() -> None:
    pool = Pool()
    pool.send(chat(text(500)), "a")
    whole = len("system") + 1 + 640 + 1 + len("user") + 1 + 500
    assert pool.ask(chat(text(500) + "x" * 300)) == {"a": (whole // 64, (whole + 301) // 64)}


@each_source
def test_prefix_12_an_image_counts_as_its_hash(is_read: bool) -> None:
    pool = Pool({"maxPrefixBlocksToMatch": 10_000}, is_read=is_read)
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_000_000}}
    pool.send(chat([image, {"type": "text", "text": text(2000)}]), "a")
    [(held, total)] = pool.ask(chat([image, {"type": "text", "text": text(1000) + "x" * 1000}])).values()
    before = len("system") + 1 + 640 + 1 + len("user") + 1 + len("image_url:") + 16
    assert (held, total) == ((before + 1000) // 64, (before + 2001) // 64)
    other = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "B" * 1_000_000}}
    assert pool.ask(chat([other, {"type": "text", "text": text(2000)}])) == {"a": ((before - 16) // 64, (before + 2001) // 64)}


@pytest.mark.parametrize(
    ("api", "document"),
    [
        (Api.MESSAGES, {"system": text(200), "messages": [{"role": "user", "content": text(200)}]}),
        (Api.RESPONSES, {"instructions": text(200), "input": text(200)}),
        (Api.CONVERSATIONS, {"items": [{"role": "user", "content": text(200)}]}),
        (Api.EMBEDDINGS, {"input": [text(200), text(100)]}),
        (Api.GENERATE, {"input_ids": list(range(64))}),
    ],
)
def test_every_api_with_prompts(api: Api, document: dict[str, object]) -> None:
    pool = Pool()
    request = make_request(document=document, api=api)
    pool.plugin.produce(request, pool.candidates)
    pool.decided(request, "b")
    again = make_request(document=document, api=api)
    pool.plugin.produce(again, pool.candidates)
    [(endpoint_id, match)] = pool.found(again).items()
    assert (endpoint_id, match.ratio) == ("default/b", 1.0)


@pytest.mark.parametrize("api", [Api.RAW, Api.TOKENIZE, Api.AUDIO, Api.IMAGES, Api.POOLING])
def test_requests_that_leave_no_prefix_are_left_alone(api: Api) -> None:
    pool = Pool()
    for _ in range(2):
        request = make_request(document=prompt(text(640)), api=api)
        pool.plugin.produce(request, pool.candidates)
        assert pool.found(request) == {}
        pool.decided(request, "a")
    assert pool.metrics.observed["llm_d_epp_prefix_indexer_hit_ratio", NAME, NAME] == []


def test_prefix_30_several_prompts_are_added_up() -> None:
    pool = Pool()
    pool.send(prompt(text(640)), "a")
    assert pool.ask(prompt([text(640), text(320, 50)])) == {"a": (10, 15)}
    pool.send(prompt([text(640), text(320, 50)]), "b")
    assert pool.ask(prompt([text(640), text(320, 50)])) == {"a": (10, 15), "b": (15, 15)}


@each_source
def test_prefix_31_token_ids(is_read: bool) -> None:
    """From the client, or from a tokenizer: the same tokens are the same prompt."""
    pool = Pool(is_read=is_read)
    pool.send(prompt(list(range(48))), "a")
    assert pool.ask(prompt(list(range(48)))) == {"a": (3, 3)}
    assert pool.ask(prompt([list(range(48)), list(range(100, 116))])) == {"a": (3, 4)}
    assert pool.ask(prompt("text"), tokens=[range(48)]) == {"a": (3, 3)}
    assert pool.ask(prompt("text"), tokens=[range(48), range(32)]) == {"a": (5, 5)}
    assert pool.ask(prompt(b"".join(n.to_bytes(4, "little") for n in range(48)).decode())) == {}, "the same bytes as text"


def test_estimated_tokens_are_the_text_in_another_form() -> None:
    pool = Pool()
    pool.send(prompt(text(640)), "a", tokens=[range(160)], is_exact=False)
    assert pool.ask(prompt(text(640))) == {"a": (10, 10)}


@pytest.mark.parametrize(("block", "blocks"), [(32, 7), (24, 10)], ids=["of units that were read", "not used"])
def test_what_was_read_where_engines_have_other_blocks(block: int, blocks: int) -> None:
    pool = Pool(endpoints=[EndpointMetrics(cache_block_size=block)] * 3, is_read=True)
    pool.send(prompt(text(1000)), "a")
    assert pool.ask(prompt(text(1000))) == {"a": (blocks, blocks)}


@pytest.mark.parametrize("parts", [None, 8])
def test_long_prompts_are_hashed_in_turns(monkeypatch: pytest.MonkeyPatch, parts: int | None) -> None:
    """Also the keys are those of one go."""
    pool, whole = Pool({"maxPrefixBlocksToMatch": 4000, "lruCapacityPerServer": 90}), prompt([text(6400), text(64, 105)])
    monkeypatch.setattr(twins, "SLICE_BLOCKS", None)
    pool.send(whole, "a")
    monkeypatch.setattr(twins, "SLICE_BLOCKS", parts)
    request = make_request(document=whole)
    waiting = pool.plugin.produce(request, pool.candidates)
    assert (waiting is None) == (parts is None)
    if waiting is not None:
        waiting.close()
    pool.send(whole, "b")
    assert pool.ask(whole) == {"a": (90, 101), "b": (90, 101)}, "of the first prompt one had to go for the second"


def test_many_short_prompts_are_long_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twins, "SLICE_BLOCKS", 8)
    pool = Pool()
    waiting = pool.plugin.produce(make_request(document=prompt([text(64, n) for n in range(20)])), pool.candidates)
    assert waiting is not None
    waiting.close()


def test_an_endpoint_that_leaves_while_a_long_prompt_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twins, "SLICE_BLOCKS", 4)
    pool = Pool()
    request = pool.request(prompt(text(1280)))
    run = ProfileRunResult((pool.at("a"),), pool.candidates, ())
    waiting = pool.plugin.pre_request(request, SchedulingResult("d", {"d": run}, run.targets), RecordedEdits())
    assert pool.plugin.debug_state()["entries"] == 4, "the first turn"
    pool.change(removed=["a"])
    asyncio.run(settled(waiting))
    assert pool.plugin.debug_state()["entries"] == 0


# ── who holds what ──


def test_prefix_17_decode_and_prefill_hold_a_prompt_that_encode_does_not() -> None:
    pool = Pool()
    pool.send(prompt(text(640)), "a", prefill="b", encode="c")
    assert pool.ask(prompt(text(640))) == {"a": (10, 10), "b": (10, 10)}


def test_prefix_18_the_prefill_profile_may_have_another_name() -> None:
    pool = Pool()
    pool.send(prompt(text(640)), "a", prefill="b", name="pf")
    assert pool.ask(prompt(text(640))) == {"a": (10, 10), "b": (10, 10)}


def test_prefix_19_what_was_not_decided_is_not_held() -> None:
    pool = Pool()
    pool.request(prompt(text(640)))
    assert pool.ask(prompt(text(640))) == {}


def test_further_targets_hold_nothing() -> None:
    pool = Pool()
    pool.send(prompt(text(640)), "a")
    assert "c" not in pool.ask(prompt(text(640))), "c stood second in the list of targets"


def test_prefix_20_an_endpoint_that_moved_holds_nothing() -> None:
    pool = Pool()
    pool.send(prompt(text(640)), "a", prefill="b")
    pool.change(removed=["a"], added=[Endpoint.of("a", "192.168.9.9", 8000)])
    assert pool.ask(prompt(text(640))) == {"b": (10, 10)}
    pool.send(prompt(text(320)), "a")
    assert pool.ask(prompt(text(640))) == {"a": (5, 10), "b": (10, 10)}
    assert len(pool.plugin._ids) == 2, "the slot is used again"


def test_prefix_21_endpoints_come_and_go() -> None:
    pool = Pool()
    for n in range(100):
        names = [f"x{n}-{k}" for k in range(20)]
        pool.change(added=[Endpoint.of(name, "10.0.0.1", 8000 + k) for k, name in enumerate(names)])
        for name in names:
            pool.send(prompt(text(640)), name)
        pool.change(removed=names)
    state = pool.plugin.debug_state()
    assert (state["entries"], state["different_blocks"], state["endpoints"]) == (0, 0, {})
    assert len(pool.plugin._ids) == 20


def test_an_endpoint_that_left_while_a_plugin_waited_is_not_remembered() -> None:
    pool = Pool()
    request = pool.request(prompt(text(640)))
    gone = pool.candidates
    pool.change(removed=["a"])
    pool.candidates = gone
    pool.decided(request, "a")
    assert pool.ask(prompt(text(640))) == {}
    assert pool.plugin.debug_state()["endpoints"] == {}


@pytest.mark.parametrize("bound", [10, 100, 1000])
def test_all_endpoints_together_have_a_bound(bound: int) -> None:
    pool = Pool({"maxTotalEntries": bound})
    for n in range(60):
        pool.send(prompt(text(640, 100 * n)), "abc"[n % 3])
        assert pool.plugin.debug_state()["entries"] <= bound
    held = {name: value["blocks"] for name, value in pool.plugin.debug_state()["endpoints"].items()}
    assert sum(held.values()) >= min(bound, 600) - max(bound // 16, 1)
    assert pool.ask(prompt(text(640, 5900)))["c"][0] >= min(10, bound // 4), "what came last stays"


def test_a_long_prompt_that_is_held_already_takes_no_room() -> None:
    pool = Pool({"maxTotalEntries": 3000, "maxPrefixTokensToMatch": 16 * 2000})
    for _ in range(3):
        pool.send(prompt(text(64 * 2000)), "a")
        assert pool.ask(prompt(text(64 * 2000))) == {"a": (2000, 2000)}


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3), st.integers(0, 2)), max_size=12), st.integers(0, 30))
def test_no_endpoint_gets_credit_for_what_another_holds(sent: list[tuple[int, int, int]], bound: int) -> None:
    """A match is never longer than the longest common beginning with a prompt that went to that very endpoint."""
    pool = Pool({"maxTotalEntries": bound, "lruCapacityPerServer": 6})
    prompts = {(n, k): text(64 * n) + text(64 * k, 50) for n in range(7) for k in range(4)}
    went: dict[str, list[str]] = {"a": [], "b": [], "c": []}
    for n, k, to in sent:
        pool.send(prompt(prompts[n, k]), "abc"[to])
        went["abc"[to]].append(prompts[n, k])
        for asked in prompts.values():
            for name, (held, total) in pool.ask(prompt(asked)).items():
                assert held <= min(max(_common(asked, other) for other in went[name]), total, 6)
        assert not bound or pool.plugin.debug_state()["entries"] <= bound


def _common(one: str, other: str) -> int:
    blocks = zip(range(0, len(one), 64), range(0, len(other), 64), strict=False)
    return next((at // 64 for at, _ in blocks if one[at : at + 64] != other[at : at + 64]), min(len(one), len(other)) // 64)


# ── sizes ──


def sizes(pool: Pool) -> tuple[int, dict[str, int]]:
    state = pool.plugin.debug_state()
    return state["block_size_tokens"], {name: value["capacity"] for name, value in state["endpoints"].items()}


@pytest.mark.parametrize(
    ("auto", "metrics", "block", "capacity"),
    [
        pytest.param(True, EndpointMetrics(cache_block_size=32, cache_num_blocks=5000), 32, 5000, id="prefix 22: the engine's"),
        pytest.param(True, EndpointMetrics(cache_block_size=32), 32, 31250, id="prefix 23: no number of blocks yet"),
        pytest.param(True, EndpointMetrics(cache_num_blocks=5000), 16, 5000, id="no block size"),
        pytest.param(True, EndpointMetrics(), 16, 31250, id="nothing said"),
        pytest.param(
            False, EndpointMetrics(cache_block_size=32, cache_num_blocks=5000), 16, 31250, id="prefix 24: as configured"
        ),
    ],
)
def test_block_size_and_capacity(auto: bool, metrics: EndpointMetrics, block: int, capacity: int) -> None:
    pool = Pool({"autoTune": auto}, [metrics] * 3)
    pool.send(prompt(text(1280)), "a")
    assert sizes(pool) == (block, {"default/a": capacity})
    assert pool.ask(prompt(text(1280))) == {"a": (1280 // (4 * block),) * 2}


def test_prefix_25_the_block_size_appears_later(caplog: pytest.LogCaptureFixture) -> None:
    pool = Pool()
    pool.send(prompt(text(1280)), "a")
    with caplog.at_level(logging.DEBUG):
        for _ in range(3):
            pool.measure(*[EndpointMetrics(cache_block_size=32)] * 3)
            assert pool.ask(prompt(text(1280))).get("b") is None
        assert pool.ask(prompt(text(1280))) == {}, "blocks of another size"
    assert [record.message for record in caplog.records].count("block size of the prefix index follows the engines") == 1
    pool.send(prompt(text(1280)), "b")
    assert pool.ask(prompt(text(1280))) == {"b": (10, 10)}


@pytest.mark.parametrize(
    ("given", "block", "said"),
    [
        ({"maxPrefixTokensToMatch": 320}, 32, []),
        ({"maxPrefixTokensToMatch": 100, "blockSizeTokens": 32}, 48, []),
        ({"maxPrefixBlocksToMatch": 10, "blockSizeTokens": 64}, 16, []),
        ({"maxPrefixBlocksToMatch": 10}, 32, [("prompts of more than 160 tokens", 32)]),
        ({"maxPrefixTokensToMatch": 100, "blockSizeTokens": 64}, 16, [("prompts of more than 64 tokens", 16)]),
        ({"maxPrefixTokensToMatch": 320}, 24, [("all prompts", 24)]),
    ],
)
def test_what_is_hashed_at_the_decision_is_told(
    given: dict[str, Any], block: int, said: list[object], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(twins, "READS_BODIES", True)
    pool = Pool(given)
    with caplog.at_level(logging.WARNING):
        pool.measure(*[EndpointMetrics(cache_block_size=block)] * 3)
        pool.ask(prompt("x"))
    fields = [record.__dict__["fields"] for record in caplog.records]
    assert [(each["which"], each["blockSizeTokens"]) for each in fields] == said


def test_a_request_that_was_hashed_before_the_block_size_changed_is_not_remembered() -> None:
    pool = Pool()
    request = pool.request(prompt(text(1280)))
    pool.measure(*[EndpointMetrics(cache_block_size=32)] * 3)
    pool.ask(prompt("x"))
    pool.decided(request, "a")
    assert pool.plugin.debug_state()["entries"] == 0


@pytest.mark.parametrize(
    ("said", "used"),
    [((16, 32, 32), 32), ((32, 16, 0), 16), ((64, 64, 16), 64), ((0, 0, 0), 16), ((0, 128, 0), 128)],
)
def test_the_most_common_block_size_counts(said: tuple[int, ...], used: int, caplog: pytest.LogCaptureFixture) -> None:
    pool = Pool(endpoints=[EndpointMetrics(cache_block_size=size, cache_num_blocks=size and 6400 // size) for size in said])
    pool.send(prompt(text(1280)), "a")
    block, capacities = sizes(pool)
    assert block == used
    assert capacities == {"default/a": 6400 // used if said[0] else 31250}, "of the size in force"
    mixed = len({size for size in said if size}) > 1
    assert ("different block sizes" in caplog.text) == mixed


def test_candidates_that_are_a_part_of_the_pool_do_not_change_it() -> None:
    pool = Pool(endpoints=[EndpointMetrics(cache_block_size=size) for size in (16, 16, 32)])
    pool.send(prompt(text(1280)), "a")
    whole = pool.candidates
    pool.candidates = whole.select([2])
    pool.ask(prompt(text(64)))
    pool.candidates = whole
    assert pool.ask(prompt(text(1280))) == {"a": (20, 20)}


def test_a_smaller_cache_forgets_at_once() -> None:
    pool = Pool()
    pool.send(prompt(text(1280)), "a")
    pool.measure(EndpointMetrics(cache_num_blocks=5), EndpointMetrics(), EndpointMetrics())
    assert pool.ask(prompt(text(1280))) == {"a": (5, 20)}


# ── parameters ──


def settings(plugin_type: PluginType, given: dict[str, Any]) -> IndexSettings:
    params: Params = plugin_type.params.decode(given)
    found: IndexSettings = params.index_settings()  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize(
    ("given", "block", "warned"),
    [
        pytest.param({}, 16, [], id="the default"),
        pytest.param({"blockSizeTokens": 32}, 32, [], id="in tokens"),
        pytest.param({"blockSize": 64}, 16, [], id="prefix 26: characters; that it is the older form is said by the loader"),
        pytest.param({"blockSize": 3}, 1, [], id="less than a token"),
        pytest.param({"blockSize": 64, "blockSizeTokens": 32}, 32, ["blockSize"], id="prefix 27: both"),
        pytest.param({"lruCapacityPerServer": 0}, 16, ["lruCapacityPerServer"], id="no capacity"),
    ],
)
def test_resolution_of_the_block_size(given: dict[str, Any], block: int, warned: list[str]) -> None:
    assert settings(prefix_cache.PLUGIN, given).block_tokens == block
    assert settings(prefix_cache.PLUGIN, given).capacity == 31250
    context = make_context()
    make_plugin(prefix_cache.PLUGIN, given, context)
    assert [parameter for parameter, _ in context.warnings] == warned


@pytest.mark.parametrize(
    ("given", "block", "blocks"),
    [
        ({}, 16, 8192),
        ({"blockSize": 32}, 32, 4096),
        ({"blockSize": 32, "blockSizeTokens": 64}, 64, 2048),
        ({"maxPrefixTokensToMatch": 0}, 16, 2048),
        ({"maxPrefixTokensToMatch": 0, "maxPrefixBlocksToMatch": 0}, 16, 0),
    ],
)
def test_parameters_of_the_producer(given: dict[str, Any], block: int, blocks: int) -> None:
    found = settings(approximate_prefix.APPROXIMATE, given)
    assert (found.block_tokens, found.cap(block)) == (block, blocks)


def test_the_transport_is_asked_to_read_bodies_only_for_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    def wanted(plugin_type: PluginType, **given: Any) -> tuple[str, ...]:
        return plugin_type.reads.readers(plugin_type.params.decode(given))

    monkeypatch.setattr(twins, "READS_BODIES", False)
    assert wanted(prefix_cache.PLUGIN) == wanted(approximate_prefix.APPROXIMATE) == (), "only Python could"
    monkeypatch.setattr(twins, "READS_BODIES", True)
    assert wanted(prefix_cache.PLUGIN) == ("prompt-blocks/64/256",)
    assert wanted(prefix_cache.PLUGIN, blockSizeTokens=32, maxPrefixTokensToMatch=320) == ("prompt-blocks/64/20",)
    assert wanted(prefix_cache.PLUGIN, blockSizeTokens=24, maxPrefixTokensToMatch=320) == ("prompt-blocks/96/13",)
    assert wanted(prefix_cache.PLUGIN, prefixMatchInfoProducerName="other") == ()
    assert wanted(approximate_prefix.APPROXIMATE) == ("prompt-blocks/64/8192",)


# ── what is shown ──


def test_metrics() -> None:
    pool = Pool()
    pool.send(prompt(text(1000)), "a")
    pool.send(prompt(text(400) + "x" * 600), "b")
    pool.ask(prompt("short"))
    assert pool.metrics.levels["llm_d_epp_prefix_indexer_size", NAME, NAME] == 30
    assert pool.metrics.observed["llm_d_epp_prefix_indexer_hit_ratio", NAME, NAME] == [0.0, 0.4]
    assert pool.metrics.observed["llm_d_epp_prefix_indexer_hit_bytes", NAME, NAME] == [0, 384]
    pool.change(removed=["a"])
    assert pool.metrics.levels["llm_d_epp_prefix_indexer_size", NAME, NAME] == 15


def test_the_debug_state_shows_who_holds_most_and_no_keys() -> None:
    pool = Pool(endpoints=120)
    for n, endpoint in enumerate(pool.candidates):
        pool.send(prompt(text(64 * (1 + n // 40))), endpoint.name, prefill="")
    state = pool.plugin.debug_state()
    assert (state["block_size_tokens"], state["entries"], state["different_blocks"]) == (16, 240, 3)
    assert len(state["endpoints"]) == 100
    assert [value["blocks"] for value in state["endpoints"].values()] == [3] * 40 + [2] * 40 + [1] * 20
    assert list(state["endpoints"]) == sorted(state["endpoints"], key=lambda name: (-state["endpoints"][name]["blocks"], name))


def test_records_are_shared_by_endpoints_that_hold_the_same() -> None:
    pool = Pool(endpoints=5)
    for name in "abd":
        pool.send(prompt(text(640)), name)
    found = pool.found(pool.request(prompt(text(640))))
    assert len(found) == 3
    assert len(set(map(id, found.values()))) == 1


def test_the_producer_writes_the_same_match() -> None:
    pool = Pool(plugin_type=approximate_prefix.APPROXIMATE)
    pool.send(prompt(text(640)), "a")
    request = pool.request(prompt(text(640)))
    matches = request.data.get(PREFIX_CACHE_MATCH.by(NAME))
    assert matches is not None
    assert {name: match.ratio for name, match in matches.items()} == {make_candidates(1).ids[0]: 1.0}
