"""The demo's live table; plain lines where the output is no terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from epp.simulate.state import ServerState

_REFRESH_S = 0.25
_PLAIN_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Shown:
    """Servers that one configuration routes to."""

    name: str
    """Of the configuration; "" if there is only one."""
    states: Callable[[], Sequence[ServerState]]


@dataclass(frozen=True, slots=True)
class Totals:
    """Of all servers of a configuration."""

    served: int
    hit_ratio: float
    """Share of the prompt tokens that prefix caches held, 0 to 1."""
    ttft_s: float
    """Mean time to the first token at the servers."""


def totals(states: Sequence[ServerState]) -> Totals:
    """Add the servers up."""
    served = sum(state.served for state in states)
    queried = sum(state.prompt_tokens for state in states)
    hits = sum(state.prefix_hit_ratio * state.prompt_tokens for state in states)
    ttft_s = sum(state.ttft_s * state.served for state in states)
    return Totals(served, hits / queried if queried else 0.0, ttft_s / served if served else 0.0)


def line(name: str, sums: Totals) -> str:
    """The totals in words."""
    head = f"{name}: " if name else ""
    return f"{head}{sums.served} requests served, prefix hits {sums.hit_ratio:.0%}, TTFT {sums.ttft_s * 1e3:.0f} ms"


def table(name: str, states: Sequence[ServerState]) -> Table:
    """One row for each server."""
    view = Table(title=line(name, totals(states)), title_justify="left")
    view.add_column("server")
    view.add_column("address", no_wrap=True)
    for column in ("served", "running", "waiting", "KV", "hits", "TTFT"):  # all of it fits into 80 columns
        view.add_column(column, justify="right")
    for state in states:
        view.add_row(
            state.name if state.is_up else f"[red]{state.name} (down)[/red]",
            state.address,
            str(state.served),
            str(state.running),
            str(state.waiting),
            f"{state.kv_usage_ratio:.0%}",
            f"{state.prefix_hit_ratio:.0%}",
            f"{state.ttft_s * 1e3:.0f} ms",
        )
    return view


async def show(shown: Sequence[Shown], console: Console) -> None:
    """Show the servers until cancelled."""
    if console.is_terminal:
        await _live(shown, console)
    else:
        await _lines(shown, console)


async def _live(shown: Sequence[Shown], console: Console) -> None:
    def current() -> Group:
        return Group(*(table(each.name, each.states()) for each in shown))

    with Live(current(), console=console, auto_refresh=False) as live:
        while True:
            await asyncio.sleep(_REFRESH_S)
            live.update(current(), refresh=True)


async def _lines(shown: Sequence[Shown], console: Console) -> None:
    before: list[int] = []
    while True:
        now = [each.states() for each in shown]
        served = [sum(state.served for state in states) for states in now]
        if served != before:
            for each, states in zip(shown, now, strict=True):
                cells = "  ".join(f"{s.name} {s.served} ({s.running}+{s.waiting}, KV {s.kv_usage_ratio:.0%})" for s in states)
                console.print(f"{line(each.name, totals(states))}: {cells}", highlight=False, markup=False, soft_wrap=True)
            before = served
        await asyncio.sleep(_PLAIN_EVERY_S)
