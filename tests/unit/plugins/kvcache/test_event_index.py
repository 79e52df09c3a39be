"""The index of KV events: every case of the recorded payloads, for the reference and for its twins."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from plugins.kvcache.block_index import Bounds
from plugins.kvcache.event_processor import Source
from tests.unit.plugins.kvcache.indexes import MAKERS, A, B, Harness, P, Q
from tests.unit.plugins.kvcache.payloads import CLEARED, SAMPLES, payload, removed, stored

T = range(1, 49)
each_index = pytest.mark.parametrize("maker", sorted(MAKERS))

CBOR_KEYS: list[Any] = [
    pytest.param(16, (range(1, 33), (), "m"), [18216873062712665045, 2244927951475950666], id="T 1..32"),
    pytest.param(16, (T, (), "m"), [18216873062712665045, 2244927951475950666, 1727636486708089175], id="T"),
    pytest.param(32, (range(1, 33), (), "m"), [12025293301721424917], id="blocks of 32"),
    pytest.param(4, (range(1, 9), (), "m"), [14686617092727577033, 9856792211163113858], id="1..8"),
    pytest.param(
        *(4, (range(1, 13), [("tenant-a",), ("imgA",), ("imgA",)], "m")),
        [6039877359522808157, 17182671650304223049, 10172245829468565816],
        id="salt and image",
    ),
    pytest.param(4, (range(1, 5), (), "adapter-1"), [17775947532489695089], id="adapter"),
    pytest.param(4, (range(1, 5), [("adapter-1",)], "adapter-1"), [13041318332444145761], id="adapter kept as feature"),
    pytest.param(
        4, (range(1, 9), [("adapter-1",)], "adapter-1"), [13041318332444145761, 17604444376722889325], id="adapter and salt"
    ),
    pytest.param(4, (range(5, 13), (), "m"), [4302168986624888049, 9831503065642505045], id="5..12"),
]


@pytest.mark.parametrize(("block", "prompt", "expected"), CBOR_KEYS)
def test_prompts_have_the_keys_of_llm_d(block: int, prompt: tuple[Any, ...], expected: list[int]) -> None:
    """What the other cases ask for by tokens, as numbers."""
    assert Harness("cbor-fnv", block_size=block).keys(*prompt) == expected


# ── samples ──


@each_index
def test_prefix_34_a_stored_batch_of_the_oldest_layout(maker: str) -> None:
    index = Harness(maker, block_size=16).feed("A")
    assert [index.tiers(key) for key in index.keys(range(1, 33))] == [{P: ["gpu"]}] * 2


@each_index
def test_prefix_35_a_child_goes_on_behind_its_parent(maker: str) -> None:
    assert Harness(maker, block_size=16).feed("AB").blocks(T) == {P: 3}


@each_index
def test_prefix_36_without_its_parent_a_child_waits(maker: str) -> None:
    index = Harness(maker, block_size=16).feed("B")
    counts = index.index.counts()
    assert (counts.keys, counts.orphans, index.tally("unknown_parent")) == (0, 1, 1)


@each_index
def test_prefix_37_and_is_found_once_the_parent_comes(maker: str) -> None:
    index = Harness(maker, block_size=16).feed("BA")
    assert index.blocks(T) == {P: 3}
    assert index.index.counts().orphans == 0


@each_index
def test_prefix_38_an_adapter_has_blocks_of_its_own(maker: str) -> None:
    index = Harness(maker).feed("C")
    assert index.blocks(range(1, 5), model="adapter-1") == {P: 1}
    assert index.blocks(range(1, 5), [("adapter-1",)], model="adapter-1") == {}
    assert index.blocks(range(1, 5)) == {}


@each_index
def test_prefix_39_salts_and_images_are_part_of_a_block(maker: str) -> None:
    index = Harness(maker).feed("D")
    assert index.blocks(range(1, 13), [("tenant-a",), ("imgA",), ("imgA",)]) == {P: 3}
    assert index.blocks(range(1, 13), [(), ("imgA",), ("imgA",)]) == {}


@each_index
def test_prefix_40_only_full_attention_counts(maker: str) -> None:
    index = Harness(maker).feed("E")
    assert index.index.counts().skipped == {("stores", "sliding_window", "unsupported_cache_kind"): 1}
    assert index.blocks(range(1, 5)) == {P: 1}
    index.feed(payload(removed([0x20], "GPU", 1)))
    assert index.blocks(range(1, 5)) == {P: 1}, "the sliding window's block is another one"
    index.feed(payload(removed([0x1F], "GPU", 0)))
    assert index.blocks(range(1, 5)) == {}


@each_index
def test_prefix_41_removals_and_a_clear_leave_nothing(maker: str) -> None:
    index = Harness(maker, block_size=4).feed("AEF")
    assert (index.index.counts().keys, index.index.counts().pods) == (0, {P: 0})


@each_index
def test_prefix_42_events_as_maps(maker: str) -> None:
    index = Harness(maker, block_size=16)
    store, *rest = msgspec.msgpack.decode(SAMPLES["G"])[1]
    assert index.feed(payload(store)).blocks(range(1, 17)) == {P: 1}
    index.feed(payload(*rest))
    assert index.index.counts().keys == 0
    assert Harness(maker, block_size=16).feed("G").index.counts().keys == 0


@each_index
def test_prefix_43_a_digest_is_the_number_of_its_end(maker: str) -> None:
    index = Harness(maker, block_size=16).feed("A").feed("H", pod=Q)
    assert index.blocks(range(1, 17)) == {P: 1, Q: 1}
    index.feed(payload(removed([7946494704765058032])), pod=Q)
    assert index.blocks(range(1, 17)) == {P: 1}


@each_index
def test_prefix_44_offloaded_blocks_are_worth_less(maker: str) -> None:
    index = Harness(maker, block_size=16).feed("AJ")
    assert [index.tiers(key) for key in index.keys(range(1, 33))] == [{P: ["cpu"]}, {P: ["gpu"]}]
    match = index.found(range(1, 33))[P]
    assert (match.blocks, match.weighted) == (2, pytest.approx(1.8))
    assert match.by_tier == {"cpu": 1}, "neither tier alone has the second block"


@each_index
def test_prefix_45_offloading_what_nobody_knows(maker: str) -> None:
    index = Harness(maker, block_size=16).feed("J")
    counts = index.index.counts()
    assert (counts.keys, counts.decode_errors) == (0, {})


@each_index
def test_prefix_46_removed_before_it_is_offloaded(maker: str) -> None:
    offload, removal = msgspec.msgpack.decode(SAMPLES["J"])[1]
    index = Harness(maker, block_size=16).feed("A", payload(removal, offload))
    assert [index.tiers(key) for key in index.keys(range(1, 33))] == [{P: ["cpu"]}, {P: ["gpu"]}]


@pytest.mark.parametrize("dialect", ["vllm", "sglang"])
@each_index
def test_prefix_47_signed_hashes_and_host_memory_of_sglang(maker: str, dialect: str) -> None:
    index = Harness(maker, dialect=dialect).feed("K")
    assert [index.tiers(key) for key in index.keys(range(5, 13))] == [{P: ["gpu"]}, {P: ["cpu"]}]


@each_index
def test_prefix_48_unknown_events_are_passed_over(maker: str) -> None:
    index = Harness(maker).feed("L")
    assert index.blocks(range(1, 5)) == {P: 1}
    assert index.index.counts().decode_errors == {}


@each_index
def test_prefix_49_an_unknown_parent_is_counted(maker: str) -> None:
    index = Harness(maker).feed("M")
    assert (index.index.counts().keys, index.tally("unknown_parent")) == (0, 1)


@each_index
def test_prefix_50_a_batch_as_a_map(maker: str) -> None:
    index = Harness(maker, block_size=16).feed("AN")
    assert index.index.counts().pods == {P: 0}


@each_index
def test_prefix_51_less_than_a_block_is_nothing(maker: str) -> None:
    index = Harness(maker).feed(payload(stored([61], range(1, 5))), "P")
    assert index.index.counts().pods == {P: 1}, "neither a block nor a change of tier"
    assert index.tally("duplicate_stores") == 0


@each_index
def test_prefix_52_a_broken_event_spoils_no_other(maker: str) -> None:
    index = Harness(maker).feed("Q")
    assert index.blocks(range(1, 5)) == {P: 1}
    assert index.index.counts().decode_errors == {"event": 1}


@each_index
def test_prefix_53_a_negative_group(maker: str) -> None:
    index = Harness(maker).feed("R")
    assert (index.index.counts().keys, index.index.counts().decode_errors) == (0, {"event": 1})


@each_index
def test_prefix_54_a_parent_of_zero_is_none(maker: str) -> None:
    index = Harness(maker).feed("U")
    assert [index.tiers(key) for key in index.keys(range(1, 5))] == [{P: ["gpu"]}]


@each_index
def test_prefix_55_a_salt_that_is_called_like_the_adapter(maker: str) -> None:
    assert Harness(maker).feed("V").blocks(range(1, 9), [("adapter-1",)], "adapter-1") == {P: 2}


@each_index
def test_prefix_56_embeddings_cannot_be_matched(maker: str) -> None:
    index = Harness(maker).feed("W")
    assert index.blocks(range(1, 9)) == {P: 1}
    assert index.index.counts().keys == 1


@each_index
def test_prefix_57_an_engines_block_of_several(maker: str) -> None:
    index = Harness(maker, block_size=16).feed("X")
    assert index.blocks(range(1, 33)) == {P: 2}
    index.feed(payload(removed([91])))
    assert index.index.counts().keys == 0


@each_index
def test_prefix_58_several_of_an_engines_blocks_are_one(maker: str) -> None:
    index = Harness(maker, block_size=32).feed("A")
    assert index.blocks(range(1, 33)) == {P: 1}
    index.feed("B", payload(stored([77], range(49, 65), parent=0xA9640FD6F14C5A75, block=16)))
    assert index.blocks(range(1, 65)) == {P: 2}
    index.feed(payload(removed([77])))
    assert index.blocks(range(1, 65)) == {P: 1}


@each_index
def test_prefix_59_a_group_that_nobody_described(maker: str) -> None:
    assert Harness(maker).feed("Y").blocks(range(1, 5)) == {P: 1}


GARBAGE = [
    pytest.param(b"\xc1\xff\x00garbage", id="random bytes"),
    pytest.param(b"", id="empty"),
    pytest.param(msgspec.msgpack.encode(7), id="a number"),
    pytest.param(b"\xdd\x06\x00\x00\x00", id="an array of 100 million"),
    pytest.param(b"\x93\xcb" + bytes(8) + b"\xdd\x06\x00\x00\x00", id="an array of 100 million events"),
    pytest.param(b"\xdf\x06\x00\x00\x00", id="a map of 100 million"),
    pytest.param(b"\x91" * 100_000, id="nested 100,000 deep"),
    pytest.param(msgspec.msgpack.encode([0.5]), id="a batch without events"),
    pytest.param(msgspec.msgpack.encode([0.5, {"type": "BlockStored"}]), id="events that are a map"),
    pytest.param(msgspec.msgpack.encode({"ts": 0.5}), id="a map without events"),
]


@each_index
@pytest.mark.parametrize("data", GARBAGE)
def test_prefix_60_garbage_is_counted(maker: str, data: bytes) -> None:
    index = Harness(maker)
    tracemalloc.start()
    try:
        index.feed(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000
    assert index.index.counts().decode_errors == {"payload": 1}
    assert index.feed("U").blocks(range(1, 5)) == {P: 1}


BROKEN: list[Any] = [
    pytest.param(["BlockStored"], id="only a tag"),
    pytest.param([], id="empty"),
    pytest.param([7, [1], None, [1, 2, 3, 4], 4], id="a tag that is a number"),
    pytest.param({"block_hashes": [1]}, id="a map without a tag"),
    pytest.param({"type": "BlockStored", "block_hashes": [1]}, id="a map without tokens"),
    pytest.param("BlockStored", id="a text"),
    pytest.param(stored([1.5], range(4)), id="a hash that is a fraction"),
    pytest.param(stored([b""], range(4)), id="a hash without bytes"),
    pytest.param(stored([True], range(4)), id="a hash that is a truth value"),
    pytest.param(stored([1], range(4), parent="x"), id="a parent that is a text"),
    pytest.param(["BlockStored", [1], None, [[1, 2], [2, 3]], 2], id="pairs of tokens"),
    pytest.param(["BlockStored", [1], None, [1 << 32], 1], id="a token of 33 bits"),
    pytest.param(["BlockStored", [1], None, [-1], 1], id="a negative token"),
    pytest.param(["BlockStored", [1], None, "abcd", 4], id="tokens that are a text"),
    pytest.param(stored([1], range(4), block=-4), id="a negative size"),
    pytest.param(["BlockStored", [1], None, [1, 2, 3, 4], "4"], id="a size that is a text"),
    pytest.param(["BlockStored", {"a": 1}, None, [1, 2, 3, 4], 4], id="hashes that are a map"),
    pytest.param(stored([1], range(4), extra_keys="x"), id="extra keys that are a text"),
    pytest.param(stored([1], range(4), extra_keys=["x"]), id="extra keys of a block that are a text"),
    pytest.param(stored([1], range(4), group="x"), id="a group that is a text"),
    pytest.param(["BlockRemoved"], id="a removal of nothing"),
    pytest.param(["BlockRemoved", 7], id="a removal of a number"),
]


@each_index
@pytest.mark.parametrize("event", BROKEN)
def test_each_way_in_which_an_event_can_be_broken(maker: str, event: Any) -> None:
    index = Harness(maker).feed(payload(event, stored([2], range(1, 5))))
    assert index.index.counts().decode_errors == {"event": 1}
    assert index.blocks(range(1, 5)) == {P: 1}
    assert index.index.counts().keys == 1


LENIENT: list[Any] = [
    pytest.param(stored([1], range(1, 5), medium=7), id="a medium that is no text"),
    pytest.param(stored([1], range(1, 5), medium=""), id="an empty medium"),
    pytest.param(stored([1], range(1, 5), medium="gpu"), id="lower case"),
    pytest.param(stored([1], range(1, 5), lora_name=7), id="an adapter that is no text"),
    pytest.param(stored([1], range(1, 5), group=0, kind=7), id="a kind that is no text"),
    pytest.param([*stored([1], range(1, 5), extra_keys=[[7, None, ["x"], []]])[:8], [[7, None]]], id="other extra keys"),
    pytest.param([*stored([1], range(1, 5), kind=None), 128, "more", {"of": "it"}], id="newer fields"),
    pytest.param(["BlockStored", [1], None, [1, 2, 3, 4], 4], id="as few fields as there must be"),
    pytest.param(stored([b"\x01"], range(1, 5)), id="a short digest"),
]


@each_index
@pytest.mark.parametrize("event", LENIENT)
def test_what_may_be_otherwise(maker: str, event: Any) -> None:
    index = Harness(maker).feed(payload(event))
    assert index.index.counts().decode_errors == {}
    assert [index.tiers(key) for key in index.keys(range(1, 5))] == [{P: ["gpu"]}]


# ── counting ──


@each_index
def test_prefix_62_stored_twice_is_removed_twice(maker: str) -> None:
    store = payload(stored([1], range(1, 5)))
    index = Harness(maker).feed(store, store, payload(removed([1])))
    assert index.blocks(range(1, 5)) == {P: 1}
    assert index.feed(payload(removed([1]))).blocks(range(1, 5)) == {}


@each_index
def test_prefix_63_a_clear_forgets_how_often(maker: str) -> None:
    store = payload(stored([1], range(1, 5)))
    index = Harness(maker).feed(store, store, payload(CLEARED), store, payload(removed([1])))
    assert index.blocks(range(1, 5)) == {}


@each_index
def test_announced_for_ever_is_removed_after_eight(maker: str) -> None:
    index = Harness(maker).feed(*[payload(stored([1], range(1, 5)))] * 100)
    assert index.feed(*[payload(removed([1]))] * 7).blocks(range(1, 5)) == {P: 1}
    assert index.feed(payload(removed([1]))).blocks(range(1, 5)) == {}


@each_index
def test_prefix_64_a_removal_without_a_medium_means_the_gpu(maker: str) -> None:
    index = Harness(maker).feed(payload(stored([1], range(1, 5), medium="GPU")), payload(["BlockRemoved", [1]]))
    assert index.blocks(range(1, 5)) == {}


@each_index
def test_one_block_under_two_keys_of_the_engine_stays_until_both_are_gone(maker: str) -> None:
    """Engines without extra keys salt blocks and do not say so."""
    index = Harness(maker).feed(payload(stored([1], range(1, 5)), stored([2], range(1, 5)), removed([1])))
    assert index.blocks(range(1, 5)) == {P: 1}
    assert index.feed(payload(removed([2]))).blocks(range(1, 5)) == {}


@each_index
def test_prefix_72_models_with_equal_hashes_do_not_disturb_each_other(maker: str) -> None:
    store, child = payload(stored([1], range(1, 5))), payload(stored([2], range(5, 9), parent=1))
    index = Harness(maker).feed(store, pod=A, model="m1").feed(store, pod=B, model="m2").feed(payload(removed([1])), pod=B)
    index.feed(payload(removed([1])), pod=B, model="m2")
    assert index.blocks(range(1, 5), model="m1") == {A: 1}
    assert index.blocks(range(1, 5), model="m2") == {}
    assert index.feed(child, pod=A, model="m1").blocks(range(1, 9), model="m1") == {A: 2}


@each_index
def test_an_adapter_without_a_name_is_not_the_base_model(maker: str) -> None:
    event = stored([1], range(1, 5))
    event[5] = 7
    index = Harness(maker).feed(payload(event))
    assert (index.index.counts().keys, index.tally("unsupported")) == (0, 1)


@each_index
def test_engines_whose_hashes_lack_the_adapter(maker: str) -> None:
    """One hash is two blocks then: a child goes on behind its own, and a removal takes both."""
    index = Harness(maker).feed(
        payload(
            stored([1], range(1, 5)),
            stored([1], range(1, 5), lora_name="adapter-1"),
            stored([2], range(5, 9), parent=1, lora_name="adapter-1"),
            stored([3], range(9, 13), parent=1),
        )
    )
    assert index.blocks(range(1, 9), model="adapter-1") == {P: 2}
    assert index.blocks([1, 2, 3, 4, 9, 10, 11, 12]) == {P: 2}
    index.feed(payload(removed([1]), removed([1])))
    assert index.blocks(range(1, 5)) == index.blocks(range(1, 5), model="adapter-1") == {}


@each_index
def test_ranks_behind_one_publisher(maker: str) -> None:
    index = Harness(maker)
    index.index.apply(Source(A, (A, B), "m"), payload(stored([1], range(1, 5)), rank=1))
    index.index.apply(Source(A, (A, B), "m"), payload(stored([2], range(5, 9)), rank=7))
    assert index.blocks(range(1, 5)) == {B: 1}
    assert index.blocks(range(5, 9)) == {A: 1}, "a rank that nobody has is the publisher's own"


# ── orphans ──


@each_index
def test_blocks_that_were_removed_meanwhile_are_not_adopted(maker: str) -> None:
    index = Harness(maker).feed(
        payload(stored([2, 3], range(5, 13), parent=1), removed([3])), payload(stored([1], range(1, 5)))
    )
    assert index.blocks(range(1, 13)) == {P: 2}


@each_index
def test_another_pod_brings_the_parent(maker: str) -> None:
    index = Harness(maker).feed(payload(stored([3], range(9, 13), parent=2), stored([2], range(5, 9), parent=1)))
    index.feed(payload(stored([1], range(1, 5))), pod=Q)
    assert index.blocks(range(1, 13)) == {Q: 1}, "it is not credited for what it never announced"
    assert index.tiers(index.keys(range(1, 13))[2]) == {P: ["gpu"]}


@each_index
def test_a_cleared_pod_has_no_orphans(maker: str) -> None:
    index = Harness(maker).feed(payload(stored([2], range(5, 9), parent=1)), payload(CLEARED))
    index.feed(payload(stored([1], range(1, 5))))
    assert index.blocks(range(1, 9)) == {P: 1}


@each_index
@pytest.mark.parametrize(
    "parents",
    [
        pytest.param({7: 7}, id="of itself"),
        pytest.param({7: 8, 8: 7}, id="of each other"),
        pytest.param({7: 8, 8: 9, 9: 7}, id="in a ring"),
    ],
)
def test_garbage_that_is_its_own_parent_waits_as_others_do(maker: str, parents: dict[int, int]) -> None:
    index = Harness(maker).feed(*[payload(stored([key], range(5, 9), parent=parent)) for key, parent in parents.items()])
    assert index.index.counts().orphans == len(parents)
    index.feed(payload(stored([7], range(1, 5), lora_name="adapter-1")))
    assert index.index.counts().orphans == len(parents), "an adapter's block is nobody else's parent"
    index.feed(payload(stored([7], range(1, 5))))
    assert index.index.counts().orphans == 0


@each_index
def test_orphans_wait_ten_minutes(maker: str) -> None:
    index = Harness(maker).feed(payload(stored([2], range(5, 9), parent=1)))
    index.clock.advance(601)
    index.feed(payload(stored([1], range(1, 5))))
    assert index.blocks(range(1, 9)) == {P: 1}


@each_index
def test_orphans_are_bounded(maker: str) -> None:
    events = [stored([n], range(5, 9), parent=n + 1_000_000) for n in range(2, 12_002)]
    index = Harness(maker).feed(payload(*events))
    assert index.index.counts().orphans == 10_000
    index.feed(payload(*[stored([n + 1_000_000], range(1, 5)) for n in (2, 12_001)]))
    assert index.index.counts().orphans == 9_999, "the oldest went"


# ── bounds ──


@each_index
def test_prefix_71_pods_of_a_block_are_bounded_only_where_that_is_asked_for(maker: str) -> None:
    pods = [f"10.0.1.{n}:8000" for n in range(12)]
    for limit, expected in ((None, pods), (10, pods[2:])):
        index = Harness(maker, bounds=Bounds(max_pods_per_key=limit))
        for pod in pods:
            index.feed(payload(stored([1], range(1, 5))), pod=pod)
        assert sorted(index.blocks(range(1, 5))) == sorted(expected)


@each_index
def test_the_block_added_longest_ago_leaves(maker: str) -> None:
    index = Harness(maker, bounds=Bounds(max_keys=2))
    for n in (1, 2, 3):
        index.feed(payload(stored([n], range(n * 10, n * 10 + 4))))
    assert [index.blocks(range(n * 10, n * 10 + 4)) for n in (1, 2, 3)] == [{}, {P: 1}, {P: 1}]
    assert index.index.counts().keys == 2


@each_index
def test_cost_counts_names_of_pods_and_tiers(maker: str) -> None:
    one = 84 + 64 + len(P) + len("gpu")
    index = Harness(maker, bounds=Bounds(max_bytes=2 * one))
    for n in (1, 2):
        index.feed(payload(stored([n], range(n * 10, n * 10 + 4))))
    assert index.index.counts().keys == 2
    index.feed(payload(stored([2], range(20, 24))), pod=Q)
    assert index.blocks(range(20, 24)) == {P: 1, Q: 1}
    assert index.index.counts().keys == 1, "the second pod's entry cost the first block"


@each_index
def test_more_tiers_than_any_engine_has_are_not_indexed(maker: str) -> None:
    events = [stored([n], range(n, n + 4), medium=f"tier-{n}") for n in range(1, 31)]
    index = Harness(maker).feed(payload(*events))
    assert index.index.counts().keys == 15, "and the GPU's makes sixteen"
    assert index.tally("unsupported") == 15


@each_index
def test_more_models_than_any_pool_has_are_not_indexed(maker: str) -> None:
    index = Harness(maker)
    for n in range(300):
        index.feed(payload(stored([n + 1], range(n, n + 4))), model=f"model-{n}")
    assert index.tally("unsupported") == 300 - 256


# ── pods ──


@each_index
def test_a_pod_that_left_is_forgotten_and_its_slot_used_again(maker: str) -> None:
    index = Harness(maker).feed(payload(stored([1], range(1, 5))))
    index.index.forget(P)
    assert index.blocks(range(1, 5)) == {}
    index.index.admit(Q)
    assert index.blocks(range(1, 5)) == {}
    index.feed(payload(removed([1]), stored([1], range(1, 5))), pod=P)
    assert index.blocks(range(1, 5)) == {P: 1}
    assert index.feed(payload(removed([1]))).blocks(range(1, 5)) == {}, "counts did not outlive the pod"


@each_index
def test_a_pod_that_is_discovered_late_keeps_its_blocks(maker: str) -> None:
    index = Harness(maker).feed(payload(stored([1], range(1, 5)), stored([3], range(9, 13), parent=2)), pod="10.0.0.1")
    index.index.admit(P)
    index.index.rename("10.0.0.1", P)
    assert index.blocks(range(1, 5)) == {P: 1}
    index.feed(payload(stored([2], range(5, 9), parent=1), removed([1])))
    assert index.blocks(range(1, 5)) == {}
    assert index.tiers(index.keys(range(1, 13))[2]) == {P: ["gpu"]}


@each_index
def test_a_lookup_never_takes_one_pod_for_another(maker: str) -> None:
    """A thread lets pods come and go, each into the other's slot, while prompts are looked up."""
    index = Harness(maker)
    mine = {pod: [number] * 400 for number, pod in enumerate((P, Q), 1)}
    stores = {pod: payload(stored(range(1, 101), tokens)) for pod, tokens in mine.items()}
    keys = {pod: index.keys(tokens) for pod, tokens in mine.items()}
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            for pod in (P, Q):
                index.feed(stores[pod], pod=pod)
                index.index.forget(pod)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        seen = [(pod, index.index.lookup(keys[pod], index.clock())) for _ in range(300) for pod in (P, Q)]
    finally:
        stop.set()
        thread.join()
    assert [(pod, found) for pod, found in seen if found.keys() - {pod}] == []
    assert {match.blocks for _, found in seen for match in found.values()} <= set(range(1, 101))


