"""The flags of ``epp replay``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from epp.errors import UsageError
from epp.framework.params import parse_duration
from epp.replay.options import ReplayOptions
from epp.simulate.options import DEFAULT_MODEL, EngineOptions

_NO_LOG = -2

DESCRIPTION = """\
Replay a recorded load on simulated servers, in virtual time, by the plugins and configurations that `epp serve` runs, and
compare what came of it: hit rates, latencies, queues, balance, and where two configurations disagree.
"""
EPILOG = """\
TRACE is a file of JSON Lines, plain or gzip, - for standard input, or the name of a trace that comes with this package
(conversations). It holds Mooncake's records (timestamp, input_length, output_length, hash_ids) or real requests (time_s, path,
body, output_tokens, headers).

examples:
  epp replay conversations --config random --config prefix-load
  epp replay trace.jsonl.gz --config mine.yaml --servers 8 --kv-blocks 48000 --bound --plot course.svg
  epp replay - --config old.yaml --config new.yaml --limit 1000 --json result.json < requests.jsonl

exit status: 0 done; 1 a trace, a configuration or a file cannot be used; 2 wrong usage.
"""


def make_parser() -> argparse.ArgumentParser:
    """All flags."""
    parser = argparse.ArgumentParser(
        prog="epp replay",
        allow_abbrev=False,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("trace", metavar="TRACE", help="the load")
    add("--config", action="append", default=[], metavar="FILE|PRESET",
        help="a configuration, or the name of a preset; repeatable (default: what `epp serve` has built in)")  # fmt: skip
    load = parser.add_argument_group("load")
    load.add_argument("--limit", type=_positive, metavar="N", help="replay only the first N requests")
    load.add_argument("--time-scale", type=_factor, default=1.0, metavar="X",
                      help="factor on the time between requests: 0.5 sends twice as fast (default: 1)")  # fmt: skip
    load.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME",
                      help="model of requests in a trace that names none (default: %(default)s)")  # fmt: skip
    _add_server_flags(parser.add_argument_group("servers"))
    output = parser.add_argument_group("output")
    output.add_argument("--bound", action="store_true", help="also tell which hit rate these caches allow at best")
    output.add_argument("--json", metavar="FILE", help="write all figures as JSON; - for standard output instead of the table")
    output.add_argument("--plot", type=Path, metavar="FILE", help="draw hit rate and first token over time: .svg or .png")
    output.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed gives the same result (default: 0)")
    output.add_argument("--verbosity", type=int, default=_NO_LOG, metavar="N",
                        help="log what the picker logs, as -v of `epp serve` (default: nothing)")  # fmt: skip
    return parser


def _add_server_flags(group: argparse._ArgumentGroup) -> None:
    defaults = EngineOptions()

    def add(name: str, kind: type[int | float], text: str) -> None:
        default = getattr(defaults, name.replace("-", "_"))
        group.add_argument(f"--{name}", type=kind, default=default, metavar="N", help=f"{text} (default: {default:g})")

    group.add_argument("--servers", type=_positive, default=4, metavar="N", help="how many (default: %(default)s)")
    add("kv-blocks", int, "blocks of a server's KV cache; a longer request is refused")
    add("block-size", int, "tokens in one block")
    add("max-num-seqs", int, "requests in one batch; more wait")
    add("max-batched-tokens", int, "prompt tokens computed in one step")
    add("prefill-us-per-token", float, "time for one prompt token that is not cached, microseconds")
    add("tpot-ms", float, "time for one output token in a batch of one, milliseconds")
    add("tpot-growth", float, "a full batch takes 1 + N times as long for a token")
    add("ttft-ms", float, "fixed part of the time to first token, milliseconds")
    add("jitter-ratio", float, "spread of step times, 0.1 is plus or minus ten per cent")
    add("max-lora", int, "different adapters in one batch")
    add("lora-load-ms", float, "time to load an adapter that was not used lately, milliseconds")
    group.add_argument("--lora", action="append", default=[], metavar="NAME", help="LoRA adapter of all servers; repeatable")
    group.add_argument("--label", action="append", default=[], metavar="KEY=VALUE[@SERVER]",
                       help="label of all servers, or of one by its name (sim-0) or index; repeatable")  # fmt: skip
    group.add_argument("--refresh-metrics-interval", type=_interval, default=0.05, metavar="D",
                       help="time between two reads of a server's metrics (default: 50ms)")  # fmt: skip


def replay_options(arguments: argparse.Namespace) -> ReplayOptions:
    """What they say about the servers.

    Raises:
        UsageError: with one sentence for each value that cannot be used.
    """
    problems: list[str] = []
    labels = _labels(arguments.label, arguments.servers, problems)
    # Replayed servers fetch nothing from each other.
    names = {field.name for field in fields(EngineOptions)} - {"time_scale", "transfer_us_per_token"}
    try:
        engine = EngineOptions(**{name: getattr(arguments, name) for name in names})
    except UsageError as error:
        raise UsageError([*problems, *error.problems]) from None
    if problems:
        raise UsageError(problems)
    return ReplayOptions(
        servers=arguments.servers,
        engine=engine,
        labels=labels,
        lora=tuple(arguments.lora),
        model=arguments.model,
        time_scale=arguments.time_scale,
        refresh_interval_s=arguments.refresh_metrics_interval,
        seed=arguments.seed,
    )


def _labels(texts: Sequence[str], servers: int, problems: list[str]) -> tuple[dict[str, str], ...]:
    labels: list[dict[str, str]] = [{} for _ in range(servers)]
    for text in texts:
        pair, at, server = text.partition("@")
        key, equals, value = pair.partition("=")
        number = server.removeprefix("sim-")
        if not key or not equals:
            problems.append(f"--label {text}: write KEY=VALUE, or KEY=VALUE@SERVER")
        elif at and not (number.isascii() and number.isdigit() and int(number) < servers):
            problems.append(f"--label {text}: there is no server {server!r}; they are sim-0 to sim-{servers - 1}")
        else:
            for each in labels if not at else [labels[int(number)]]:
                each[key] = value
    return tuple(labels) if texts else ()


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


def _factor(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return value


def _interval(text: str) -> float:
    try:
        value = parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return value
