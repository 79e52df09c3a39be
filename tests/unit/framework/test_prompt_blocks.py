"""Prompts of request bodies, and the hashes of their blocks; both twins."""

from __future__ import annotations

import struct
from collections.abc import Callable
from importlib.util import find_spec

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from epp.framework.canonical_prompt import Prompt, prompts_of
from epp.framework.prompt_blocks import NO_BLOCKS, body_blocks, content_hashes, pack, prompt_blocks, unpack
from tests.unit.framework.prompt_bodies import BODIES, USER, Body, text

Read = Callable[[bytes, int, int], bytes]
TWINS = [pytest.param(body_blocks, id="python")]
NATIVE: Read | None = None
if find_spec("epp_native") is not None:
    import epp_native

    if hasattr(epp_native, "prompt_blocks"):
        NATIVE = epp_native.prompt_blocks
        TWINS.append(pytest.param(NATIVE, id="native"))

each_twin = pytest.mark.parametrize("read", TWINS)
BLOCK = 4
"""Bytes, so that short texts have several blocks."""


@each_twin
@pytest.mark.parametrize("body", BODIES, ids=[body.name for body in BODIES])
def test_the_prompts_of_a_body(read: Read, body: Body) -> None:
    packed = read(body.text, BLOCK, 0)
    if body.prompts is None:
        assert packed == b""
        return
    template = xxh3_64_intdigest(orjson.dumps(body.template)) if body.template else 0
    assert packed == pack(template, body.prompts, BLOCK)
    assert list(prompts_of(orjson.loads(body.text))) == list(body.prompts), "hashes do not tell what differs"


@each_twin
@pytest.mark.parametrize(
    ("size", "cap", "blocks"), [(63, 0, 0), (64, 0, 1), (1000, 0, 15), (100_000, 256, 256), (100_000, 0, 1562)]
)
def test_only_whole_blocks_up_to_the_cap(read: Read, size: int, cap: int, blocks: int) -> None:
    """Cases 1, 4 and 5 of the specification."""
    [prompt] = unpack(read(orjson.dumps({"prompt": "a" * size}), 64, cap)).prompts
    assert (prompt.is_tokens, prompt.length, len(prompt.contents)) == (False, size, 8 * blocks)
    assert bytes(prompt.contents) == struct.pack("<Q", xxh3_64_intdigest(b"a" * 64)) * blocks


@each_twin
def test_the_cap_holds_for_each_prompt(read: Read) -> None:
    found = unpack(read(orjson.dumps({"prompt": ["a" * 20, [], "b" * 9][::2]}), BLOCK, 3))
    assert [(prompt.length, len(prompt.contents) // 8) for prompt in found.prompts] == [(20, 3), (9, 2)]


def test_a_conversation_that_grows_keeps_its_blocks() -> None:
    """Cases 9 and 11: nothing in front of a part depends on what follows."""
    [short] = prompts_of({"messages": [USER]})
    [longer] = prompts_of({"messages": [USER, {"role": "assistant", "content": "hello"}]})
    [extended] = prompts_of({"messages": [USER | {"content": "hi there"}]})
    assert longer.data.startswith(short.data)
    assert extended.data.startswith(short.data[:-1])


def test_what_json_cannot_hold_has_no_blocks() -> None:
    assert prompt_blocks({"prompt": "\ud83d"}, BLOCK) == b""
    deep: object = "x"
    for _ in range(2000):
        deep = [deep]
    assert prompt_blocks({"messages": [deep]}, BLOCK) == b""


def test_nothing_is_packed_as_nothing() -> None:
    assert unpack(b"") == NO_BLOCKS
    assert unpack(pack(0, [], BLOCK)) == NO_BLOCKS


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b[:20], lambda b: b[:5], lambda b: b + b"\0"])
def test_a_packed_form_of_the_wrong_length_is_refused(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ValueError, match="packed prompt blocks"):
        unpack(change(pack(0, [text("abcdefgh")], BLOCK)))


@given(st.integers(0, 2**64 - 1), st.lists(st.builds(Prompt, st.just(False), st.binary(max_size=50))), st.integers(1, 16))
def test_packing_is_reversible(template: int, prompts: list[Prompt], size: int) -> None:
    found = unpack(pack(template, prompts, size))
    assert found.template_hash == template
    assert [(p.is_tokens, p.length) for p in found.prompts] == [(p.is_tokens, p.length) for p in prompts]
    assert [bytes(p.contents) for p in found.prompts] == [content_hashes(p.data, size) for p in prompts]


_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=12)
)
_NAMES = st.sampled_from(
    ["role", "content", "type", "text", "tool_calls", "name", "image_url", "url", "source", "data", "file_id", "x"]
)
_TYPES = st.sampled_from(["text", "input_text", "image_url", "input_audio", "image", "file", "document", "other"])
_VALUES = st.recursive(
    _SCALARS | _TYPES | st.integers(0, 9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=12,
)
_MEMBERS = st.sampled_from(
    [
        "messages",
        "prompt",
        "input",
        "items",
        "text",
        "input_ids",
        "token_ids",
        "tools",
        "functions",
        "system",
        "instructions",
        "chat_template",
        "documents",
        "model",
    ]
)
DOCUMENTS = st.dictionaries(_MEMBERS, _VALUES | st.lists(st.integers(0, 2**33), max_size=5), max_size=6)


@given(DOCUMENTS, st.integers(1, 24), st.integers(0, 5))
def test_twins_agree(document: dict[str, object], block: int, cap: int) -> None:
    body = orjson.dumps(document)
    packed = body_blocks(body, block, cap)
    assert packed == prompt_blocks(document, block, cap), "JSON holds all of it"
    if NATIVE is not None:
        assert NATIVE(body, block, cap) == packed
