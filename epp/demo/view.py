"""The demo's live table; plain lines where the output is no terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table

from epp.simulate.state import ServerState

_REFRESH_S = 0.25
_PLAIN_EVERY_S = 5.0


def table(states: Sequence[ServerState], total: int) -> Table:
    """One row for each server."""
    view = Table(title=f"{total} requests served", title_justify="left")
    view.add_column("server")
    view.add_column("address")
    for name in ("served", "running", "waiting", "KV cache", "prefix hits"):
        view.add_column(name, justify="right")
    for state in states:
        view.add_row(
            state.name if state.is_up else f"[red]{state.name} (down)[/red]",
            state.address,
            str(state.served),
            str(state.running),
            str(state.waiting),
            f"{state.kv_usage_ratio:.0%}",
            f"{state.prefix_hit_ratio:.0%}",
        )
    return view


async def show(states: Callable[[], Sequence[ServerState]], console: Console) -> None:
    """Show the servers until cancelled."""
    if console.is_terminal:
        await _live(states, console)
    else:
        await _lines(states, console)


async def _live(states: Callable[[], Sequence[ServerState]], console: Console) -> None:
    def current() -> Table:
        now = states()
        return table(now, sum(state.served for state in now))

    with Live(current(), console=console, auto_refresh=False) as live:
        while True:
            await asyncio.sleep(_REFRESH_S)
            live.update(current(), refresh=True)


async def _lines(states: Callable[[], Sequence[ServerState]], console: Console) -> None:
    before = -1
    while True:
        now = states()
        served = sum(state.served for state in now)
        if served != before:
            cells = "  ".join(f"{s.name} {s.served} ({s.running}+{s.waiting}, KV {s.kv_usage_ratio:.0%})" for s in now)
            console.print(f"served {served}: {cells}", highlight=False)
            before = served
        await asyncio.sleep(_PLAIN_EVERY_S)
