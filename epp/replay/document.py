"""The result of replays as one JSON document. Its schema is described in docs/replay.md; fields are added, never renamed.

There is nothing in it that is not the same at the next run: no wall time, no paths of this machine.
"""

from __future__ import annotations

from dataclasses import asdict

from epp.replay.bound import Bound
from epp.replay.comparison import Comparison
from epp.replay.disagreement import Disagreement
from epp.replay.figures import Figures, Interval, ServerFigures, Spread, rate
from epp.replay.run import Run

SCHEMA = 1
"""Version of the schema."""
_DIGITS = 6

Json = dict[str, object]


def document(found: Comparison) -> Json:
    """Everything that is known of these runs."""
    trace, options = found.trace, found.options
    return {
        "schema": SCHEMA,
        "trace": {"name": trace.name, "requests": len(trace.requests), "duration_s": _rounded(trace.duration_s)},
        "pool": {
            "servers": options.servers,
            "engine": asdict(options.engine),
            "labels": [dict(labels) for labels in options.labels],
            "time_scale": options.time_scale,
            "refresh_interval_s": options.refresh_interval_s,
            "seed": options.seed,
        },
        "bound": _bound(found.bound) if found.bound is not None else None,
        "configurations": [_configuration(run, each) for run, each in zip(found.runs, found.figures, strict=True)],
        "disagreements": [_disagreement(each) for each in found.disagreements],
    }


def _configuration(run: Run, found: Figures) -> Json:
    return {
        "name": run.name,
        "sha256": run.sha256,
        "requests": found.requests,
        "served": found.served,
        "refused": found.refused,
        "split": found.split,
        "duration_s": _rounded(found.duration_s),
        "prompt_tokens": found.prompt_tokens,
        "cached_tokens": found.cached_tokens,
        "output_tokens": found.output_tokens,
        "hit_rate": _rounded(found.hit_rate),
        "ttft_s": _spread(found.ttft_s),
        "latency_s": _spread(found.latency_s),
        "queued_s": _spread(found.queued_s),
        "held_s": _spread(found.held_s),
        "balance": {"requests": _rounded(found.requests_balance), "work": _rounded(found.work_balance)},
        "queue": {"mean": _rounded(found.mean_waiting), "max": found.max_waiting},
        "servers": [_server(server) for server in found.servers],
        "course": [_interval(interval) for interval in found.course],
        "defects": run.defects,
    }


def _server(server: ServerFigures) -> Json:
    return {**asdict(server), "hit_rate": _rounded(rate(server.cached_tokens, server.prompt_tokens))}


def _interval(interval: Interval) -> Json:
    return {
        "start_s": _rounded(interval.start_s),
        "requests": interval.requests,
        "hit_rate": None if interval.hit_rate is None else _rounded(interval.hit_rate),
        "ttft_s": _spread(interval.ttft_s),
        "waiting": _rounded(interval.waiting),
    }


def _disagreement(each: Disagreement) -> Json:
    return {
        "configurations": list(each.names),
        "compared": each.compared,
        "differ": each.differ,
        "share": _rounded(each.share),
        "refused_by_one": each.refused_by_one,
        "groups": [
            {
                "reasons": list(group.reasons),
                "requests": group.requests,
                "cached_tokens": [_rounded(value) for value in group.cached_tokens],
                "ttft_s": [_rounded(value) for value in group.ttft_s],
                "examples": [_example(asdict(example)) for example in group.examples],
            }
            for group in each.groups
        ],
    }


def _example(example: Json) -> Json:
    ttft_s = example["ttft_s"]
    assert isinstance(ttft_s, tuple)
    at_s = example["at_s"]
    assert isinstance(at_s, float)
    return {**example, "at_s": _rounded(at_s), "ttft_s": [None if value is None else _rounded(value) for value in ttft_s]}


def _bound(found: Bound) -> Json:
    return {
        "requests": found.requests,
        "prompt_tokens": found.prompt_tokens,
        "hit_rate": _rounded(found.hit_rate),
        "least_match_tokens": found.least_tokens,
        "hit_rate_longest_match": _rounded(found.hit_rate_longest_match),
        "hit_rate_joined": _rounded(found.hit_rate_joined),
        "hit_rate_unlimited": _rounded(found.hit_rate_unlimited),
    }


def _spread(spread: Spread | None) -> Json | None:
    return None if spread is None else {name: _rounded(value) for name, value in asdict(spread).items()}


def _rounded(value: float) -> float:
    return round(value, _DIGITS)
