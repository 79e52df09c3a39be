"""What a shadow configuration costs a request: on its way to the answer, and on the same event loop after it.

Run: ``python -m bench.micro.shadow [--endpoints 10] [--requests 5000] [--shares 0,0.1,1] [--shadow FILE]``. The request of
``bench.micro.request``, without a shadow and beside one that is shown a share of the requests; all take turns, so that a
machine that slows down favours none. `answered` is the time in the handler's calls with the complete request and at the end of
the response: what the client waits for. `afterwards` is the time in which the shadow decides and its plugins are told, with the
turns of the loop that this takes. Here the shadow may take all the time that it wants; in a picker at most a tenth of the
loop's (``epp.decision.shadow.BUDGET``), beyond which requests are not shown to it. The first line is the speed of the machine
(see ``bench.calibration``).
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from bench.calibration import calibrate
from bench.micro.request import CONFIG, BenchRequest, BenchStream, make_body, make_director, make_outcome, make_pipeline, scrape
from epp.decision.candidates import CandidateFinder
from epp.decision.pipeline import PipelineInUse
from epp.decision.shadow import Shadow
from epp.process.runtime import TaskRuntime
from epp.seam import Route
from epp.telemetry.metrics import Metrics

_BLOCK = 100
"""Requests of one variant before it is the next one's turn."""
_WARM_UP = 500
OTHER_WEIGHTS = CONFIG.replace("weight: 2", "weight: 1", 1)
"""The same plugins, one of them with another weight."""


class Variant:
    """A director, perhaps with a shadow.

    Args:
        share: of the requests, shown to the shadow; None = there is no shadow.
        endpoints: how many.
        config: the document of the shadow.
    """

    def __init__(self, share: float | None, endpoints: int, config: str) -> None:
        self.name = "no shadow" if share is None else f"share {share:g}"
        self.answered_s: list[float] = []
        self.afterwards_s: list[float] = []
        self.shadow: Shadow | None = None
        self._compared_before = 0
        self._director, self._store = make_director(endpoints)
        self._pool = list(self._store)
        self._rng = random.Random(11)
        self._body, self._outcome = make_body(), make_outcome()
        self._runtime = TaskRuntime()
        if share is not None:
            metrics = Metrics()
            used = PipelineInUse(make_pipeline(config, self._store, metrics, self._runtime))
            seconds = count()  # so much time has passed whenever it looks that nothing is left out
            self.shadow = self._director.shadow = Shadow(
                used, CandidateFinder(self._store), metrics, self._runtime.spawn, share=share, clock=lambda: next(seconds)
            )

    async def block(self, requests: int) -> None:
        """Measure so many requests, one after the other."""
        for number in range(requests):
            if number % 3 == 0:  # as many scrapes as a busy pool brings between requests
                scrape(self._store, self._rng.choice(self._pool), self._rng)
            await self._once()

    def forget(self) -> None:
        """What was measured so far was the warm-up."""
        self.answered_s.clear()
        self.afterwards_s.clear()
        self._compared_before = self._compared()

    @property
    def compared(self) -> int:
        """Requests that the shadow was shown meanwhile."""
        return self._compared() - self._compared_before

    async def stop(self) -> None:
        """End its tasks."""
        await self._runtime.stop()

    async def _once(self) -> None:
        request, stream = BenchRequest(self._body), BenchStream()
        begun = time.perf_counter()
        self._director.request(stream, request)
        answered = time.perf_counter()
        await self._settle()
        told = time.perf_counter()
        self._director.finished(stream, self._outcome)
        over = time.perf_counter()
        await self._settle(is_over=True)
        self.answered_s.append(answered - begun + over - told)
        self.afterwards_s.append(time.perf_counter() - over + told - answered)
        assert isinstance(stream.answered, Route)

    def _compared(self) -> int:
        return sum(self.shadow.tally.verdicts.values()) if self.shadow is not None else 0

    async def _settle(self, *, is_over: bool = False) -> None:
        """Let the shadow do what there is to do."""
        shadow = self.shadow
        if shadow is not None:
            while shadow.waiting or (is_over and shadow.used.open_requests):  # noqa: ASYNC110 — its turns are what is measured
                await asyncio.sleep(0)


def _row(variant: Variant) -> str:
    answered = sorted(variant.answered_s)
    median, p99 = statistics.median(answered) * 1e6, answered[int(len(answered) * 0.99)] * 1e6
    afterwards = statistics.fmean(variant.afterwards_s) * 1e6
    total = statistics.fmean(answered) * 1e6 + afterwards
    return f"{variant.name:<12}{median:>12.1f}{p99:>12.1f}{afterwards:>18.1f}{total:>14.1f}{variant.compared:>10}"


async def _measure(options: argparse.Namespace, config: str) -> None:
    variants = [Variant(share, options.endpoints, config) for share in (None, *options.shares)]
    for variant in variants:
        await variant.block(min(_WARM_UP, options.requests))
        variant.forget()
    print(f"calibration: {calibrate():.1f} ns per step of a Python loop")
    left = options.requests
    while left > 0:
        for variant in variants:
            await variant.block(min(_BLOCK, left))
        left -= _BLOCK
    print(f"{options.endpoints} endpoints, {options.requests} requests of each, microseconds for one")
    print(f"{'':<12}{'answered':>12}{'p99':>12}{'afterwards, mean':>18}{'both, mean':>14}{'compared':>10}")
    for variant in variants:
        print(_row(variant))
        await variant.stop()


def _shares(text: str) -> list[float]:
    shares = [float(word) for word in text.split(",")]
    if not all(0 <= share <= 1 for share in shares):
        raise argparse.ArgumentTypeError(f"{text!r}: a share is from 0 to 1")
    return shares


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line for each share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoints", type=int, default=10)
    parser.add_argument("--requests", type=int, default=5000, help="of each variant")
    parser.add_argument(
        "--shares", type=_shares, default=[0.0, 0.1, 1.0], metavar="A,B,...", help="of the requests, from 0 to 1"
    )
    parser.add_argument("--shadow", default="", metavar="FILE", help="its document (default: the same plugins, other weights)")
    options = parser.parse_args(argv)
    config = Path(options.shadow).read_text(encoding="utf-8") if options.shadow else OTHER_WEIGHTS
    asyncio.run(_measure(options, config))


if __name__ == "__main__":
    main()
