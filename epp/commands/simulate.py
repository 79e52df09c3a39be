"""`epp simulate`: model servers without GPUs, to try a configuration or to have something to route to."""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from epp.errors import UsageError
from epp.simulate.faults import Fault, FaultKind, parse_fault
from epp.simulate.options import DEFAULT_MODEL, ROLE_LABEL, EngineOptions, MetricsPage, ServerOptions
from epp.simulate.server import SimulatedPool
from epp.simulate.standalone import Plan, run_until_signal

DESCRIPTION = """\
Run simulated vLLM servers: OpenAI and Anthropic APIs, streaming, a waiting queue, a batch, a KV cache with prefix reuse, LoRA
adapters and vLLM's metrics, all in one process. Every response says who answered in the header x-served-by.
"""
EPILOG = """\
examples:
  epp simulate --count 3 --port 8000
  epp simulate --count 8 --time-scale 0.1 --print-endpoints-file endpoints.yaml
  epp simulate --count 4 --fault reset:0.05 --fault hang@sim-3
  epp simulate --count 6 --role prefill:2 --role decode:4
"""


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Args:
        argv: the arguments after ``simulate``.

    Returns:
        0 after SIGINT or SIGTERM, 1 when a port or a file cannot be had, 2 for a wrong command line.
    """
    parser = argparse.ArgumentParser(
        prog="epp simulate", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    return run(parser.parse_args(argv))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    _add_server_flags(parser.add_argument_group("servers"))
    _add_model_flags(parser.add_argument_group("models and answers"))
    _add_engine_flags(parser.add_argument_group("capacity and speed"))
    _add_output_flags(parser.add_argument_group("metrics, faults and files"))


def run(args: argparse.Namespace) -> int:
    """Do what the flags say; see `main` for the result."""
    try:
        plan = _plan(args)
    except UsageError as error:
        for problem in error.problems:
            print(f"epp simulate: {problem}", file=sys.stderr)
        return 2
    _raise_open_files_limit()
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(run_until_signal(plan, _announce))
    except OSError as error:
        print(f"epp simulate: {error}", file=sys.stderr)
        return 1
    return 0


def _add_server_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--count", type=int, default=1, metavar="N", help="number of servers (default: %(default)s)")
    group.add_argument("--host", default="127.0.0.1", help="address to bind (default: %(default)s)")
    group.add_argument(
        "--port", type=int, default=0, help="port of the first server, the others follow; 0 lets the system choose (default: 0)"
    )
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
    add("tpot-ms", float, "time for one output token in a batch of one, milliseconds")
    add("tpot-growth", float, "a full batch takes 1 + N times as long for a token")
    add("lora-load-ms", float, "time to load an adapter that was not used lately, milliseconds")
    add("jitter-ratio", float, "spread of step times, 0.1 is plus or minus ten per cent")
    add("time-scale", float, "factor on every duration: 0.1 is ten times as fast, 0 answers at once")


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


def _plan(args: argparse.Namespace) -> Plan:
    problems = []
    if args.count < 1:
        problems.append(f"--count must be at least 1, is {args.count}")
    if not 0 <= args.port <= 65536 - max(1, args.count):
        problems.append(f"--port {args.port} with --count {args.count} leaves the range 0 to 65535")
    if args.max_output_tokens < 1:
        problems.append(f"--max-output-tokens must be at least 1, is {args.max_output_tokens}")
    problems += [f"{name} is both --model and --lora" for name in sorted({*args.model} & {*args.lora})]
    try:
        engine = EngineOptions(**{field.name: getattr(args, field.name) for field in fields(EngineOptions)})
    except UsageError as error:
        raise UsageError([*problems, *error.problems]) from None
    if problems:
        raise UsageError(problems)
    shared = ServerOptions(
        engine=engine,
        models=tuple(args.model) or (DEFAULT_MODEL,),
        lora=tuple(args.lora),
        default_output_tokens=args.max_output_tokens,
        metrics_page=MetricsPage(args.metrics_page),
    )
    return Plan(
        count=args.count,
        options=_per_server(shared, args).__getitem__,
        host=args.host,
        ports=range(args.port, args.port + args.count) if args.port else (),
        ready_file=args.ready_file,
        endpoints_file=args.print_endpoints_file,
    )


def _per_server(shared: ServerOptions, args: argparse.Namespace) -> list[ServerOptions]:
    labels: list[dict[str, str]] = [{} for _ in range(args.count)]
    faults: list[list[Fault]] = [[] for _ in range(args.count)]
    for text in args.label:
        pair, _, server = text.partition("@")
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise UsageError([f"--label {text}: write KEY=VALUE"])
        for index in _indices(f"--label {text}", server or None, args.count):
            labels[index][key] = value
    for index, role in enumerate(_roles(args.role, args.count)):
        labels[index][ROLE_LABEL] = role
    for text in args.fault:
        fault, target = parse_fault(text)
        for index in _indices(f"--fault {text}", target, args.count):
            faults[index].append(fault)
    return [
        replace(shared.with_seed(args.seed + index), labels=labels[index], faults=tuple(faults[index]))
        for index in range(args.count)
    ]


def _roles(specs: Sequence[str], count: int) -> list[str]:
    roles: list[str] = []
    for spec in specs:
        role, colon, number = spec.partition(":")
        if not role or (colon and not (number.isascii() and number.isdigit())):
            raise UsageError([f"--role {spec}: write ROLE or ROLE:COUNT"])
        roles += [role] * (int(number) if colon else 1)
    if len(roles) > count:
        raise UsageError([f"--role names {len(roles)} servers, but --count is {count}"])
    return roles


def _indices(flag: str, server: str | None, count: int) -> range:
    if server is None:
        return range(count)
    number = server.removeprefix("sim-")
    if not (number.isascii() and number.isdigit()) or int(number) >= count:
        raise UsageError([f"{flag}: there is no server {server!r}; they are sim-0 to sim-{count - 1}"])
    return range(int(number), int(number) + 1)


def _announce(pool: SimulatedPool) -> None:
    for server in pool.servers:
        labels = " ".join(f"{key}={value}" for key, value in server.labels.items())
        print(f"{server.name} http://{server.address} {labels}".rstrip())
    print("ready; Ctrl-C ends", flush=True)


def _raise_open_files_limit() -> None:
    """Many servers times many connections need more than the usual soft limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.Loop
