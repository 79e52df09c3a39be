"""Keys of prefixes; both twins."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from epp.framework import prompt_blocks
from epp.framework.canonical_prompt import Prompt, token_bytes
from plugins.prefix import keys
from plugins.prefix.keys import seed
from tests.unit.plugins.prefix.packed import CHAINS, CONTENT_HASHES, NATIVE, pack, unpack

Chain = Callable[[int, bytes], bytes]
Hashes = Callable[[bytes, int, int], bytes]
each_chain = pytest.mark.parametrize("chain", CHAINS)
each_hashes = pytest.mark.parametrize("hashes", CONTENT_HASHES)

A_BLOCKS = [3305025233846988428, 3305025233846988428]
"""Contents of 130 times ``a`` in blocks of 64 bytes: twice the same block, and two bytes that are none."""
M_1, M_2 = 166960644848245362, 8431200881536828625
T_1, T_2 = 10206925572647090950, 1429180111300406963
TOKEN_KEYS = [12444283658290689846, 34311551674094811, 15367817194222936542]


@pytest.mark.parametrize(
    ("model", "salt", "value"),
    [("m", "", 7423791507670902645), ("ab", "c", 7881155913711968751), ("a", "bc", 6382347316900652626)],
)
def test_prefix_13_seeds(model: str, salt: str, value: int) -> None:
    """Seeds of the specification; case 7: model and salt never run into each other."""
    assert seed(model, salt) == value


def test_whatever_changes_the_whole_prompt_changes_the_seed() -> None:
    """Cases 6, 7, 8 and 31: salt, model, adapter and basis."""
    seeds = [
        seed("m"),
        seed("m", "s"),
        seed("x"),
        seed("m", is_tokens=True),
        seed("m", template_hash=1),
        seed("m", is_tokens=True, template_hash=1),
        seed("m", "\ud83d"),
    ]
    assert len(set(seeds)) == len(seeds)


@each_hashes
def test_contents_of_blocks(hashes: Hashes) -> None:
    assert unpack(hashes(b"a" * 130, 64, 0)) == A_BLOCKS


@each_hashes
@pytest.mark.parametrize(("size", "cap", "count"), [(0, 0, 0), (3, 0, 0), (4, 0, 1), (15, 0, 3), (15, 2, 2), (15, 9, 3)])
def test_whole_blocks_up_to_the_cap(hashes: Hashes, size: int, cap: int, count: int) -> None:
    data = bytes(range(size))
    assert unpack(hashes(data, 4, cap)) == [xxh3_64_intdigest(data[at : at + 4]) for at in range(0, 4 * count, 4)]


@each_chain
def test_prefix_13_keys(chain: Chain) -> None:
    """The contents of blocks are hashed before the model is known, so these are not the values of the specification."""
    assert unpack(chain(seed("m"), pack(*A_BLOCKS))) == [M_1, M_2]
    assert unpack(chain(seed("m", "t"), pack(*A_BLOCKS))) == [T_1, T_2]
    tokens = keys.content_hashes(token_bytes(range(1, 49)), 64)
    assert unpack(chain(seed("m", is_tokens=True), tokens)) == TOKEN_KEYS


@each_chain
def test_a_key_is_of_all_blocks_so_far(chain: Chain) -> None:
    first, second = unpack(chain(1, pack(5, 5)))
    assert first != second
    assert unpack(chain(1, pack(5))) == [first]
    assert unpack(chain(first, pack(5))) == [second]
    assert unpack(chain(2, pack(5, 5)))[1] != second
    assert chain(1, b"") == b""


def test_prefix_13_other_processes_have_the_same_keys() -> None:
    code = "from plugins.prefix.keys import *; print(chain(seed('m', 't'), content_hashes(b'a' * 130, 64)).hex())"
    printed = {
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True, env={"PYTHONHASHSEED": hash_seed}
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert printed == {pack(T_1, T_2).hex() + "\n"}


@given(st.integers(0, 2**64 - 1), st.binary(max_size=300), st.integers(1, 70), st.integers(0, 6))
def test_twins_agree(start: int, data: bytes, block: int, cap: int) -> None:
    contents = keys.content_hashes(data, block, cap)
    chained = keys.chain(start, contents)
    assert len(chained) == len(contents) == 8 * min(len(data) // block, cap or len(data))
    if NATIVE is not None:
        assert NATIVE.content_hashes(data, block, cap) == contents
        assert NATIVE.chain(start, contents) == chained
        for stride in (2, 3, 7):
            assert NATIVE.chain(start, contents, stride) == keys.chain(start, contents, stride)


@given(st.integers(0, 2**64 - 1), st.lists(st.integers(0, 3), max_size=30), st.integers(1, 8))
def test_a_block_has_the_key_of_its_last_unit(start: int, contents: list[int], stride: int) -> None:
    units = unpack(keys.chain(start, pack(*contents)))
    assert unpack(keys.chain(start, pack(*contents), stride)) == units[stride - 1 :: stride]


_PROMPTS = st.lists(
    st.builds(
        lambda size, is_tokens: Prompt(is_tokens, bytes(range(4 * size if is_tokens else size))),
        st.integers(0, 60),
        st.booleans(),
    ),
    max_size=4,
)


@given(_PROMPTS, st.sampled_from([0, 9]), st.integers(1, 9), st.integers(0, 9), st.integers(1, 4), st.integers(0, 9))
def test_packed_prompts(prompts: list[Prompt], template: int, unit: int, read_units: int, stride: int, cap: int) -> None:
    """The same keys as of the prompts themselves, or none where too little of them was hashed; both twins."""
    packed = prompt_blocks.pack(template, prompts, unit, read_units)
    found = keys.packed_keys(packed, b"m", b"s", unit, stride, cap)
    if NATIVE is not None:
        assert NATIVE.packed_keys(packed, b"m", b"s", unit, stride, cap) == found
    expected, is_enough = [], True
    for prompt in prompts:
        blocks = min(len(prompt.data) // unit // stride, cap or 1000)
        is_enough = is_enough and (not read_units or blocks * stride <= read_units)
        contents = keys.content_hashes(prompt.data, unit, blocks * stride) if blocks else b""
        start = seed("m", "s", is_tokens=prompt.is_tokens, template_hash=template)
        expected += [keys.chain(start, contents, stride)] if blocks else []
    assert found == (tuple(expected) if is_enough else None)


@pytest.mark.parametrize("change", [lambda packed: packed[:-1], lambda packed: packed + b"x"], ids=["cut off", "goes on"])
@pytest.mark.parametrize("twin", [keys, NATIVE] if NATIVE is not None else [keys])
def test_what_is_no_packed_form(twin: Any, change: Callable[[bytes], bytes]) -> None:
    packed = prompt_blocks.pack(0, [Prompt(False, b"abcd")], 2)
    assert twin.packed_keys(b"", b"m", b"", 2, 1, 0) == ()
    with pytest.raises(ValueError, match="packed prompt blocks"):
        twin.packed_keys(change(packed), b"m", b"", 2, 1, 0)
