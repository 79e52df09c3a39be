"""``epp serve``: the service."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from epp.commands.flags import CommandLine, help_text, parse
from epp.errors import ConfigError, UsageError

CONFIG_INVALID = 1
USAGE = 2


def main(argv: Sequence[str]) -> int:
    """Serve until a signal comes.

    Returns:
        0 after a clean stop, 1 for a bad configuration or environment, 2 for a bad command line.
    """
    try:
        command = parse(argv, os.environ)
    except UsageError as error:
        _print_problems(error)
        return USAGE
    if command.action == "help":
        print(help_text())
        return 0
    if command.action == "version":
        print(version_text())
        return 0
    return _run(command)


def version_text() -> str:
    """Name, version, commit and Python."""
    from epp.version import VERSION, commit

    return f"epp {VERSION} (commit {commit() or 'unknown'}, Python {sys.version.split()[0]})"


def _run(command: CommandLine) -> int:
    from epp.process import process, startup

    options = command.options
    try:
        if options.list_plugins:
            from epp.commands.plugins import main as list_plugins

            return list_plugins([])
        if options.check_config or options.print_effective_config:
            from epp.commands.check import check_pools_file, check_source

            if options.pools_file:
                shown = options.print_effective_config
                return check_pools_file(options.pools_file, startup.load_flags(options), print_effective=shown)
            source, flags = startup.config_source(options), startup.load_flags(options)
            return check_source(source, flags, print_effective=options.print_effective_config)
        what = startup.load_pools_file(options) if options.pools_file else startup.load(options)
        return process.run(options, what, command.given, command.warnings)
    except UsageError as error:
        _print_problems(error)
        return USAGE
    except ConfigError as error:
        from epp.config.findings import text_report

        print(text_report(error.findings), file=sys.stderr)
        return CONFIG_INVALID
    except OSError as error:
        print(f"epp: {error}", file=sys.stderr)
        return CONFIG_INVALID


def _print_problems(error: UsageError) -> None:
    for problem in error.problems:
        print(f"epp: {problem}", file=sys.stderr)
    print("epp: --help lists all flags", file=sys.stderr)
