"""What the metrics of one request cost: ``python -m bench.micro.metrics``.

A request that was scheduled and finished, with ten observations.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from bench.calibration import calibrate
from epp.decision.ledger import Ledger
from epp.telemetry.catalogue import ITL_S
from epp.telemetry.metrics import Metrics
from epp.telemetry.requests import RequestFacts, RequestLabels

_ROUNDS = 15
_CALLS = 10_000
TARGET_US = 6.0


def best_us(call: Callable[[], object], rounds: int = _ROUNDS, calls: int = _CALLS) -> float:
    """Microseconds of one call in the best of ``rounds`` rounds."""
    best = float("inf")
    for _ in range(rounds):
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        best = min(best, time.perf_counter() - begin)
    return best / calls * 1e6


def request_events() -> Callable[[], None]:
    """The two events of a streaming request of which everything is known."""
    metrics, ledger = Metrics(), Ledger()
    labels = RequestLabels("llama-3-8b", "llama-3-8b-adapter", "tenant-a", 0)
    gaps = tuple(6 if index in (2, 3, 4) else 0 for index in range(len(ITL_S) + 1))

    def events() -> None:
        metrics.request_scheduled(labels)
        ledger.enter(labels)
        ledger.leave(labels)
        metrics.request_finished(
            labels,
            RequestFacts(
                duration_s=1.31,
                ttft_s=0.12,
                streaming=True,
                request_bytes=2_310,
                response_bytes=18_220,
                input_tokens=512,
                output_tokens=128,
                cached_tokens=256,
                gaps=gaps,
                gaps_s=0.3,
            ),
        )

    return events


def main() -> None:
    """Print both figures."""
    print(f"metrics of one request   {best_us(request_events()):6.2f} us   (target: at most {TARGET_US:.0f})")
    print(f"calibration              {calibrate():6.2f} ns per step of plain Python")


if __name__ == "__main__":
    main()
