"""The result of replays as text for a person."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from epp.replay.bound import Bound
from epp.replay.comparison import Comparison
from epp.replay.disagreement import Disagreement, Example, Reasons
from epp.replay.figures import Figures, Spread
from epp.replay.load import Trace
from epp.replay.options import ReplayOptions

MAX_REFUSALS = 5
MAX_GROUPS = 6
"""Of reasons why two configurations disagree."""
_MAX_TEXT = 96

Row = tuple[str, Callable[[Figures], str]]


def _times(name: str, select: Callable[[Figures], Spread | None]) -> list[Row]:
    def row(of: Callable[[Spread], float]) -> Callable[[Figures], str]:
        return lambda found: "-" if (spread := select(found)) is None else f"{of(spread):.3f}"

    return [
        (f"{name} p50, s", row(lambda spread: spread.p50)),
        ("p90", row(lambda spread: spread.p90)),
        ("p99", row(lambda spread: spread.p99)),
    ]


ROWS: Sequence[Row] = (
    ("served", lambda found: f"{found.served}"),
    ("refused", lambda found: f"{found.requests - found.served}"),
    ("hit rate, tokens", lambda found: f"{found.hit_rate:.4f}"),
    *_times("first token", lambda found: found.ttft_s),
    *_times("whole answer", lambda found: found.latency_s),
    ("queue, mean", lambda found: f"{found.mean_waiting:.2f}"),
    ("max", lambda found: f"{found.max_waiting}"),
    ("balance of requests, max/mean", lambda found: f"{found.requests_balance:.3f}"),
    ("of computed tokens", lambda found: f"{found.work_balance:.3f}"),
)


def report(found: Comparison) -> str:
    """All of it."""
    parts = [heading(found.trace, found.options), table(found.named, found.wall_s)]
    parts += [text for name, each in found.named if (text := remarks(name, each))]
    if found.bound is not None:
        parts.append(bound(found.bound))
    parts += map(disagreement, found.disagreements)
    return "\n\n".join(parts)


def heading(trace: Trace, options: ReplayOptions) -> str:
    """What is replayed on what."""
    engine = options.engine
    return (
        f"{trace.name}: {len(trace.requests)} requests in {trace.duration_s * options.time_scale:.0f} s, "
        f"{options.servers} servers of {engine.kv_blocks} blocks of {engine.block_size} tokens, seed {options.seed}"
    )


def table(found: Sequence[tuple[str, Figures]], wall_s: Sequence[float]) -> str:
    """A column for each configuration.

    Args:
        wall_s: how long each replay took.
    """
    lines = [["", *(name for name, _ in found)]]
    lines += [[label, *(show(each) for _, each in found)] for label, show in ROWS]
    lines.append(["replayed in, s", *(f"{seconds:.1f}" for seconds in wall_s)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    )


def remarks(name: str, found: Figures) -> str:
    """Why requests were refused, and what is not as it would be; empty if there is nothing to say."""
    lines = []
    if found.split:
        lines.append(
            f"{name}: a second server was to compute the prompt or media of {found.split} requests; "
            "here the one that answers computes all"
        )
    if found.refused:
        lines.append(f"{name} refused:")
    lines += [f"  {count} × {_short(reason)}" for reason, count in list(found.refused.items())[:MAX_REFUSALS]]
    if len(found.refused) > MAX_REFUSALS:
        lines.append(f"  and for {len(found.refused) - MAX_REFUSALS} other reasons")
    return "\n".join(lines)


def bound(found: Bound) -> str:
    """The yardstick of hit rates."""
    least = f", matches above {found.least_tokens} tokens" if found.least_tokens else ""
    return "\n".join(
        [
            "hit rates without time and load:",
            f"  {found.hit_rate:.4f}  bound: greedy choice among these caches{least}",
            f"  {found.hit_rate_longest_match:.4f}  the same if every match counts",
            f"  {found.hit_rate_joined:.4f}  one cache as large as all together",
            f"  {found.hit_rate_unlimited:.4f}  a cache without limit",
        ]
    )


def disagreement(found: Disagreement) -> str:
    """Where two configurations differ, and why."""
    one, other = found.names
    lines = [f"{one} and {other} differ on {found.differ} of {found.compared} requests ({found.share:.1%})"]
    if found.refused_by_one:
        lines[0] += f"; {found.refused_by_one} were served by one of them only"
    for group in found.groups[:MAX_GROUPS]:
        lines.append(f"  {group.requests} × {_reasons(group, one, other)}")
        lines += [f"    {_example(example)}" for example in group.examples]
    if len(found.groups) > MAX_GROUPS:
        lines.append(f"  and {len(found.groups) - MAX_GROUPS} other pairs of reasons")
    return "\n".join(lines)


def _reasons(group: Reasons, one: str, other: str) -> str:
    (reason, other_reason), (cached, other_cached) = group.reasons, group.cached_tokens
    ttft_s, other_ttft_s = group.ttft_s
    return (
        f"{one}: {reason}, {other}: {other_reason}; cached {cached:.0f} against {other_cached:.0f} tokens, "
        f"first token after {ttft_s:.2f} against {other_ttft_s:.2f} s"
    )


def _example(example: Example) -> str:
    server, other = example.servers
    cached, other_cached = example.cached_tokens
    return (
        f"line {example.line}, {example.prompt_tokens} tokens at {example.at_s:.1f} s: "
        f"{server} (cached {cached}) or {other} (cached {other_cached})"
    )


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_TEXT else line[: _MAX_TEXT - 3] + "..."
