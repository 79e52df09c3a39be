"""``epp explain``: why a request went where it went, as a running picker remembers it, or where a request would go now."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import Request

from epp.commands.picker_pages import PickerError, add_picker_arguments, ask, refusal
from epp.telemetry.decision_text import page, why_not

FOUND, NOT_FOUND, USAGE = 0, 1, 2


def main(argv: Sequence[str]) -> int:
    """Explain a request.

    Returns:
        0; 1 if nothing is known of it or the picker does not answer; 2 for a command line that cannot be used.
    """
    parser = _parser()
    try:
        options = parser.parse_args(list(argv))
    except SystemExit as stop:  # argparse has printed help or what is wrong
        return FOUND if not stop.code else USAGE
    if bool(options.request_id) == bool(options.dry_run):
        print("epp explain: name a REQUEST_ID, or a file with --dry-run", file=sys.stderr)
        return USAGE
    try:
        records = [_rehearsed(options)] if options.dry_run else _remembered(options)
    except PickerError as error:
        print(f"epp explain: {error}", file=sys.stderr)
        return NOT_FOUND
    print(_shown(records, options), end="")
    return FOUND


def _shown(records: list[dict[str, Any]], options: argparse.Namespace) -> str:
    if options.json:
        return json.dumps(records if len(records) > 1 else records[0], indent=2, ensure_ascii=False) + "\n"
    if options.why_not:
        return "\n".join(why_not(record, options.why_not) for record in records)
    return "\n".join(page(record) for record in records)


def _remembered(options: argparse.Namespace) -> list[dict[str, Any]]:
    """What is kept of the request, the newest first."""
    path = f"/debug/decisions/{quote(options.request_id, safe='')}"
    status, answer = ask(options, Request(options.url.rstrip("/") + path))
    if status == HTTPStatus.NOT_FOUND:
        raise PickerError(
            f"nothing is kept of {options.request_id!r}; refusals and errors are always kept, other requests if they are among "
            "--explain-share or ask with x-epp-explain: 1, until newer ones need their place"
        )
    if status != HTTPStatus.OK:
        raise PickerError(refusal(status, answer))
    records: list[dict[str, Any]] = answer["decisions"]
    return records


def _rehearsed(options: argparse.Namespace) -> dict[str, Any]:
    """The decision that a request would get now."""
    try:
        body = sys.stdin.read() if options.dry_run == "-" else Path(options.dry_run).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PickerError(f"{options.dry_run} cannot be read: {error}") from error
    asked: dict[str, object] = {"body": body, "path": options.path or _usual_path(body), "headers": dict(options.header)}
    if options.subset:
        asked["subset"] = options.subset
    request = Request(
        options.url.rstrip("/") + "/debug/explain",
        data=json.dumps(asked).encode(),
        headers={"Content-Type": "application/json"},
        method="POST",
    )
    status, answer = ask(options, request)
    if status != HTTPStatus.OK:
        raise PickerError(refusal(status, answer))
    record: dict[str, Any] = answer
    return record


def _usual_path(body: str) -> str:
    """Of the OpenAI API that has such bodies; empty if the picker shall say what is wrong with it."""
    try:
        members = json.loads(body)
    except ValueError:
        return ""
    if not isinstance(members, dict):
        return ""
    if "messages" in members:
        return "/v1/chat/completions"
    return "/v1/responses" if "input" in members else "/v1/completions"


def _header(text: str) -> tuple[str, str]:
    name, sign, value = text.partition(":")
    if not sign or not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is no header; write 'name: value'")
    return name.strip().lower(), value.strip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="epp explain",
        description="Say why a request went where it went, or with --dry-run where one would go now. A running picker is "
        "asked; its state does not change. Exit status: 0 explained, 1 nothing known or no answer, 2 wrong usage.",
        allow_abbrev=False,
    )
    parser.add_argument("request_id", metavar="REQUEST_ID", nargs="?", help="the request's x-request-id")
    parser.add_argument("--dry-run", metavar="FILE", help="body of a request that is not sent; - reads standard input")
    parser.add_argument("--path", default="", help="path of that request (default: the OpenAI API's that has such bodies)")
    parser.add_argument(
        "--header", type=_header, action="append", default=[], metavar="'NAME: VALUE'", help="a header of it; repeatable"
    )
    parser.add_argument("--subset", default="", metavar="HOST:PORT,...", help="the data plane's hint where it may go")
    parser.add_argument("--why-not", metavar="HOST[:PORT]", help="say why it did not go there")
    parser.add_argument("--json", action="store_true", help="the record as it is, or a list if there are several of the id")
    add_picker_arguments(parser)
    return parser