# ── weights ──


def holding(index: Harness, pod: str, blocks: Sequence[int], medium: str = "GPU") -> None:
    """Let a pod hold some of eight blocks; nobody's parents are missing."""
    index.feed(payload(stored(range(1, 9), range(1, 33), medium=medium)), pod=pod)
    index.feed(payload(removed([n + 1 for n in range(8) if n not in blocks], medium)), pod=pod)


@each_index
def test_prefix_80_runs_and_weights(maker: str) -> None:
    index = Harness(maker)
    holding(index, "a", range(6))
    holding(index, "b", range(4))
    holding(index, "b", (4, 5), "CPU")
    holding(index, "c", range(1, 8))
    holding(index, "d", (0, 1, 3, 4, 5, 6, 7))
    found = index.found(range(1, 33))
    assert {pod: match.weighted / 8 for pod, match in found.items()} == pytest.approx({"a": 0.75, "b": 0.7, "d": 0.25})
    assert {pod: match.by_tier for pod, match in found.items()} == {"a": {"gpu": 6}, "b": {"gpu": 4}, "d": {"gpu": 2}}


@each_index
def test_prefix_82_an_unknown_tier_is_worth_the_least(maker: str) -> None:
    index = Harness(maker)
    holding(index, "a", range(8), "disk")
    assert index.found(range(1, 33))["a"].weighted == pytest.approx(8 * 0.8)
    index = Harness(maker, tier_weights={"GPU": 1.0, "cpu": 0.5, "disk": 0.2})
    holding(index, "a", range(8), "Disk")
    holding(index, "b", range(8), "nvme")
    found = index.found(range(1, 33))
    assert (found["a"].weighted, found["b"].weighted) == pytest.approx((1.6, 1.6))


