"""The flags of `epp simulate`."""

from __future__ import annotations

import argparse
from pathlib import Path

from epp.simulate.faults import FaultKind
from epp.simulate.options import (
    DEFAULT_MODEL,
    ROLE_LABEL,
    EngineOptions,
    EventLayout,
    KvEventOptions,
    MetricsPage,
    ReplayLayout,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    _add_server_flags(parser.add_argument_group("servers"))
    _add_model_flags(parser.add_argument_group("models and answers"))
    _add_engine_flags(parser.add_argument_group("capacity and speed"))
    _add_event_flags(parser.add_argument_group("KV events (extra kv-events)"))
    _add_disaggregation_flags(parser.add_argument_group("prefill and encode on other servers"))
    _add_output_flags(parser.add_argument_group("metrics, faults and files"))


def _add_server_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--count", type=int, default=1, metavar="N", help="number of servers (default: %(default)s)")
    group.add_argument("--host", default="127.0.0.1", help="address to bind (default: %(default)s)")
    group.add_argument(
        "--port", type=int, default=0, help="port of the first server, the others follow; 0 lets the system choose (default: 0)"
    )
    group.add_argument(
        "--own-addresses", action="store_true",
        help="each server on an address of its own and all on the same ports, as pods: --host, and those that follow it",
    )  # fmt: skip
    group.add_argument(
        "--label", action="append", default=[], metavar="KEY=VALUE[@SERVER]", help="label of the endpoints; repeatable"
    )
    group.add_argument(
        "--role", action="append", default=[], metavar="ROLE[:COUNT]",
        help=f"label {ROLE_LABEL} of the next COUNT servers (default: 1), in order; repeatable",
    )  # fmt: skip


def _add_model_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--model", action="append", default=[], metavar="NAME",
        help=f"served model name; repeat it for aliases (default: {DEFAULT_MODEL})",
    )  # fmt: skip
    group.add_argument("--lora", action="append", default=[], metavar="NAME", help="LoRA adapter served as a model; repeatable")
    group.add_argument(
        "--max-output-tokens", type=int, default=32, metavar="N",
        help="length of an answer when the request sets no limit (default: %(default)s)",
    )  # fmt: skip
    group.add_argument("--seed", type=int, default=0, help="the same seed gives the same answers and timing (default: 0)")


def _add_engine_flags(group: argparse._ArgumentGroup) -> None:
    defaults = EngineOptions()

    def add(name: str, kind: type[int | float], text: str) -> None:
        default = getattr(defaults, name.replace("-", "_"))
        group.add_argument(f"--{name}", type=kind, default=default, metavar="N", help=f"{text} (default: {default:g})")

    add("max-num-seqs", int, "requests in one batch; more wait")
    add("kv-blocks", int, "blocks of the KV cache")
    add("block-size", int, "tokens in one block")
    add("max-batched-tokens", int, "prompt tokens computed in one step")
    add("max-lora", int, "different adapters in one batch")
    add("ttft-ms", float, "fixed part of the time to first token, milliseconds")
    add("prefill-us-per-token", float, "time for one prompt token that is not cached, microseconds")
    add("transfer-us-per-token", float, "time to fetch one prompt token that another server computed, microseconds")
    add("tpot-ms", float, "time for one output token in a batch of one, milliseconds")
    add("tpot-growth", float, "a full batch takes 1 + N times as long for a token")
    add("lora-load-ms", float, "time to load an adapter that was not used lately, milliseconds")
    add("jitter-ratio", float, "spread of step times, 0.1 is plus or minus ten per cent")
    add("time-scale", float, "factor on every duration: 0.1 is ten times as fast, 0 answers at once")


def _add_event_flags(group: argparse._ArgumentGroup) -> None:
    defaults = KvEventOptions()
    group.add_argument(
        "--kv-events", nargs="?", const="", metavar="ENDPOINT",
        help="publish what the prefix cache holds as vLLM does: on a port of each server, or connected to this ZeroMQ endpoint",
    )  # fmt: skip
    group.add_argument(
        "--kv-events-port", type=int, default=0, metavar="PORT",
        help="of the first server, the others follow; 0 lets the system choose (default: 0)",
    )  # fmt: skip
    group.add_argument(
        "--kv-events-topic", default=defaults.topic, metavar="TOPIC",
        help="with {address}, {host}, {port} and {model}, such as kv@{address}@{model} (default: empty, as vLLM's)",
    )  # fmt: skip
    group.add_argument(
        "--kv-events-layout", choices=[str(layout) for layout in EventLayout], default=str(defaults.layout),
        help="members by name (vLLM since 0.24) or by position (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--kv-hash-seed", default=defaults.hash_seed, metavar="TEXT",
        help="seed of the block hashes, sha256_cbor; for vLLM the environment's PYTHONHASHSEED (default: %(default)s)",
    )  # fmt: skip
    group.add_argument("--kv-raw-hashes", action="store_true", help="block hashes as 32 bytes instead of numbers")
    group.add_argument("--data-parallel", action="store_true", help="the servers are ranks: each says its index in its batches")
    group.add_argument("--kv-replay", action="store_true", help="let subscribers ask for past batches, at a port of its own")
    group.add_argument(
        "--kv-replay-port", type=int, default=0, metavar="PORT",
        help="of the first server, the others follow; 0 lets the system choose (default: 0)",
    )  # fmt: skip
    group.add_argument(
        "--kv-replay-layout", choices=[str(layout) for layout in ReplayLayout], default=str(defaults.replay_layout),
        help="answers with the topic (vLLM since 0.26) or without (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--kv-replay-steps", type=int, default=defaults.buffer_steps, metavar="N",
        help="batches that are kept (default: %(default)s)",
    )  # fmt: skip


def _add_disaggregation_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--strict-roles", action="store_true",
        help="servers of role prefill or encode refuse requests that are not for this stage",
    )  # fmt: skip
    group.add_argument(
        "--prefill-max-retries", type=int, default=0, metavar="N",
        help="repetitions of a prefill that was answered with 502, 503 or 504 (default: %(default)s)",
    )  # fmt: skip


def _add_output_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--metrics-page", choices=[str(page) for page in MetricsPage], default=str(MetricsPage.FULL),
        help="/metrics as long as vLLM's (62 KB) or only what schedulers read (0.8 KB) (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--fault", action="append", default=[], metavar="KIND[:RATE][@SERVER]",
        help="fail on purpose, at a rate between 0 and 1, on one server (name or index) or all; repeatable. "
        f"Kinds: {', '.join(FaultKind)}",
    )  # fmt: skip
    group.add_argument("--ready-file", type=Path, metavar="PATH", help="receives pid and endpoints as JSON once all serve")
    group.add_argument(
        "--print-endpoints-file", type=Path, metavar="PATH", help="receives the endpoints as YAML for the file-discovery plugin"
    )
