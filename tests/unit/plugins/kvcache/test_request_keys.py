"""Keys of blocks: the values that Go pickers have in a shared index, and what any chain must hold."""

from __future__ import annotations

import struct
from typing import Any

import pytest
import xxhash
from cbor2 import dumps

from epp.framework.keys import MediaFeature
from plugins.kvcache.features import of_prompt, spread
from plugins.kvcache.request_keys import CborFnvChain, FastChain, KeyChain, Xxh64Chain, token_bytes

T = token_bytes(range(1, 49))
SALT = [("tenant-a",)]
IMAGE = [(), ("imgA",), ("imgA",)]

GO: list[Any] = [
    pytest.param(CborFnvChain(), "m", SALT, [13281421825867335169, 10746999470973172440, 2312382457326147784], id="fnv salt"),
    pytest.param(CborFnvChain(), "m", IMAGE, [18216873062712665045, 1859916867384646888, 5075362745221095100], id="fnv image"),
    pytest.param(
        CborFnvChain("12345"), "m", (), [7813090164863015492, 13288013885980567660, 7840426594601780008], id="fnv seed"
    ),
    pytest.param(
        *(CborFnvChain(), "meta-llama/Llama-3.2-1B-Instruct", ()),
        [7645641522452721486, 9467227630290849756, 17459967644837659606],
        id="fnv model",
    ),
    pytest.param(Xxh64Chain(), "m", (), [15354003621751916615, 17069895277783068821, 12567568463289313465], id="xxh64"),
    pytest.param(
        Xxh64Chain("12345"), "m", (), [15674599934722367146, 15835735509137309566, 7082229716908715938], id="xxh64 seed"
    ),
    pytest.param(Xxh64Chain(), "m", SALT, [7999908327323246832, 17857158010213802122, 14129888079349768044], id="xxh64 salt"),
]
CHAINS: list[KeyChain] = [FastChain(), CborFnvChain(), Xxh64Chain()]
each_chain = pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: type(chain).__name__)


@pytest.mark.parametrize(("chain", "model", "features", "expected"), GO)
def test_the_keys_of_go_pickers(chain: KeyChain, model: str, features: Any, expected: list[int]) -> None:
    assert chain.extend(chain.seed(model), T, 16, features) == expected


def test_how_go_pickers_encode() -> None:
    assert CborFnvChain().seed("m") == 11374735546233341228
    assert dumps([0xCBF29CE484222325, None, "m"], canonical=True).hex() == "831bcbf29ce484222325f6616d"
    assert dumps([1, [1, 2], [{"Hash": "imgA"}]], canonical=True).hex() == "830182010281a1644861736864696d6741"
    chain = CborFnvChain()
    assert chain.extend(chain.seed("m"), token_bytes(range(1, 17)), 8) == [3556222695259344277, 3413529535575050574]


def test_the_fast_chain_is_one_hash_a_block() -> None:
    seed = FastChain("s").seed("m")
    assert seed == xxhash.xxh3_64_intdigest(b"\x01\0\0\0s" + b"\x01\0\0\0m")
    first, second = FastChain("s").extend(seed, T, 16, [(), ("imgA",)])[:2]
    assert first == xxhash.xxh3_64_intdigest(T[:64], seed)
    assert second == xxhash.xxh3_64_intdigest(T[64:128] + b"\x04\0\0\0imgA", first)


@each_chain
def test_a_chain_goes_on_behind_any_key(chain: KeyChain) -> None:
    seed = chain.seed("m")
    keys = chain.extend(seed, T, 16)
    assert chain.extend(keys[0], T[64:], 16) == keys[1:]
    assert chain.extend(seed, T[:-1], 16) == keys[:2], "only whole blocks"
    assert chain.extend(seed, b"", 16) == []


@each_chain
def test_what_differs_has_another_key(chain: KeyChain) -> None:
    def first(identity: str, tokens: bytes = T, features: Any = ()) -> int:
        return chain.extend(chain.seed(identity), tokens, 16, features)[0]

    keys = [
        first("m"),
        first("n"),
        first("m", T[4:]),
        first("m", T, [("a",)]),
        first("m", T, [("a", "b")]),
        first("m", T, [("ab",)]),
    ]
    assert len(set(keys)) == len(keys)
    assert chain.seed("ab") != type(chain)("a").seed("b")


def test_tokens_are_little_endian_words() -> None:
    assert token_bytes([1, 0xFFFFFFFF]) == struct.pack("<II", 1, 0xFFFFFFFF)
    with pytest.raises(OverflowError):
        token_bytes([1 << 32])


def media(offset: int, length: int, digest: str = "img") -> MediaFeature:
    return MediaFeature("image", digest, offset, length)


FEATURES: list[Any] = [
    pytest.param([], "", 4, 4, [], id="none"),
    pytest.param([], "s", 4, 4, [("s",)], id="salt"),
    pytest.param([media(4, 8)], "", 4, 4, [(), ("img",), ("img",)], id="the second and the third block"),
    pytest.param([media(5, 1)], "s", 4, 4, [("s",), ("img",)], id="inside a block"),
    pytest.param([media(2, 1)], "s", 4, 4, [("img", "s")], id="the salt is last"),
    pytest.param([media(6, 1, "b"), media(5, 1, "a")], "", 4, 4, [(), ("a", "b")], id="by offset"),
    pytest.param([media(4, 1)], "s", 8, 4, [("img", "s"), ("img", "s")], id="the engine's blocks are larger"),
    pytest.param([media(3, 3)], "s", 2, 4, [("s", "img"), ("img",)], id="the engine's blocks are smaller"),
    pytest.param([media(100, 3)], "", 4, 4, [], id="behind the end"),
]


@pytest.mark.parametrize(("items", "salt", "engine_block", "block", "expected"), FEATURES)
def test_features_of_a_prompt(items: Any, salt: str, engine_block: int, block: int, expected: Any) -> None:
    found = of_prompt(items, salt, engine_block, block, 3)
    while found and not found[-1]:
        found.pop()
    assert found == expected


def test_features_of_an_events_blocks_behind_a_rest() -> None:
    assert spread([("b",), ("c",)], 16, 32, 1, 16, ("a",)) == [("a", "b")]
    assert spread([("b",), ("c",)], 24, 16, 3) == [("b",), ("b", "c"), ("c",)]
