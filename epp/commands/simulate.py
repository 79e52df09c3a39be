"""`epp simulate`: model servers without GPUs, to try a configuration or to have something to route to."""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from ipaddress import ip_address

from epp.commands.simulate_flags import add_arguments
from epp.errors import UsageError
from epp.simulate.faults import Fault, parse_fault
from epp.simulate.options import (
    DEFAULT_MODEL,
    ROLE_LABEL,
    DisaggregationOptions,
    EngineOptions,
    EventLayout,
    KvEventOptions,
    MetricsPage,
    ReplayLayout,
    ServerOptions,
    require_kv_events,
)
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
  epp simulate --count 6 --role prefill:2 --role decode:4 --strict-roles
  epp simulate --count 4 --own-addresses --port 8000 --kv-events --kv-events-port 5557
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


def _plan(args: argparse.Namespace) -> Plan:
    problems = []
    if args.count < 1:
        problems.append(f"--count must be at least 1, is {args.count}")
    last = 65536 - (1 if args.own_addresses else max(1, args.count))
    for flag in ("port", "kv_events_port", "kv_replay_port"):
        port = getattr(args, flag)
        if not 0 <= port <= last:
            name = "--" + flag.replace("_", "-")
            problems.append(f"{name} {port} with --count {args.count} leaves the range 0 to 65535")
    if args.max_output_tokens < 1:
        problems.append(f"--max-output-tokens must be at least 1, is {args.max_output_tokens}")
    problems += [f"{name} is both --model and --lora" for name in sorted({*args.model} & {*args.lora})]
    try:
        engine = EngineOptions(**{field.name: getattr(args, field.name) for field in fields(EngineOptions)})
        events = _kv_events(args)
        disaggregation = DisaggregationOptions(args.strict_roles, args.prefill_max_retries)
        hosts = _hosts(args)
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
        kv_events=events,
        disaggregation=disaggregation,
    )
    return Plan(
        count=args.count,
        options=_per_server(shared, args).__getitem__,
        host=args.host,
        hosts=hosts,
        ports=[_port(args, "port", index) for index in range(args.count)],
        ready_file=args.ready_file,
        endpoints_file=args.print_endpoints_file,
    )


def _hosts(args: argparse.Namespace) -> list[str]:
    if not args.own_addresses:
        return []
    try:
        first = ip_address(args.host)
    except ValueError:
        raise UsageError([f"--own-addresses counts from --host, which must be an IP address, not {args.host}"]) from None
    if first.is_unspecified:
        raise UsageError([f"--own-addresses counts from --host, and {args.host} is all addresses"])
    return [str(first + index) for index in range(args.count)]


def _port(args: argparse.Namespace, flag: str, index: int) -> int:
    """Of a server: the same for all that have addresses of their own; 0 = chosen by the system."""
    first: int = getattr(args, flag)
    return first + index if first and not args.own_addresses else first


def _kv_events(args: argparse.Namespace) -> KvEventOptions | None:
    if args.kv_events is None:
        return None
    require_kv_events()
    return KvEventOptions(
        endpoint=args.kv_events,
        topic=args.kv_events_topic,
        layout=EventLayout(args.kv_events_layout),
        hash_seed=args.kv_hash_seed,
        raw_hashes=args.kv_raw_hashes,
        has_replay=args.kv_replay,
        replay_layout=ReplayLayout(args.kv_replay_layout),
        buffer_steps=args.kv_replay_steps,
    )


def _kv_events_of(shared: KvEventOptions | None, args: argparse.Namespace, index: int) -> KvEventOptions | None:
    if shared is None:
        return None
    port, replay_port = (_port(args, flag, index) for flag in ("kv_events_port", "kv_replay_port"))
    return replace(shared, port=port, replay_port=replay_port, rank=index if args.data_parallel else 0)


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
        replace(
            shared.with_seed(args.seed + index),
            labels=labels[index],
            faults=tuple(faults[index]),
            kv_events=_kv_events_of(shared.kv_events, args, index),
        )
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
        events = server.kv_events
        if events is not None:
            replay = f", past batches at {events.replay_address}" if events.replay_address else ""
            print(f"  KV events at {events.address}{replay}")
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
