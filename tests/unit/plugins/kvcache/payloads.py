"""Payloads as engines publish them: recorded ones, and builders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

AT_S = 1700000000.5
SAMPLES: dict[str, bytes] = {
    # oldest vLLM: 2-element batch, 2 blocks, tokens 1..32
    "A": bytes.fromhex(
        "92cb41d954fc402000009196ab426c6f636b53746f72656492cf6e479ed4e70b3bf0cfa88e866b4494fa84c0dc00200102030405060708"
        "090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2010c0"
    ),
    # child of A's second block, tokens 33..48, medium, rank 0
    "B": bytes.fromhex(
        "93cb41d954fc402000009197ab426c6f636b53746f72656491cfa9640fd6f14c5a75cfa88e866b4494fa84dc0010212223242526272829"
        "2a2b2c2d2e2f3010c0a347505500"
    ),
    # LoRA id 7, name adapter-1, extra_keys
    "C": bytes.fromhex(
        "93cb41d954fc402000009199ab426c6f636b53746f726564910bc094010203040407a3475055a9616461707465722d319191a961646170"
        "7465722d3100"
    ),
    # 3 blocks of 4: salt; image string; image tuple; rank 1
    "D": bytes.fromhex(
        "93cb41d954fc402000009199ab426c6f636b53746f72656493151617c09c0102030405060708090a0b0c04c0a3475055c09391a874656e"
        "616e742d6191a4696d67419192a4696d6741fe01"
    ),
    # two groups: 0 full attention, 1 sliding window 128
    "E": bytes.fromhex(
        "93cb41d954fc40200000929bab426c6f636b53746f726564911fc0940102030404c0a3475055c091c000ae66756c6c5f617474656e7469"
        "6f6e9cab426c6f636b53746f7265649120c0940102030404c0a3475055c091c001ae736c6964696e675f77696e646f77cc8000"
    ),
    # remove A's first hash; remove 31 in group 0; clear
    "F": bytes.fromhex(
        "93cb41d954fc402000009393ac426c6f636b52656d6f76656491cf6e479ed4e70b3bf0a347505594ac426c6f636b52656d6f766564911f"
        "a34750550091b0416c6c426c6f636b73436c656172656400"
    ),
    # map-encoded stored, removed, cleared
    "G": bytes.fromhex(
        "93cb41d954fc40200000938ba474797065ab426c6f636b53746f726564ac626c6f636b5f68617368657391cf6e479ed4e70b3bf0b17061"
        "72656e745f626c6f636b5f68617368c0a9746f6b656e5f696473dc00100102030405060708090a0b0c0d0e0f10aa626c6f636b5f73697a"
        "6510a76c6f72615f6964c0a66d656469756da3475055a96c6f72615f6e616d65c0aa65787472615f6b65797391c0a967726f75705f6964"
        "7800b26b765f63616368655f737065635f6b696e64ae66756c6c5f617474656e74696f6e84a474797065ac426c6f636b52656d6f766564"
        "ac626c6f636b5f68617368657391cf6e479ed4e70b3bf0a66d656469756da3475055a967726f75705f6964780081a474797065b0416c6c"
        "426c6f636b73436c656172656400"
    ),
    # 32-byte digest as hash
    "H": bytes.fromhex(
        "93cb41d954fc402000009198ab426c6f636b53746f72656491c420ee6f104e27ab3dee1e8977187646e8f67100bb8f2f1f27ce6e479ed4"
        "e70b3bf0c0dc00100102030405060708090a0b0c0d0e0f1010c0a3475055c000"
    ),
    # CPU offload store (no tokens, digest), then GPU remove of the same block
    "J": bytes.fromhex(
        "93cb41d954fc402000009298ab426c6f636b53746f72656491c420ee6f104e27ab3dee1e8977187646e8f67100bb8f2f1f27ce6e479ed4"
        "e70b3bf0c09000c0a3435055c093ac426c6f636b52656d6f76656491cf6e479ed4e70b3bf0a347505500"
    ),
    # SGLang, signed hashes, GPU then CPU_PINNED child, rank nil
    "K": bytes.fromhex(
        "93cb41d954fc402000009297ab426c6f636b53746f72656491d3f3e0813c89d0991fc0940506070804c0a347505597ab426c6f636b5374"
        "6f72656491d38b02ac8104b6f59ed3f3e0813c89d0991f94090a0b0c04c0aa4350555f50494e4e4544c0"
    ),
    # unknown tag, then a good store (hash 41)
    "L": bytes.fromhex(
        "93cb41d954fc402000009292b143616368654c6576656c557064617465640197ab426c6f636b53746f7265649129c0940102030404c0a347505500"
    ),
    # unknown parent 999
    "M": bytes.fromhex("93cb41d954fc402000009197ab426c6f636b53746f7265649134cd03e7940506070804c0a347505500"),
    # batch as map, rank 3, clear
    "N": bytes.fromhex(
        "83a27473cb41d954fc40200000a66576656e74739181a474797065b0416c6c426c6f636b73436c6561726564b2646174615f706172616c"
        "6c656c5f72616e6b03"
    ),
    # 3 tokens, block size 4
    "P": bytes.fromhex("93cb41d954fc402000009197ab426c6f636b53746f726564913dc09301020304c0a347505500"),
    # store with 4 elements (hash 1), then a good store (hash 2)
    "Q": bytes.fromhex(
        "93cb41d954fc402000009294ab426c6f636b53746f7265649101c0940102030497ab426c6f636b53746f7265649102c0940102030404c0"
        "a347505500"
    ),
    # group index −1
    "R": bytes.fromhex(
        "93cb41d954fc40200000919bab426c6f636b53746f7265649103c0940102030404c0a3475055c091c0ffae66756c6c5f617474656e74696f6e00"
    ),
    # parent 0, medium nil, rank nil
    "U": bytes.fromhex("93cb41d954fc402000009197ab426c6f636b53746f726564910400940102030404c0c0c0"),
    # LoRA adapter-1 and salt adapter-1, 2 blocks of 4
    "V": bytes.fromhex(
        "93cb41d954fc402000009199ab426c6f636b53746f726564924748c098010203040506070804c0a3475055a9616461707465722d319292"
        "a9616461707465722d31a9616461707465722d3191a9616461707465722d3100"
    ),
    # prompt-embedding bytes in block 1
    "W": bytes.fromhex(
        "93cb41d954fc402000009199ab426c6f636b53746f726564925152c098010203040506070804c0a3475055c092c091c420010101010101"
        "010101010101010101010101010101010101010101010101010100"
    ),
    # engine block 32, tokens 1..32
    "X": bytes.fromhex(
        "93cb41d954fc402000009197ab426c6f636b53746f726564915bc0dc00200102030405060708090a0b0c0d0e0f10111213141516171819"
        "1a1b1c1d1e1f2020c0a347505500"
    ),
    # group index 0 without kind
    "Y": bytes.fromhex("93cb41d954fc40200000919aab426c6f636b53746f7265649105c0940102030404c0a3475055c0c00000"),
}


def stored(
    hashes: Sequence[Any], tokens: Sequence[int], *, parent: Any = None, block: int = 4, medium: Any = "GPU", **more: Any
) -> list[Any]:
    """A BlockStored event with as many fields as needed; further ones by name."""
    names = ["lora_name", "extra_keys", "group", "kind"]
    fields = [None, medium, *(more.get(name) for name in names)]
    return ["BlockStored", list(hashes), parent, list(tokens), block, *fields[: 2 + len(names) if more else 2]]


def removed(hashes: Sequence[Any], medium: Any = "GPU", *more: Any) -> list[Any]:
    """A BlockRemoved event."""
    return ["BlockRemoved", list(hashes), medium, *more]


CLEARED = ["AllBlocksCleared"]


def payload(*events: Any, rank: int | None = None) -> bytes:
    """A batch."""
    return msgspec.msgpack.encode([AT_S, list(events), rank])
