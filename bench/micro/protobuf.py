"""What reading gRPC bodies costs: generated classes, and the time that a reader in plain Python took.

``python -m bench.micro.protobuf`` prints medians in microseconds. The plain reader is kept here alone, as the measure.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

from epp.framework.protos.vllm_engine_pb2 import (
    GenerateRequest,
    GenerateResponse,
    GenerateStreamChunk,
    SamplingParams,
    TokenizedInput,
)


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        value, at = _varint(data, at)
        if tag & 7 == 2:
            yield tag >> 3, data[at : at + value]
            at += value
        else:
            yield tag >> 3, value


def _plain_request(data: bytes) -> tuple[list[int], bool]:
    ids: list[int] = []
    streams = False
    for number, value in _fields(memoryview(data)):
        if number == 2 and isinstance(value, memoryview):
            for _, packed in _fields(value):
                assert isinstance(packed, memoryview)
                at = 0
                while at < len(packed):
                    token, at = _varint(packed, at)
                    ids.append(token)
        elif number == 5:
            streams = bool(value)
    return ids, streams


def _generated_request(data: bytes) -> tuple[list[int], bool]:
    request = GenerateRequest.FromString(data)
    return list(request.tokenized.input_ids), request.stream


def _plain_usage(data: bytes) -> dict[int, int | memoryview]:
    ((_, part),) = _fields(memoryview(data))
    assert isinstance(part, memoryview)
    return dict(_fields(part))


def _generated_usage(data: bytes) -> tuple[int, int]:
    chunk = GenerateResponse.FromString(data).chunk
    return chunk.prompt_tokens, chunk.completion_tokens


def _median_us(call: Callable[[], object], calls: int) -> float:
    times = []
    for _ in range(9):
        begun = time.perf_counter()
        for _ in range(calls):
            call()
        times.append((time.perf_counter() - begun) / calls)
    return statistics.median(times) * 1e6


def main() -> None:
    """Print the table."""
    print(f"{'':28}{'generated':>12}{'plain':>12}")
    for count in (100, 1000, 100_000):
        ids = [index * 7919 % 150_000 for index in range(count)]
        data = GenerateRequest(
            tokenized=TokenizedInput(input_ids=ids), stream=True, sampling_params=SamplingParams(max_tokens=100)
        ).SerializeToString()
        assert _plain_request(data) == _generated_request(data)
        calls = max(1, 10_000 // count)
        generated, plain = (
            _median_us(lambda read=read, data=data: read(data), calls)  # type: ignore[misc]  # bound here
            for read in (_generated_request, _plain_request)
        )
        print(f"Generate, {count:>7} token ids {generated:>12.1f}{plain:>12.1f}")
    data = GenerateResponse(
        chunk=GenerateStreamChunk(prompt_tokens=1000, completion_tokens=17, cached_tokens=512)
    ).SerializeToString()
    generated, plain = _median_us(lambda: _generated_usage(data), 5000), _median_us(lambda: _plain_usage(data), 5000)
    print(f"{'usage of a response':28}{generated:>12.1f}{plain:>12.1f}")


if __name__ == "__main__":
    main()
