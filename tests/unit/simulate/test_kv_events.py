"""KV events of the simulated engine: vLLM's hashes, vLLM's layouts, and exactly what the cache holds."""

from __future__ import annotations

from array import array
from collections.abc import Sequence as Many
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.simulate.engine import Engine
from epp.simulate.kv_events import KvEventLog, block_digest, none_hash
from epp.simulate.options import EngineOptions, EventLayout, KvEventOptions
from epp.simulate.sequence import Sequence

T = list(range(1, 49))
"""Three blocks of sixteen tokens: the example of the specification."""
OPTIONS = EngineOptions(kv_blocks=64, time_scale=0)


def digests(seed: str, extras: Many[tuple[str, ...] | None]) -> list[bytes]:
    found = [none_hash(seed)]
    for index, extra in enumerate(extras):
        found.append(block_digest(found[-1], T[16 * index : 16 * index + 16], extra))
    return found[1:]


@pytest.mark.parametrize(
    ("seed", "extras", "hashes"),
    [
        ("0", [None] * 3, [3236607068019569386, 2758186210834249151, 5191110061519319221]),
        ("12345", [None] * 3, [7946494704765058032, 12145793040335043204, 12205898305926617717]),
        ("12345", [("adapter-1",)] * 3, [8799051791210144123, 8941599994136860147, 11171156744365285994]),
        ("12345", [("tenant-a",), None, None], [9159663666768294567, 5792929804424095666, 8407031599845956364]),
    ],
    ids=["seed 0", "seed 12345", "adapter", "salt"],
)
def test_block_hashes_are_those_of_vllm(seed: str, extras: list[tuple[str, ...] | None], hashes: list[int]) -> None:
    assert [int.from_bytes(digest[-8:], "big") for digest in digests(seed, extras)] == hashes


def test_a_digest_is_whole() -> None:
    assert none_hash("12345").hex() == "7292412b7aee6c72390673c639cb26bbadd61da0cb7af52fea097bf4c7b340b2"
    assert digests("12345", [None])[0].hex() == "ee6f104e27ab3dee1e8977187646e8f67100bb8f2f1f27ce6e479ed4e70b3bf0"


class Recorder:
    """An engine whose batches are kept, decoded."""

    def __init__(self, engine: EngineOptions = OPTIONS, **events: Any) -> None:
        self.batches: list[Any] = []
        options = KvEventOptions(**{"hash_seed": "12345"} | events)
        log = KvEventLog(options, engine.block_size, self._keep, wall_clock=lambda: 1700000000.5)
        self.engine = Engine(engine, log)

    def _keep(self, payload: bytes) -> None:
        self.batches.append(msgspec.msgpack.decode(payload))

    def run(self, sequence: Sequence, at_s: float = 0.0) -> None:
        """A request from its arrival to its end."""
        self.engine.submit(sequence, at_s)
        while self.engine.due_s is not None:
            self.engine.advance(self.engine.due_s)

    def take(self) -> list[Any]:
        """The batches since the last call."""
        taken, self.batches = self.batches, []
        return taken


def prompt(ids: Many[int]) -> bytes:
    return array("I", ids).tobytes()


def test_a_stored_prompt_as_a_map() -> None:
    recorder = Recorder()
    recorder.run(Sequence(prompt(T)))
    assert recorder.batches == [
        {
            "ts": 1700000000.5,
            "events": [
                {
                    "type": "BlockStored",
                    "block_hashes": [7946494704765058032, 12145793040335043204, 12205898305926617717],
                    "parent_block_hash": None,
                    "token_ids": T,
                    "block_size": 16,
                    "lora_id": None,
                    "medium": "GPU",
                    "lora_name": None,
                    "group_idx": 0,
                    "kv_cache_spec_kind": "full_attention",
                }
            ],
            "data_parallel_rank": 0,
        }
    ]


def test_a_stored_prompt_as_an_array() -> None:
    recorder = Recorder(layout=EventLayout.ARRAY, rank=3, raw_hashes=True)
    recorder.run(Sequence(prompt(T), adapter="adapter-1", salt="s"))
    ((at_s, (event,), rank),) = recorder.batches
    extras = [["adapter-1", "s"], ["adapter-1"], ["adapter-1"]]
    hashes = digests("12345", [tuple(extra) for extra in extras])
    assert (at_s, rank) == (1700000000.5, 3)
    assert event == ["BlockStored", hashes, None, T, 16, None, "GPU", "adapter-1", extras, 0, "full_attention"]


