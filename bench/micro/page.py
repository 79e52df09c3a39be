"""What the page costs: a sample of the last minutes, which is taken while no page is open too, and a look for open pages.

Run: ``python -m bench.micro.page [--endpoints 100] [--label-sets 1000] [--rounds 200]``. `on the loop` is what holds requests
up; `in a thread` is what takes turns with them. A sample is taken every 5 s, a look every 2 s, whatever the number of requests
is. The first line is the speed of the machine (see ``bench.calibration``).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import orjson

from bench.calibration import calibrate
from epp.page.feed import EVERY_S as LOOK_S
from epp.page.history import EVERY_S as SAMPLE_S
from epp.page.history import History
from epp.telemetry.metrics import Metrics
from epp.telemetry.pool import EndpointSample, PoolSnapshot
from epp.telemetry.requests import RequestFacts, RequestLabels
from epp.telemetry.totals import totals_of


def _metrics(label_sets: int) -> Metrics:
    metrics = Metrics()
    for number in range(label_sets):
        labels = RequestLabels("model", fairness_id=f"tenant-{number}", priority=number // 1000)
        metrics.request_scheduled(labels)
        metrics.request_finished(
            labels, RequestFacts(duration_s=1.0, ttft_s=0.1, input_tokens=100, output_tokens=20, cached_tokens=50)
        )
    return metrics


def _timed(function: Callable[[], object], rounds: int) -> float:
    """Median seconds of a call."""
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        function()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoints", type=int, default=100)
    parser.add_argument("--label-sets", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    print(f"calibration  {calibrate():.1f} ns per step of a pure-Python loop")
    metrics = _metrics(arguments.label_sets)
    pool = PoolSnapshot("pool", [EndpointSample(f"e-{n}", "ns", True, n, n, 0.5, 0.1) for n in range(arguments.endpoints)])
    history, totals = History(), totals_of(metrics)()
    look = _timed(lambda: totals_of(metrics), arguments.rounds)
    add = _timed(lambda: history.add(pool, 10, totals), arguments.rounds)
    add_up = _timed(totals_of(metrics), arguments.rounds)
    shown = _timed(history.as_json, arguments.rounds)
    encoded = _timed(lambda: orjson.dumps(history.as_json()), arguments.rounds)
    print(f"sample, on the loop    {1e6 * (look + add):8.1f} us every {SAMPLE_S:g} s")
    print(f"sample, in a thread    {1e6 * add_up:8.1f} us every {SAMPLE_S:g} s")
    print(
        f"history, on the loop   {1e6 * shown:8.1f} us every {SAMPLE_S:g} s while a page is open; looked for every {LOOK_S:g} s"
    )
    print(f"history, in a thread   {1e6 * (encoded - shown):8.1f} us")


if __name__ == "__main__":
    main()
