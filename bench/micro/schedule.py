"""What one scheduling decision costs with many endpoints: queue + KV + prefix + no-hit-lru + max-score.

Run: ``python -m bench.micro.schedule``. Prefix matches are given as data, as a producer writes them: every third endpoint
holds a part of the prompt, or, for a cold request, none. The first line is the speed of the machine (see
``bench.calibration``).
"""

from __future__ import annotations

import random
import statistics
import time
from typing import Any

from bench.calibration import calibrate
from epp.framework.candidates import Candidates
from epp.framework.interfaces import Role
from epp.framework.keys import PREFIX_CACHE_MATCH, PrefixMatch
from epp.framework.testing import make_context, make_plugin, make_request
from epp.framework.types import Endpoint, EndpointId, EndpointMetrics, InferenceRequest
from epp.plugin_calls.step import CallWatch
from epp.process.plugin_types import build_registry
from epp.scheduling.profile import PickerStep, Profile, ScorerStep
from epp.scheduling.scheduler import HandlerStep, Scheduler

_WARM_UP = 300
_ROUNDS = 3_000
_SCORERS = ("queue-scorer", "kv-cache-utilization-scorer", "prefix-cache-scorer", "no-hit-lru-scorer")


class _NoDefects:
    def plugin_failed(self, role: str, type_name: str, name: str, problem: str | Exception) -> None:
        raise AssertionError(f"{name} ({type_name}) failed as {role}: {problem}")


def _observe(_seconds: float) -> None:
    pass


def _plugin(type_name: str) -> Any:
    plugin_type = build_registry()[0].get(type_name)
    assert plugin_type is not None
    return make_plugin(plugin_type, context=make_context(type_name))


def _watch(role: Role, name: str) -> CallWatch:
    return CallWatch(role, name, name, _NoDefects(), _observe)


def _scheduler() -> Scheduler:
    scorers = [ScorerStep(_watch(Role.SCORER, name), _plugin(name), 1.0) for name in _SCORERS]
    picker = PickerStep(_watch(Role.PICKER, "max-score-picker"), _plugin("max-score-picker"))
    watch = _watch(Role.PROFILE_HANDLER, "single-profile-handler")
    return Scheduler(HandlerStep(watch, watch, _plugin("single-profile-handler")), [Profile("default", [], scorers, picker)])


def _pool(count: int, rng: random.Random) -> Candidates:
    endpoints = [Endpoint.of(f"pod-{i}", f"10.0.{i // 250}.{1 + i % 250}", 8000) for i in range(count)]
    metrics = [EndpointMetrics(rng.randrange(20), rng.randrange(64), rng.random()) for _ in endpoints]
    return Candidates(endpoints, metrics)


def _request(pool: Candidates, rng: random.Random, *, warm: bool) -> InferenceRequest:
    request = make_request()
    held: dict[EndpointId, PrefixMatch] = {
        endpoint.id: PrefixMatch(rng.randrange(1, 40) if warm and index % 3 == 0 else 0, 40, 16)
        for index, endpoint in enumerate(pool.endpoints)
    }
    for key in (PREFIX_CACHE_MATCH.by("prefix-cache-scorer"), PREFIX_CACHE_MATCH):
        if request.data.get(key) is None:
            request.data.set(key, held)
    return request


def _median_us(count: int, *, warm: bool) -> float:
    rng = random.Random(3)
    scheduler, times = _scheduler(), []
    pool = _pool(count, rng)
    request = _request(pool, rng, warm=warm)
    for _ in range(_WARM_UP + _ROUNDS):
        fresh = Candidates(pool.endpoints, pool.metrics)  # its columns are not built yet
        begun = time.perf_counter()
        scheduler.schedule(request, fresh)
        times.append(time.perf_counter() - begun)
    return statistics.median(times[_WARM_UP:]) * 1e6


def main() -> None:
    """Print the medians."""
    print(f"calibration: {calibrate():.1f} ns per step of a Python loop")
    for count in (10, 100, 1000):
        warm, cold = _median_us(count, warm=True), _median_us(count, warm=False)
        print(f"{count:>5} endpoints: median {warm:.1f} us with a cached prefix, {cold:.1f} us without")


if __name__ == "__main__":
    main()
