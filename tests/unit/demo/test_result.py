"""What the demo says at its end."""

from __future__ import annotations

from epp.demo.result import LoadResult, comparison


def result(cached_tokens: int, ttft_s: float) -> LoadResult:
    return LoadResult(
        sent=3, succeeded=2, failures=["status 503: full"], latencies_s=[0.1, 0.3, 0.2], ttfts_s=[ttft_s],
        served_by={"b:1": 1, "a:1": 1}, cached_tokens=cached_tokens, prompt_tokens=1000,
    )  # fmt: skip


def test_a_summary_counts_measures_and_names_failures() -> None:
    assert result(250, 0.05).summary().splitlines() == [
        "2 of 3 requests succeeded",
        "latency: median 200 ms, p99 300 ms",
        "time to first token: median 50 ms, p99 50 ms",
        "prompt tokens from prefix caches: 25%",
        "  a:1: 1",
        "  b:1: 1",
        "  failed: status 503: full",
    ]


def test_many_failures_are_cut_short() -> None:
    many = LoadResult(sent=9, failures=[f"no {number}" for number in range(9)])
    assert many.summary().splitlines() == [
        "0 of 9 requests succeeded",
        *[f"  failed: no {number}" for number in range(5)],
        "  and 4 more failures",
    ]


def test_a_comparison_shows_both_and_the_difference() -> None:
    lines = comparison([("prefix", result(750, 0.05)), ("random", result(250, 0.09))]).splitlines()
    assert lines[0] == "prefix"
    assert lines[1] == "  2 of 3 requests succeeded"
    assert lines[8] == "random"
    hits = "prompt tokens from prefix caches 75% against 25%"
    assert lines[-1] == f"prefix against random: {hits}, median time to first token 50 ms against 90 ms"


def test_nothing_measured_is_no_error() -> None:
    assert comparison([("a", LoadResult()), ("b", LoadResult())]).splitlines()[-1].endswith("unknown against unknown")
