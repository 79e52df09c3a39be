"""The event scanner agrees with a naive reading of the whole body, however that is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.extproc.readers import Usage
from epp.extproc.sse import SseScanner
from tests.unit.extproc.heads import SSE, cut, every_cut, head, places
from tests.unit.extproc.twins import make_reader

DULL = b'"usage":null'


def naive(body: bytes, limit: int = 1 << 20) -> tuple[int, list[bytes]]:
    """Number of events and interesting data, from the whole body at once."""
    text = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    events, found = 0, []
    for block in _blocks(text.split(b"\n")):
        if sum(map(len, block)) > limit:
            events += 1
            continue
        data = b"\n".join(line[6:] if line[5:6] == b" " else line[5:] for line in block)
        if data.strip() == b"[DONE]":
            continue
        events += 1
        if b"usage" in data.replace(DULL, b""):
            found.append(data)
    return events, found


def _blocks(lines: list[bytes]) -> list[list[bytes]]:
    blocks: list[list[bytes]] = [[]]
    for line in lines:
        if not line:
            blocks.append([])
        elif line.startswith(b"data:"):
            blocks[-1].append(line)
    return [block for block in blocks if block]


def scan(chunks: list[bytes], limit: int = 1 << 20) -> tuple[int, list[bytes]]:
    """The same from the scanner."""
    scanner = SseScanner(b"usage", DULL, limit)
    found = [data for chunk in chunks for data in scanner.feed(chunk)]
    events, unfinished = scanner.snapshot()
    return events, [*found, unfinished] if unfinished else found


TOKEN = b'data: {"choices":[{"delta":{"content":"hi"}}],"usage":null}\n\n'
USAGE = b'data: {"usage":{"prompt_tokens":1}}\n\n'
NAMED = b'event: content_block_delta\ndata: {"type":"content_block_delta"}\n\n'


@pytest.mark.parametrize(
    ("body", "events", "found"),
    [
        pytest.param(b"", 0, 0, id="nothing"),
        pytest.param(TOKEN, 1, 0, id="one event in one chunk"),
        pytest.param(TOKEN * 3, 3, 0, id="three events in one chunk"),
        pytest.param(TOKEN + USAGE + b"data: [DONE]\n\n", 2, 1, id="token, usage, done"),
        pytest.param(NAMED, 1, 0, id="named event"),
        pytest.param(NAMED * 2, 2, 0, id="two named events"),
        pytest.param(b"data:[DONE]\n\n", 0, 0, id="done without blank"),
        pytest.param(b'data: {"content":"[DONE]"}\n\n', 1, 0, id="done inside a string"),
        pytest.param(b"data:x\r\ndata:usage\r\n\r\n", 1, 1, id="two data lines are one event, CRLF"),
        pytest.param(b"data: x\rdata: usage\r\r", 1, 1, id="lone CR"),
        pytest.param(b"data: x\r\r\ndata: y\r\r\n", 2, 0, id="CR and CRLF"),
        pytest.param(b"data: x\r\rdata: y\n\n", 2, 0, id="CR within, LF at the end"),
        pytest.param(b": ping usage\nid: 1\nretry: 5\n\n", 0, 0, id="comments and other fields"),
        pytest.param(b"data: x\n\n\n\ndata: y\n\n", 2, 0, id="more blank lines than needed"),
        pytest.param(b"event: a\ndata: x\ndata: y\n\nevent: b\n\n", 1, 0, id="event without data"),
        pytest.param(b"data: a\n\ndata: usage", 2, 1, id="cut last line"),
        pytest.param(b"data: a\n\ndat", 1, 0, id="cut field name"),
        pytest.param(b'data: "usage":null,"usage":{}\n\n', 1, 1, id="null and an object"),
        pytest.param(b"metadata: x\n\n", 0, 0, id="a field that ends in data"),
    ],
)
def test_any_cut_gives_the_same_events(body: bytes, events: int, found: int) -> None:
    expected = naive(body)
    assert (expected[0], len(expected[1])) == (events, found)
    for chunks in every_cut(body):
        assert scan(chunks) == expected


PIECES = [
    b"data: ",
    b"data:",
    b"data",
    b"\n",
    b"\n\n",
    b"\r",
    b"\r\n",
    b"event: e",
    b": c",
    b"usage",
    DULL,
    b"[DONE]",
    b" ",
    b"x",
    TOKEN,
    NAMED,
]
bodies = st.lists(st.sampled_from(PIECES), max_size=20).map(b"".join)


@given(bodies, places)
def test_equals_the_naive_reading(body: bytes, where: list[int]) -> None:
    assert scan(cut(body, where)) == naive(body)


@given(bodies, places)
def test_both_scanners_see_the_same_events(body: bytes, where: list[int]) -> None:
    """The native one is within the usage reader, which is compared with its twin after each piece."""
    reader = make_reader("openai-usage", head(SSE))
    for chunk in cut(body, where):
        reader.feed(chunk)
        reader.result()
    usage = reader.result()
    assert isinstance(usage, Usage)
    assert usage.events == naive(body)[0]


@given(bodies, places)
def test_a_limit_makes_no_difference_between_cuts(body: bytes, where: list[int]) -> None:
    assert scan(cut(body, where), limit=12) == naive(body, limit=12)


@given(bodies, places)
def test_the_state_after_each_chunk_is_that_of_a_body_that_ends_there(body: bytes, where: list[int]) -> None:
    scanner = SseScanner(b"usage", DULL)
    seen = b""
    for chunk in cut(body, where):
        scanner.feed(chunk)
        seen += chunk
        events, unfinished = scanner.snapshot()
        expected_events, expected = naive(seen)
        assert events == expected_events
        assert not unfinished or expected[-1:] == [unfinished]


@pytest.mark.parametrize("limit", [21, 22])
def test_the_limit_holds_for_all_lines_of_an_event(limit: int) -> None:
    body = b"data: usage\ndata: usage"
    for chunks in every_cut(body):
        assert scan(chunks, limit) == naive(body, limit)


def test_an_endless_line_takes_no_memory() -> None:
    scanner = SseScanner(b"usage", DULL, 1000)
    for _ in range(100):
        scanner.feed(b"data: " + b"usage" * 100)
        assert len(scanner._carry) <= 1000
    assert scanner.snapshot() == (1, b"")
    assert scanner.feed(b"\n\n" + USAGE) == [USAGE[6:-2]]
    assert scanner.snapshot() == (2, b"")


def test_an_endless_comment_takes_no_memory_and_hides_nothing() -> None:
    scanner = SseScanner(b"usage", DULL, 1000)
    for _ in range(100):
        scanner.feed(b":" + b"usage" * 100)
        assert len(scanner._carry) <= 1000
    assert scanner.feed(b"\n" + USAGE) == [USAGE[6:-2]]
    assert scanner.snapshot() == (1, b"")