@each_index
def test_prefix_83_one_block_of_one_in_host_memory(maker: str) -> None:
    index = Harness(maker).feed(payload(stored([1], range(1, 5), medium="CPU")))
    match = index.found(range(1, 5))[P]
    assert (match.blocks, match.weighted) == (1, pytest.approx(0.8))


@each_index
def test_the_best_tier_counts(maker: str) -> None:
    index = Harness(maker, tier_weights={"gpu": 0.5, "cpu": 0.9})
    holding(index, "a", range(8))
    holding(index, "a", range(2), "CPU")
    assert index.found(range(1, 33))["a"].weighted == pytest.approx(2 * 0.9 + 6 * 0.5)
    assert index.found(range(1, 33))["a"].by_tier == {"gpu": 8, "cpu": 2}


# ── assumptions ──


@each_index
def test_prefix_84_what_was_just_sent_is_assumed_for_a_moment(maker: str) -> None:
    index = Harness(maker)
    index.index.admit(A)
    index.index.assume(index.keys(range(1, 33)), A, index.clock() + 2)
    match = index.found(range(1, 33))[A]
    assert (match.blocks, match.weighted, match.by_tier) == (8, 8.0, {"speculative": 8})
    index.clock.advance(2)
    assert index.found(range(1, 33)) == {}


