"""``epp shadow``: where a running picker's second configuration would have sent its requests, and why."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from http import HTTPStatus
from urllib.request import Request

from epp.commands.picker_pages import PickerError, add_picker_arguments, ask, refusal
from epp.telemetry.shadow_text import page

SHOWN, NOTHING, USAGE = 0, 1, 2


def main(argv: Sequence[str]) -> int:
    """Print the comparison.

    Returns:
        0; 1 if there is no shadow or the picker does not answer; 2 for a command line that cannot be used.
    """
    parser = _parser()
    try:
        options = parser.parse_args(list(argv))
    except SystemExit as stop:  # argparse has printed help or what is wrong
        return SHOWN if not stop.code else USAGE
    try:
        status, answer = ask(options, Request(options.url.rstrip("/") + "/debug/shadow"))
        if status != HTTPStatus.OK:
            raise PickerError(refusal(status, answer))
    except PickerError as error:
        print(f"epp shadow: {error}", file=sys.stderr)
        return NOTHING
    if options.json:
        print(json.dumps(answer, indent=2, ensure_ascii=False))
    elif answer["enabled"]:
        print(page(answer), end="")
    else:
        problem = answer["problem"] or "start the picker with --shadow-config-file"
        print(f"epp shadow: there is no shadow configuration; {problem}", file=sys.stderr)
    return SHOWN if answer["enabled"] else NOTHING


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="epp shadow",
        description="Compare the configuration that a running picker serves by with the one of --shadow-config-file: how often "
        "it would have sent a request elsewhere, which plugin decided, and what that would have won or lost. Exit status: "
        "0 shown, 1 no shadow or no answer, 2 wrong usage.",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="the page /debug/shadow as it is")
    add_picker_arguments(parser)
    return parser
