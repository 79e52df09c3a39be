"""Load benchmark of ext_proc pickers behind a real Envoy; see bench/README.md."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.load import machine, report
from bench.load.pickers import Picker, parse_picker, with_bare_reader
from bench.load.process import ProcessFailed
from bench.load.run import Plan, measure
from bench.load.workloads import WORKLOADS, Workload
from epp.demo.envoy import EnvoyError, bootstrap_names

_EPILOG = """\
placeholders in a picker's command:
  {port} {health_port} {metrics_port}  free ports; the ext_proc server must serve {port} without TLS
  {endpoints}       comma-separated host:port of all model servers
  {endpoints_file}  the same as a file for file-discovery
  {config}          an EndpointPickerConfig file (--config, by default queue and KV cache scorers)
"""


def main() -> int:
    """Parse the command line, measure, print; returns the exit code."""
    parser = _parser()
    args = parser.parse_args()
    workload = _workload(args)
    if args.rate_of_weakest and (workload.connections == 0 or args.rate is not None):
        parser.error("--rate-of-weakest chooses the rate itself: not with --rate, and not where nothing is sent")
    pickers = args.picker if workload.connections else with_bare_reader(args.picker)
    plan = Plan(
        pickers=pickers,
        workload=workload,
        mode=args.mode,
        segments=args.segments,
        seconds=args.seconds,
        chunk_interval_ms=args.chunk_interval_ms,
        config=args.config,
        rate_of_weakest=args.rate_of_weakest,
    )
    facts = machine.describe()
    print("\n".join(f"{name:12} {value}" for name, value in facts.items()))
    print(
        f"{'workload':12} {args.workload} ({workload.summary}), Envoy {args.mode}, {args.segments} x {args.seconds:g} s each\n"
    )
    try:
        measured = asyncio.run(measure(plan))
    except (EnvoyError, ProcessFailed) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    print(report.as_text(measured))
    if args.output is not None:
        setting = {"workload": args.workload, "mode": args.mode, "segments": args.segments, "seconds": args.seconds}
        commands = {picker.name: picker.command for picker in pickers}
        document = {"machine": facts, **setting, "pickers": commands}
        args.output.write_text(json.dumps(document | report.as_document(measured), indent=2) + "\n")
    return 0


def _workload(args: argparse.Namespace) -> Workload:
    """The named workload with what the command line overrides."""
    overrides = {name: getattr(args, name) for name in ("connections", "rate", "endpoints", "page", "freeze")}
    changed: dict[str, Any] = {name: value for name, value in overrides.items() if value is not None}
    return replace(WORKLOADS[args.workload], **changed)


def _picker(text: str) -> Picker:
    try:
        return parse_picker(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.load", description=__doc__, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--picker", type=_picker, action="append", required=True, metavar="NAME=COMMAND", help="a picker to measure; repeatable"
    )
    add("--workload", choices=WORKLOADS, default="small-json", help="what is sent (default: %(default)s)")
    add("--mode", choices=bootstrap_names(), default="full-duplex", help="Envoy's set-up (default: %(default)s)")
    add("--segments", type=int, default=10, metavar="N", help="segments for each picker (default: %(default)s)")
    add("--seconds", type=float, default=5.0, metavar="S", help="length of a segment (default: %(default)s)")
    add("--connections", type=int, metavar="N", help="requests at the same time in a closed loop")
    add("--rate", type=float, metavar="R", help="requests per second of an open loop; 0 for a closed loop")
    add(
        "--rate-of-weakest",
        type=float,
        default=0.0,
        metavar="F",
        help="an open loop at this part of the requests per second that the weakest picker answers in a closed one",
    )
    add("--endpoints", type=int, metavar="N", help="number of model servers")
    add("--page", choices=("small", "full"), help="size of a model server's metrics page")
    add("--chunk-interval-ms", type=float, default=5.0, metavar="MS", help="pace of a streamed response (default: %(default)s)")
    add("--freeze", action=argparse.BooleanOptionalAction, help="stop the pickers that are not driven (default: for idle only)")
    add("--config", type=Path, metavar="FILE", help="EndpointPickerConfig; {endpoints_file} in it is replaced")
    add("--output", type=Path, metavar="FILE", help="write everything as JSON, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
