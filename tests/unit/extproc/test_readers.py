"""The table of readers, and the bounded copy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.extproc.readers import MAX_COPY_BYTES, READERS, BodyCopy, CopyReader
from tests.unit.extproc.heads import cut, head, places
from tests.unit.extproc.twins import make_reader


def test_names() -> None:
    assert sorted(READERS) == [
        "anthropic-usage",
        "copy",
        "openai-response",
        "openai-usage",
        "sglang-usage",
        "vertexai-usage",
        "vllm-grpc-embed-usage",
        "vllm-grpc-usage",
    ]


@pytest.mark.parametrize("name", sorted(READERS))
def test_every_reader_has_a_result_before_the_first_chunk_and_after_an_empty_one(name: str) -> None:
    reader = make_reader(name, head())
    before = reader.result()
    reader.feed(b"")
    assert reader.result() == before


@given(body=st.binary(max_size=60), where=places, limit=st.integers(0, 70))
def test_copy_is_the_beginning_of_the_body(body: bytes, where: list[int], limit: int) -> None:
    reader = CopyReader(limit)
    seen = b""
    for chunk in cut(body, where):
        reader.feed(chunk)
        seen += chunk
        assert reader.result() == BodyCopy(seen[:limit], len(seen) > limit)


def test_copy_is_bounded() -> None:
    reader = make_reader("copy", head())
    for _ in range(20):
        reader.feed(b"x" * 62_000)
    assert reader.result() == BodyCopy(b"x" * MAX_COPY_BYTES, truncated=True)