def test_a_longer_prompt_announces_only_what_is_new_under_its_parent() -> None:
    recorder = Recorder()
    recorder.run(Sequence(prompt(T[:32])))
    recorder.take()
    recorder.run(Sequence(prompt(T)))
    ((event,),) = [batch["events"] for batch in recorder.batches]
    assert event["block_hashes"] == [12205898305926617717]
    assert event["parent_block_hash"] == 12145793040335043204
    assert event["token_ids"] == T[32:]
    recorder.take()
    recorder.run(Sequence(prompt(T)))
    assert recorder.batches == []


def test_an_answer_is_announced_block_by_block() -> None:
    recorder = Recorder()
    recorder.run(Sequence(prompt(T[:16]), prompt(T[16:]), watched=True))
    stored = [event for batch in recorder.batches for event in batch["events"]]
    hashes = [7946494704765058032, 12145793040335043204, 12205898305926617717]
    assert [event["block_hashes"] for event in stored] == [[value] for value in hashes]
    assert [event["parent_block_hash"] for event in stored] == [None, *hashes[:2]]


def test_an_evicted_block_is_announced_before_what_takes_its_place() -> None:
    recorder = Recorder(replace(OPTIONS, kv_blocks=3))
    recorder.run(Sequence(prompt(T)))
    recorder.take()
    recorder.run(Sequence(prompt([7] * 32)))
    (batch,) = recorder.batches
    assert [(event["type"], event["block_hashes"]) for event in batch["events"][:2]] == [
        ("BlockRemoved", [12205898305926617717]),
        ("BlockRemoved", [12145793040335043204]),
    ]
    assert batch["events"][0] == {
        "type": "BlockRemoved", "block_hashes": [12205898305926617717], "medium": "GPU", "group_idx": 0,
    }  # fmt: skip
    assert batch["events"][2]["type"] == "BlockStored"


@pytest.mark.parametrize(
    ("layout", "event"), [(EventLayout.MAP, {"type": "AllBlocksCleared"}), (EventLayout.ARRAY, ["AllBlocksCleared"])]
)
def test_a_forgotten_cache_is_told_at_once_unless_it_is_in_use(layout: EventLayout, event: object) -> None:
    recorder = Recorder(layout=layout)
    recorder.run(Sequence(prompt(T), kept=True))
    recorder.take()
    assert not recorder.engine.forget(1.0)
    assert recorder.batches == []
    recorder.engine.reset(2.0)
    (batch,) = recorder.batches
    assert (batch["events"] if layout is EventLayout.MAP else batch[1]) == [event]


_PROMPTS = st.lists(
    st.tuples(
        st.integers(1, 60),  # tokens
        st.integers(0, 24),  # tokens of the answer
        st.sampled_from([1, 2]),  # which text
        st.sampled_from([None, "sql"]),
        st.booleans(),  # watched
        st.booleans(),  # together with the next
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=100, deadline=None)
@given(requests=_PROMPTS, kv_blocks=st.integers(22, 60))
def test_who_follows_the_events_knows_what_the_cache_holds(requests: list[Any], kv_blocks: int) -> None:
    engine = EngineOptions(kv_blocks=kv_blocks, block_size=4, time_scale=0.01, max_num_seqs=3)
    recorder = Recorder(engine)
    known: dict[int, tuple[int | None, tuple[int, ...]]] = {}
    now_s = 0.0
    for size, answer, text, adapter, watched, together in requests:
        recorder.engine.submit(Sequence(prompt([text] * size), prompt([9] * answer), adapter=adapter, watched=watched), now_s)
        while not together and recorder.engine.due_s is not None:
            now_s = recorder.engine.due_s
            recorder.engine.advance(now_s)
    while recorder.engine.due_s is not None:
        recorder.engine.advance(recorder.engine.due_s)
    for event in (event for batch in recorder.batches for event in batch["events"]):
        if event["type"] == "BlockRemoved":
            for value in event["block_hashes"]:
                del known[value]
            continue
        parent = event["parent_block_hash"]
        assert parent is None or parent in known
        for index, value in enumerate(event["block_hashes"]):
            assert value not in known
            known[value] = (parent, tuple(event["token_ids"][4 * index : 4 * index + 4]))
            parent = value
    assert len(known) == recorder.engine.cached_blocks
