"""Traces and replays for tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BufferedReader, BytesIO
from typing import Any

from epp.config.load import load_config
from epp.config.loaded import ConfigSource, LoadedConfig, LoadFlags
from epp.framework.registry import Registry
from epp.replay.load import Trace
from epp.replay.options import ReplayOptions
from epp.replay.run import Run, replay
from epp.replay.trace import read_trace
from epp.simulate.options import EngineOptions
from tests.config.corpus import registry
from tests.config.doubles import HEADER

LOAD = """
plugins: [{type: queue-scorer}, {type: kv-cache-utilization-scorer}, {type: active-request-scorer}, {type: max-score-picker}]
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: kv-cache-utilization-scorer, weight: 2}
  - {pluginRef: active-request-scorer, weight: 1}
  - {pluginRef: max-score-picker}
"""
RANDOM = """
plugins: [{type: random-picker}]
schedulingProfiles: [{name: default, plugins: [{pluginRef: random-picker}]}]
"""

Record = dict[str, Any]


def tokens_record(at_ms: int, hash_ids: Sequence[int], tokens: int = 0, output: int = 8) -> Record:
    """A line of a Mooncake trace; whole blocks unless the number of tokens is given."""
    length = tokens or 512 * len(hash_ids)
    return {"timestamp": at_ms, "input_length": length, "output_length": output, "hash_ids": list(hash_ids)}


def chat_record(at_s: float, text: str, output: int = 8, **more: Any) -> Record:
    """A line of recorded requests."""
    body = {"model": "m", "messages": [{"role": "user", "content": text}], **more.pop("body", {})}
    return {"time_s": at_s, "path": "/v1/chat/completions", "body": body, "output_tokens": output, **more}


def steady(count: int, every_ms: int = 40) -> list[Record]:
    """A load with conversations: every fourth request begins as an earlier one did."""
    return [tokens_record(every_ms * i, [0, 100 + i // 4, 200 + i], 512 * 2 + 40 + i % 300, 5 + i % 7) for i in range(count)]


def stream(data: bytes) -> BufferedReader:
    return BufferedReader(BytesIO(data))


def jsonl(records: Sequence[object]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def trace(records: Sequence[object], limit: int | None = None) -> Trace:
    """The records as they are read from a file."""
    return read_trace(stream(jsonl(records)), "test.jsonl", limit)


def config(document: str, types: Registry | None = None) -> LoadedConfig:
    """A configuration as `epp replay` loads it."""
    source = ConfigSource.from_text(HEADER + document, "epp.yaml")
    return load_config(source, types or registry(), LoadFlags(for_serve=True))


def options(servers: int = 3, seed: int = 0, **engine: Any) -> ReplayOptions:
    return ReplayOptions(servers=servers, seed=seed, engine=EngineOptions(**engine))


def run(
    records: Sequence[object],
    document: str = LOAD,
    around: ReplayOptions | None = None,
    *,
    types: Registry | None = None,
    **more: Any,
) -> Run:
    """Replay records."""
    return replay("test", config(document, types), trace(records), around or options(), **more)
