"""The demo's table, in a terminal and elsewhere."""

from __future__ import annotations

import asyncio
import io

import pytest
from rich.console import Console

from epp.demo.view import Shown, show, totals
from epp.simulate.state import ServerState


def state(name: str = "sim-0", *, served: int = 0, hits: float = 0.0, tokens: int = 0, ttft_s: float = 0.0) -> ServerState:
    return ServerState(
        name=name, address="127.0.0.1:65535", is_up=True, waiting=0, running=1, kv_usage_ratio=0.5, prefix_hit_ratio=hits,
        prompt_tokens=tokens, ttft_s=ttft_s, served=served,
    )  # fmt: skip


def test_totals_weigh_servers_by_what_they_did() -> None:
    sums = totals([state(served=3, hits=1.0, tokens=300, ttft_s=0.1), state(served=1, hits=0.0, tokens=100, ttft_s=0.5)])
    assert (sums.served, sums.hit_ratio) == (4, 0.75)
    assert sums.ttft_s == pytest.approx(0.2)
    assert totals([state()]).hit_ratio == totals([]).ttft_s == 0


@pytest.mark.parametrize("is_terminal", [True, False], ids=["terminal", "plain"])
async def test_hits_and_ttft_of_both_configurations_are_shown(is_terminal: bool) -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=is_terminal, width=80, color_system=None)
    reads = asyncio.Semaphore(0)

    def states() -> list[ServerState]:
        reads.release()
        return [state(served=4, hits=0.75, tokens=100, ttft_s=0.05)]

    shown = [Shown("prefix-load", states), Shown("random", lambda: [state(served=4, hits=0.25, tokens=100, ttft_s=0.09)])]
    task = asyncio.create_task(show(shown, console))
    async with asyncio.timeout(10):
        await reads.acquire()
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert "prefix-load: 4 requests served, prefix hits 75%, TTFT 50 ms" in text.getvalue()
    assert "random: 4 requests served, prefix hits 25%, TTFT 90 ms" in text.getvalue()
    if is_terminal:
        assert text.getvalue().count("127.0.0.1:65535") >= 2, "nothing is cut at 80 columns"
