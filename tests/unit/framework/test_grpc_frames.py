"""gRPC frames in bodies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.framework.grpc_frames import FrameError, FrameReader, single_message
from tests.unit.extproc.heads import cut, places
from tests.unit.protobuf import frame


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(b"", "cut off", id="empty"),
        pytest.param(b"\0\0\0\0", "cut off", id="half a prefix"),
        pytest.param(frame(b"abc", flag=1), "compressed", id="compressed"),
        pytest.param(frame(b"abc")[:-1], "announces 3 bytes and has 2", id="too short"),
        pytest.param(frame(b"a") + frame(b"b"), "announces 1 bytes and has 7", id="two messages"),
    ],
)
def test_what_is_no_single_message(body: bytes, words: str) -> None:
    with pytest.raises(FrameError, match=words):
        single_message(memoryview(body))


@pytest.mark.parametrize("message", [b"", b"abc"])
def test_a_single_message(message: bytes) -> None:
    assert bytes(single_message(memoryview(frame(message)))) == message


MESSAGES = st.lists(st.tuples(st.binary(max_size=12), st.integers(0, 1)), max_size=6)


@given(messages=MESSAGES, where=places, limit=st.integers(0, 14))
def test_frames_however_they_are_cut(messages: list[tuple[bytes, int]], where: list[int], limit: int) -> None:
    body = b"".join(frame(message, flag=flag) for message, flag in messages)
    reader = FrameReader(limit)
    found = [message for piece in cut(body, where) for message in reader.feed(piece)]
    assert found == [message for message, flag in messages if not flag and len(message) <= limit]


def test_what_is_no_frame_is_passed_over_without_being_kept() -> None:
    reader = FrameReader()
    for _ in range(100):
        assert list(reader.feed(b"no healthy upstream" * 1000)) == []
    assert len(reader._buffer) <= 1024 * 1024
