"""gRPC frames and protobuf fields."""

from __future__ import annotations

import pytest
from google.protobuf import struct_pb2, wrappers_pb2
from hypothesis import given
from hypothesis import strategies as st

from epp.framework.grpc_wire import FrameReader, WireError, fields, packed_uint32, single_message
from tests.unit.extproc.heads import cut, places
from tests.unit.protobuf import field, frame, packed


def read(message: bytes) -> list[tuple[int, int | bytes]]:
    return [(number, bytes(v) if isinstance(v, memoryview) else v) for number, v in fields(memoryview(message))]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        pytest.param(b"", [], id="empty"),
        pytest.param(field(1, 0) + field(2, 300), [(1, 0), (2, 300)], id="numbers"),
        pytest.param(field(3, "text") + field(3, b""), [(3, b"text"), (3, b"")], id="texts"),
        pytest.param(field(1000, 2**64 - 1), [(1000, 2**64 - 1)], id="large numbers"),
        pytest.param(b"\x0d\x01\x00\x00\x00", [(1, 1)], id="fixed32"),
        pytest.param(b"\x09\x02" + bytes(7), [(1, 2)], id="fixed64"),
    ],
)
def test_fields(message: bytes, expected: list[tuple[int, int | bytes]]) -> None:
    assert read(message) == expected


@pytest.mark.parametrize(
    ("message", "words"),
    [
        pytest.param(b"\x08", "cut off", id="no value"),
        pytest.param(b"\x80", "cut off", id="half a tag"),
        pytest.param(b"\x08" + b"\xff" * 11, "too long", id="a number of 11 bytes"),
        pytest.param(field(1, "text")[:-1], "field 1 is cut off", id="half a text"),
        pytest.param(b"\x0d\x01", "field 1 is cut off", id="half a fixed32"),
        pytest.param(b"\x00\x01", "number 0", id="field 0"),
        pytest.param(b"\x0b", "wire type 3", id="a group"),
    ],
)
def test_what_is_no_message(message: bytes, words: str) -> None:
    with pytest.raises(WireError, match=words):
        read(message)


@given(text=st.text(max_size=30), number=st.floats(allow_nan=False), flag=st.booleans())
def test_it_reads_what_protobuf_writes(text: str, number: float, flag: bool) -> None:
    message = struct_pb2.Struct(
        fields={
            "t": struct_pb2.Value(string_value=text),
            "n": struct_pb2.Value(number_value=number),
            "b": struct_pb2.Value(bool_value=flag),
        }
    )
    found = {}
    for _, entry in fields(memoryview(message.SerializeToString())):
        assert isinstance(entry, memoryview)
        key, value = (part for _, part in fields(entry))
        assert isinstance(key, memoryview)
        assert isinstance(value, memoryview)
        ((found[str(key, "utf-8")], _),) = fields(value)
    assert found == {"t": 3, "n": 2, "b": 4}


@given(st.integers(0, 2**64 - 1))
def test_numbers(number: int) -> None:
    assert read(wrappers_pb2.UInt64Value(value=number).SerializeToString()) == ([(1, number)] if number else [])
    assert read(field(1, number)) == [(1, number)]


@given(st.lists(st.integers(0, 2**32 - 1)))
def test_packed_numbers(numbers: list[int]) -> None:
    assert packed_uint32(memoryview(packed(*numbers))) == numbers


def test_packed_numbers_are_cut_to_32_bits() -> None:
    assert packed_uint32(memoryview(packed(2**32 + 5))) == [5]


def test_a_number_in_a_packed_list_has_at_most_ten_bytes() -> None:
    assert packed_uint32(memoryview(b"\xff" * 9 + b"\x01")) == [2**32 - 1]
    with pytest.raises(WireError, match="too long"):
        packed_uint32(memoryview(b"\xff" * 1_000_000 + b"\x01"))


def test_a_packed_list_that_is_cut_off() -> None:
    with pytest.raises(WireError, match="cut off"):
        packed_uint32(memoryview(packed(1, 300)[:-1]))


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
    with pytest.raises(WireError, match=words):
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
