"""What a response costs on its way: the usage readers and the renamer, per chunk.

Run: ``python -m bench.micro.readers``. The first line is the speed of the machine (see ``bench.calibration``).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from types import MappingProxyType
from typing import NamedTuple

from bench.calibration import calibrate
from epp.extproc.readers import READERS, make_renamer
from epp.request.rewrite import model_splices
from epp.seam import Metadata, Rename

_RUNS = 15
_SSE = "text/event-stream"
_MODEL = "meta-llama/Llama-3.1-8B-Instruct"


class _Headers:
    def __init__(self, content_type: str) -> None:
        self._content_type = content_type

    def get(self, name: str) -> str | None:
        return self._content_type if name == "content-type" else None

    def items(self) -> Iterator[tuple[str, str]]:
        yield "content-type", self._content_type


class _Head(NamedTuple):
    headers: _Headers
    status: int = 200
    metadata: Metadata = MappingProxyType({})
    at_s: float = 0.0


def main() -> None:
    """Print one line for each case: microseconds per chunk, the best of several runs."""
    print(f"calibration: {calibrate():.1f} ns per step of a Python loop")
    print(f"{'case':<44}{'bytes':>9}{'us/chunk':>10}")
    for name, chunk, run in _cases():
        chunks = [chunk] * (1000 if len(chunk) < 10_000 else 20)
        best = min(_timed(run, chunks) for _ in range(_RUNS)) / len(chunks)
        print(f"{name:<44}{len(chunk):>9}{best * 1e6:>10.2f}")


def _cases() -> Iterator[tuple[str, bytes, Callable[[Sequence[bytes]], object]]]:
    token = _event({"choices": [{"delta": {"content": " word"}, "index": 0}]})
    usage = _event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 10, "total_tokens": 17}})
    null = token.replace(b"}\n\n", b',"usage":null}\n\n')
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " word"}}
    named = b"event: content_block_delta\ndata: " + json.dumps(delta).encode() + b"\n\n"
    yield "openai-usage, one token event", token, _feed("openai-usage", _SSE)
    yield "openai-usage, ten token events", token * 10, _feed("openai-usage", _SSE)
    yield "openai-usage, token event, usage null", null, _feed("openai-usage", _SSE)
    yield "openai-usage, usage in every event", usage, _feed("openai-usage", _SSE)
    yield "openai-usage, CRLF", token.replace(b"\n", b"\r\n"), _feed("openai-usage", _SSE)
    yield "openai-usage, events always cut", token[40:] + token[:40], _feed("openai-usage", _SSE)
    yield "anthropic-usage, one delta", named, _feed("anthropic-usage", _SSE)
    yield "anthropic-usage, three deltas", named * 3, _feed("anthropic-usage", _SSE)
    yield "rename, one token event", token, _rename
    yield "rename, ten token events", token * 10, _rename
    yield "rename, chunk without the member", named, _rename
    document = token[6:-3] + b',"usage":{"prompt_tokens":7,"completion_tokens":10,"total_tokens":17}}'
    yield "openai-usage, whole JSON document", document, _documents
    prompt = {"model": _MODEL, "prompt": 'lorem ipsum "dolor"\n' * 20_000}
    yield "model_splices, small request", json.dumps(prompt | {"prompt": "hello"}).encode(), _splice
    yield "model_splices, long prompt", json.dumps(prompt).encode(), _splice


def _event(document: dict[str, object]) -> bytes:
    known = {"id": "chatcmpl-5f0c3f1e9a", "object": "chat.completion.chunk", "created": 1750000000, "model": _MODEL}
    return b"data: " + json.dumps(known | document, separators=(",", ":")).encode() + b"\n\n"


def _feed(name: str, content_type: str) -> Callable[[Sequence[bytes]], object]:
    def run(chunks: Sequence[bytes]) -> object:
        reader = READERS[name](_Head(_Headers(content_type)))
        for chunk in chunks:
            reader.feed(chunk)
        return reader.result()

    return run


def _rename(chunks: Sequence[bytes]) -> object:
    renamer = make_renamer(_Head(_Headers(_SSE)), Rename("model", _MODEL, "chat"))
    return [renamer.feed(chunk, False) for chunk in chunks] if renamer is not None else None


def _documents(chunks: Sequence[bytes]) -> object:
    read = _feed("openai-usage", "application/json")
    return [read([chunk]) for chunk in chunks]


def _splice(bodies: Sequence[bytes]) -> object:
    return [model_splices(body, "chat") for body in bodies]


def _timed(run: Callable[[Sequence[bytes]], object], chunks: Sequence[bytes]) -> float:
    start = time.perf_counter()
    run(chunks)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
