"""The comparison with a shadow configuration, for people; the input is the page ``/debug/shadow``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

_SHORT_SHA = 12
_HEAD = ("reason", "requests", "mean margin", "max margin", "tokens won", "tokens lost")


def page(shown: Mapping[str, Any]) -> str:
    """Everything on one page."""
    return "\n".join(_lines(shown)) + "\n"


def _lines(shown: Mapping[str, Any]) -> Iterator[str]:
    verdicts, live = shown["verdicts"], shown["live"]["sha256"]
    yield f"shadow {shown['source']} ({shown['sha256'][:_SHORT_SHA]}) beside {live[:_SHORT_SHA]}"
    for path in shown["restart"]:
        yield f"  to serve by it takes a restart: {path}"
    since = datetime.fromtimestamp(shown["since_s"], UTC).isoformat(timespec="seconds")
    yield f"  since {since}, shown {shown['share']:.0%} of the requests"
    share = shown["disagreement"]
    told = "nothing to compare yet" if share is None else f"{share:.1%} sent elsewhere"
    yield f"{shown['compared']} requests compared: {told}"
    yield "  " + ", ".join(f"{verdict} {count}" for verdict, count in verdicts.items())
    yield from _effect(shown["effect"])
    if shown["skipped"]:
        yield "  not shown to it: " + ", ".join(f"{count} ({why})" for why, count in sorted(shown["skipped"].items()))
    for plugin, count in sorted(shown["plugin_errors"].items()):
        yield f"  its plugin {plugin} failed {count} times"
    if shown["reasons"]:
        yield ""
        yield from _table([_HEAD, *(_row(entry) for entry in shown["reasons"])])
        yield ""
        for entry in shown["reasons"]:
            yield from (_example(example) for example in entry["examples"])
    for found in shown["recent"]:
        if found["verdict"] in ("refused", "failed"):
            yield f"{found['request_id']}: went to {found['live']}, the shadow {found['verdict']}: {found['error']}"


def _effect(effect: Mapping[str, Any]) -> Iterator[str]:
    parts = []
    if effect["rated"]:
        parts.append(f"its own endpoints rated {effect['mean_margin']:.3f} higher ({effect['rated']} rated)")
    if effect["prefix_tokens_won"] is not None:
        parts.append(f"{effect['prefix_tokens_won']} prompt tokens more cached, {effect['prefix_tokens_lost']} fewer")
    if parts:
        yield f"  expected where it differs: {'; '.join(parts)}"


def _row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        entry["reason"],
        str(entry["requests"]),
        _number(entry["mean_margin"], ".3f"),
        _number(entry["max_margin"], ".3f"),
        _number(entry["prefix_tokens_won"], "d"),
        _number(entry["prefix_tokens_lost"], "d"),
    )


def _example(found: Mapping[str, Any]) -> str:
    margin, tokens = _number(found["margin"], ".3f"), _number(found["prefix_tokens"], "+d")
    return (
        f"{found['request_id']}: went to {found['live']}, the shadow sends it to {found['shadow']} "
        f"({found['reason']}; margin {margin}, prefix tokens {tokens})"
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        yield "  ".join(cells)
