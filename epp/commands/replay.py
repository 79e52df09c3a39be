"""``epp replay``: what configurations would have done with a recorded load."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, cast

import orjson

from epp.commands.replay_flags import make_parser, replay_options
from epp.demo.data_files import data_path
from epp.errors import ConfigError, EppError, UsageError

if TYPE_CHECKING:
    from io import BufferedReader

    from epp.config.loaded import ConfigSource, LoadedConfig
    from epp.replay.comparison import Begin, Comparison
    from epp.replay.load import Trace
    from epp.replay.options import ReplayOptions

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
DEFAULT = "default"
"""Name of the built-in configuration."""


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Returns:
        0; 1 if a trace, a configuration or a file cannot be used; 2 for a bad command line; 130 after Ctrl-C.
    """
    try:
        arguments = make_parser().parse_args(list(argv))
    except SystemExit as stop:  # argparse has printed help or what is wrong
        return USAGE if stop.code else DONE
    try:
        return _run(arguments)
    except UsageError as error:
        _complain(error.problems)
        return USAGE
    except ConfigError as error:
        from epp.config.findings import text_report

        print(text_report(error.findings), file=sys.stderr)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (EppError, OSError) as error:
        _complain(getattr(error, "problems", None) or [str(error)])
    return FAILED


def _run(arguments: argparse.Namespace) -> int:
    from epp.replay.comparison import compare
    from epp.replay.report import report

    options = replay_options(arguments)
    _check_files(arguments)
    configs = _configurations(arguments, options)
    trace = _trace(arguments)
    with _logging(arguments.verbosity), _progress(len(trace.requests)) as begin:
        found = compare(trace, options, configs, begin, with_bound=arguments.bound)
    _write(arguments, found)
    if arguments.json != "-":
        print(report(found))
    _complain([f"{run.name}: {problem}" for run in found.runs for problem in run.defects[:3]])
    return FAILED if any(run.defects for run in found.runs) else DONE


def _write(arguments: argparse.Namespace, found: Comparison) -> None:
    """The files that were asked for.

    Raises:
        OSError: one cannot be written.
    """
    from epp.replay.document import document
    from epp.replay.plot import plot
    from epp.replay.report import heading
    from epp.simulate.standalone import write_atomically

    if arguments.json:
        data = orjson.dumps(document(found), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        if arguments.json == "-":
            sys.stdout.buffer.write(data)
        else:
            write_atomically(Path(arguments.json), data)
    if arguments.plot:
        picture = plot(found.named, heading(found.trace, found.options), arguments.plot.suffix[1:].lower())
        write_atomically(arguments.plot, picture)


def _check_files(arguments: argparse.Namespace) -> None:
    """What cannot be written or drawn is told before the work, not after it.

    Raises:
        UsageError: a file of the output cannot be what it is to be.
    """
    from epp.replay.plot import FORMATS, MISSING

    problems = []
    if arguments.plot:
        if arguments.plot.suffix[1:].lower() not in FORMATS:
            problems.append(f"--plot {arguments.plot}: the name must end in .{' or .'.join(FORMATS)}")
        if find_spec("matplotlib") is None:
            problems.append(MISSING)
    for flag, path in (("--json", arguments.json), ("--plot", arguments.plot)):
        if path and path != "-" and not Path(path).resolve().parent.is_dir():
            problems.append(f"{flag} {path}: there is no folder {Path(path).parent}")
    if problems:
        raise UsageError(problems)


def _configurations(arguments: argparse.Namespace, options: ReplayOptions) -> list[tuple[str, LoadedConfig]]:
    """Name and configuration of each column; a name that comes again gets a number.

    Raises:
        UsageError: there is no such file and no such preset.
        ConfigError: one of them cannot be used.
    """
    from epp.config.load import load_config
    from epp.config.loaded import ConfigSource, LoadFlags
    from epp.framework.handle import MetricsFlags
    from epp.process.plugin_types import build_registry

    sources = [_source(text) for text in arguments.config] or [(DEFAULT, ConfigSource.builtin())]
    registry, findings = build_registry()
    _complain([finding.message for finding in findings])
    flags = LoadFlags(for_serve=True, metrics_flags=MetricsFlags(refresh_interval_s=options.refresh_interval_s))
    configs: list[tuple[str, LoadedConfig]] = []
    taken: set[str] = set()
    for name, source in sources:
        unique = next(each for each in _numbered(name) if each not in taken)
        taken.add(unique)
        configs.append((unique, load_config(source, registry, flags)))
    return configs


def _source(text: str) -> tuple[str, ConfigSource]:
    from epp.config.loaded import ConfigSource

    path = Path(text)
    if path.exists() or path.suffix:
        return path.stem, ConfigSource.from_file(text)
    if text == DEFAULT:
        return text, ConfigSource.builtin()
    with contextlib.suppress(FileNotFoundError):
        return text, ConfigSource.from_file(data_path("presets", f"{text}.yaml"))
    presets = ", ".join(sorted(preset.stem for preset in data_path("presets").glob("*.yaml")))
    raise UsageError([f"--config {text}: there is neither such a file nor such a preset; presets are {DEFAULT}, {presets}"])


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}-{number}"
        number += 1


def _trace(arguments: argparse.Namespace) -> Trace:
    """The load.

    Raises:
        TraceError, OSError: it cannot be read.
    """
    from epp.replay.trace import read_trace

    name: str = arguments.trace
    if name == "-":
        return read_trace(cast("BufferedReader", sys.stdin.buffer), "standard input", arguments.limit)
    path = Path(name)
    if not path.exists() and not path.suffix:
        with contextlib.suppress(FileNotFoundError):
            path = data_path("traces", f"{name}.jsonl.gz")
    with path.open("rb") as file:
        return read_trace(file, path.name, arguments.limit)


@contextlib.contextmanager
def _logging(verbosity: int) -> Iterator[None]:
    """Write the log; afterwards it is as it was."""
    from epp.framework import log
    from epp.telemetry.log import LogOptions, setup

    before = log.verbosity()
    sink = setup(LogOptions(verbosity=verbosity, encoder="console"))
    try:
        yield
    finally:
        sink.close()
        log.set_verbosity(before)


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Begin]:
    """A bar for each configuration, where somebody is there to see it."""
    if not sys.stderr.isatty() or find_spec("rich") is None:
        yield lambda _: lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:

        def begin(name: str) -> Callable[[int], None]:
            task = bars.add_task(name, total=total)
            return lambda done: bars.update(task, completed=done)

        yield begin


def _complain(problems: Sequence[str]) -> None:
    for problem in problems:
        print(f"epp replay: {problem}", file=sys.stderr)
