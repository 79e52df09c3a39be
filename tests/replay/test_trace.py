"""Reading traces: both formats, and what is said of lines that cannot be read."""

from __future__ import annotations

import gzip
from hashlib import shake_128
from typing import Any

import orjson
import pytest

from epp.replay.load import TraceError
from epp.replay.mooncake import TokenBlocks
from epp.replay.trace import MAX_PROBLEMS, read_trace
from epp.simulate.prompts import text_prompts
from tests.replay.building import chat_record, jsonl, stream, tokens_record, trace


def problems(data: bytes) -> list[str]:
    with pytest.raises(TraceError) as raised:
        read_trace(stream(data), "t", None)
    return raised.value.problems


def test_a_mooncake_trace() -> None:
    read = trace([tokens_record(0, [7, 8], 700, 5), {**tokens_record(1500, [7], 3), "turn": 2}])
    assert [(r.line, r.at_s, r.path, r.output_tokens) for r in read.requests] == [
        (1, 0.0, "/v1/completions", 5),
        (2, 1.5, "/v1/completions", 8),
    ]
    assert [r.content for r in read.requests] == [TokenBlocks(700, 5, (7, 8)), TokenBlocks(3, 8, (7,))]
    assert read.duration_s == 1.5


def test_equal_ids_are_equal_tokens_and_a_part_of_a_block_is_its_beginning() -> None:
    first, second, other = TokenBlocks(1024, 1, (5, 6)), TokenBlocks(513, 1, (5, 6)), TokenBlocks(512, 1, (6,))
    assert len(first.prompt()) == 4 * 1024
    assert second.prompt() == first.prompt()[: 4 * 513]
    assert other.prompt() == first.prompt()[4 * 512 :]
    assert other.prompt() != first.prompt()[: 4 * 512]


@pytest.mark.parametrize(("tokens", "hash_ids"), [(1024, (1, 2)), (700, (1, 2)), (1, (3,))])
def test_the_body_says_the_same_as_the_prompt(tokens: int, hash_ids: tuple[int, ...]) -> None:
    content = TokenBlocks(tokens, 9, hash_ids)
    body = orjson.loads(content.body('a "model"'))
    assert text_prompts(body.pop("prompt"), "prompt") == [content.prompt()]
    assert body == {"model": 'a "model"', "max_tokens": 9, "stream": True, "stream_options": {"include_usage": True}}


def test_tokens_are_the_same_in_every_process() -> None:
    """SHAKE-128 of the id's digits, as little-endian numbers of which 17 bits count."""
    data = shake_128(b"12345").digest(16)
    expected = [int.from_bytes(data[i : i + 4], "little") % 2**17 for i in range(0, 16, 4)]
    assert orjson.loads(TokenBlocks(4, 1, (12345,)).body("m"))["prompt"] == expected


def test_recorded_requests() -> None:
    read = trace(
        [
            chat_record(2.5, "b", headers={"X-Session": "s"}),
            {"time_s": 1, "path": "/v1/completions", "body": '{"prompt": "x"}', "output_tokens": 0},
        ]
    )
    first, second = read.requests
    assert (first.line, first.at_s, first.headers) == (2, 1.0, (("content-type", "application/json"),)), "sorted by time"
    assert first.content.body("m") == b'{"prompt": "x"}'
    assert second.headers == (("x-session", "s"), ("content-type", "application/json"))
    assert orjson.loads(second.content.body("ignored"))["model"] == "m"


def test_gzip_empty_lines_and_a_limit() -> None:
    lines = jsonl([tokens_record(i, [i]) for i in range(5)]).replace(b"\n", b"\n \n")
    read = read_trace(stream(gzip.compress(lines)), "t", 3)
    assert [request.line for request in read.requests] == [1, 3, 5]


GOOD = tokens_record(0, [1])


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (b"{", "no JSON: "),
        (b"[1]", "must be a JSON object, is [1]"),
        ({"timestamp": 1}, "unknown format: a Mooncake trace has timestamp, input_length"),
        ({**GOOD, "timestamp": "now"}, "timestamp must be a number, is 'now'"),
        ({**GOOD, "timestamp": True}, "timestamp must be a number, is True"),
        ({**GOOD, "input_length": 0}, "input_length must be a whole number from 1 to 100000000, is 0"),
        ({**GOOD, "output_length": 1.5}, "output_length must be a whole number from 0 to 100000000, is 1.5"),
        ({**GOOD, "output_length": 10**9}, "output_length must be a whole number from 0 to 100000000, is 1000000000"),
        ({**GOOD, "hash_ids": ["a"]}, "hash_ids must be a list of whole numbers, is ['a']"),
        ({**GOOD, "hash_ids": [1, 2]}, "hash_ids has 2 ids, but an input_length of 512 makes 1 blocks of 512"),
        ({k: v for k, v in GOOD.items() if k != "output_length"}, "output_length is missing"),
        ({**chat_record(0, "x"), "outputtokens": 3}, "there is no member 'outputtokens'; did you mean 'output_tokens'?"),
        ({**chat_record(0, "x"), "zzz": 3}, "there is no member 'zzz'; there are time_s, path, body, output_tokens, headers"),
        ({**chat_record(0, "x"), "path": "v1"}, "path must be a text that begins with /, is 'v1'"),
        ({**chat_record(0, "x"), "body": 3}, "body must be an object, or the body's text, is 3"),
        ({**chat_record(0, "x"), "headers": {"a": 1}}, "headers must be an object of texts, is {'a': 1}"),
        ({"path": "/v1", "body": {}}, "time_s is missing"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named(bad: Any, said: str) -> None:
    line = bad if isinstance(bad, bytes) else orjson.dumps(bad)
    (problem,) = problems(line + b"\n")
    assert problem.startswith(f"t, line 1: {said}")


def test_a_trace_keeps_its_format_and_every_bad_line_is_named_up_to_a_number() -> None:
    lines = [GOOD, chat_record(0, "x"), *[GOOD] * 2, *[{}] * 20]
    found = problems(jsonl(lines))
    assert found[:2] == ["t, line 2: timestamp is missing", "t, line 5: timestamp is missing"]
    assert len(found) == MAX_PROBLEMS


@pytest.mark.parametrize("data", [b"", b"\n\n"])
def test_a_trace_without_requests(data: bytes) -> None:
    assert problems(data) == ["t has no requests: write one JSON object in each line"]


@pytest.mark.parametrize("damage", [lambda d: d[:-12], lambda d: d[:20] + b"\xff\xff" + d[22:]], ids=["cut off", "changed"])
def test_damaged_compression(damage: Any) -> None:
    data = gzip.compress(jsonl([tokens_record(i, [i]) for i in range(200)]))
    (problem,) = problems(damage(data))
    assert "the compressed data is damaged or cut off" in problem
