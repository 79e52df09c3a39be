"""Every byte that the client and the back end send, computed before anything is measured."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from bench.load.workloads import Page, Response

SSE_CHUNKS = 100
"""Body chunks of a streamed response, the last of which holds ``[DONE]``."""
FULL_PAGE_BYTES = 62_000
"""Size of the metrics page of a vLLM server with one model."""

_DISTINCT_SMALL = 64
_DISTINCT_BIG = 8
_PAGE_VARIANTS = 16
_MODEL = "bench-model"
_WORDS = ("the", "of", "and", "to", "in", "is", "that", "for", "it", "as", "was", "with", "be", "by", "on", "not", "he", "at")


def requests(prompt_bytes: int, response: Response) -> list[bytes]:
    """Complete HTTP/1.1 requests with different prompts, to be sent in turn."""
    rng = random.Random(1)
    distinct = _DISTINCT_SMALL if prompt_bytes < 10_000 else _DISTINCT_BIG
    return [_request(_prompt(rng, prompt_bytes), response) for _ in range(distinct)]


def json_response() -> bytes:
    """A complete chat completion."""
    usage = {"prompt_tokens": 40, "completion_tokens": 12, "total_tokens": 52}
    message = {"role": "assistant", "content": "A short answer that no model has thought about."}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    body = json.dumps({**_envelope("chat.completion"), "choices": choices, "usage": usage}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def sse_response() -> tuple[bytes, list[bytes]]:
    """Head of a streamed chat completion, and its chunks in chunked transfer encoding."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
    events = [_delta({"content": f" word{index}"}) for index in range(SSE_CHUNKS - 1)]
    usage = {"prompt_tokens": 40, "completion_tokens": SSE_CHUNKS, "total_tokens": 40 + SSE_CHUNKS}
    last = (
        b"data: %s\n\ndata: [DONE]\n\n"
        % json.dumps({**_envelope("chat.completion.chunk"), "choices": [], "usage": usage}).encode()
    )
    chunks = [b"%x\r\n%s\r\n" % (len(event), event) for event in (*events, last)]
    chunks[-1] += b"0\r\n\r\n"
    return head, chunks


def metrics_responses(page: Page) -> list[bytes]:
    """Complete responses to ``GET /metrics`` whose values differ, to be sent in turn."""
    rng = random.Random(2)
    return [_metrics_response(rng, page) for _ in range(_PAGE_VARIANTS)]


def _request(prompt: str, response: Response) -> bytes:
    document = {
        "model": _MODEL,
        "messages": [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": prompt}],
        "max_tokens": 100,
        "temperature": 0.7,
        "stream": response == "sse",
    }
    body = json.dumps(document).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: bench.example\r\nuser-agent: bench/1\r\naccept: */*\r\n"
        "authorization: Bearer sk-not-a-secret\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _prompt(rng: random.Random, length: int) -> str:
    words = rng.choices(_WORDS, k=length // 3)
    return " ".join(words)[:length].ljust(length, ".")


def _envelope(kind: str) -> dict[str, object]:
    return {"id": "chatcmpl-0123456789abcdef", "object": kind, "created": 1_700_000_000, "model": _MODEL}


def _delta(delta: dict[str, str]) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": None}]
    return b"data: %s\n\n" % json.dumps({**_envelope("chat.completion.chunk"), "choices": choices}).encode()


def _metrics_response(rng: random.Random, page: Page) -> bytes:
    text = "".join(_gauges(rng)) + _adapters()
    if page == "full":
        histograms = _histograms(rng)
        while len(text) < FULL_PAGE_BYTES:
            text += next(histograms)
    body = text.encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


def _gauges(rng: random.Random) -> Iterator[str]:
    labels = f'{{engine="0",model_name="{_MODEL}"}}'
    values = {
        "num_requests_running": float(rng.randrange(64)),
        "num_requests_waiting": float(rng.randrange(8)),
        "kv_cache_usage_perc": round(rng.random(), 6),
    }
    for name, value in values.items():
        yield f"# HELP vllm:{name} A gauge of the engine.\n# TYPE vllm:{name} gauge\nvllm:{name}{labels} {value}\n"


def _adapters() -> str:
    lora = '{max_lora="4",running_lora_adapters="",waiting_lora_adapters=""} 1.7e+09'
    cache = '{block_size="16",cache_dtype="auto",engine="0",gpu_memory_utilization="0.9",num_gpu_blocks="20000"} 1.0'
    return (
        f"# HELP vllm:lora_requests_info Adapters.\n# TYPE vllm:lora_requests_info gauge\nvllm:lora_requests_info{lora}\n"
        f"# HELP vllm:cache_config_info Cache.\n# TYPE vllm:cache_config_info gauge\nvllm:cache_config_info{cache}\n"
    )


def _histograms(rng: random.Random) -> Iterator[str]:
    """Endless families that look like vLLM's; pickers have to find their way past them."""
    bounds = [*(round(step * scale, 4) for scale in (0.001, 0.01, 0.1, 1.0, 10.0) for step in (1, 2.5, 5, 7.5)), "+Inf"]
    number = 0
    while True:
        number += 1
        name = f"vllm:bench_phase_{number}_seconds"
        lines = [f"# HELP {name} Histogram of a phase of a request in seconds.\n# TYPE {name} histogram\n"]
        total = 0
        for bound in bounds:
            total += rng.randrange(1000)
            lines.append(f'{name}_bucket{{engine="0",le="{bound}",model_name="{_MODEL}"}} {float(total)}\n')
        lines.append(f'{name}_count{{engine="0",model_name="{_MODEL}"}} {float(total)}\n')
        lines.append(f'{name}_sum{{engine="0",model_name="{_MODEL}"}} {rng.random() * total}\n')
        yield "".join(lines)