@each_index
def test_prefix_85_the_later_end_counts(maker: str) -> None:
    index = Harness(maker)
    index.index.admit(A)
    keys = index.keys(range(1, 33))
    index.index.assume(keys, A, index.clock() + 2)
    index.clock.advance(1.5)
    index.index.assume(keys, A, index.clock() + 2)
    index.clock.advance(1.0)
    assert index.blocks(range(1, 33)) == {A: 8}
    index.clock.advance(1.1)
    assert index.blocks(range(1, 33)) == {}


@each_index
def test_prefix_86_events_confirm(maker: str) -> None:
    index = Harness(maker)
    index.index.admit(A)
    index.index.assume(index.keys(range(1, 33)), A, index.clock() + 2)
    index.clock.advance(0.5)
    index.feed(payload(stored(range(1, 9), range(1, 33))), pod=A)
    index.clock.advance(9.5)
    assert index.blocks(range(1, 33)) == {A: 8}


@each_index
def test_assumptions_end_with_the_cache_or_the_pod(maker: str) -> None:
    for end in ("clear", "forget"):
        index = Harness(maker)
        index.index.admit(A)
        index.index.assume(index.keys(range(1, 33)), A, index.clock() + 2)
        getattr(index.index, end)(A)
        index.index.admit(B)
        assert index.blocks(range(1, 33)) == {}, end


@each_index
def test_events_and_assumptions_add_up(maker: str) -> None:
    index = Harness(maker)
    holding(index, A, range(4))
    index.index.assume(index.keys(range(1, 33)), A, index.clock() + 2)
    match = index.found(range(1, 33))[A]
    assert (match.blocks, match.by_tier) == (8, {"gpu": 4, "speculative": 8})


@each_index
def test_nobody_is_assumed_who_is_not_there(maker: str) -> None:
    index = Harness(maker)
    index.index.assume(index.keys(range(1, 33)), A, index.clock() + 2)
    assert index.blocks(range(1, 33)) == {}
