"""What became of the demo's requests."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

_SHOWN_FAILURES = 5


@dataclass(slots=True)
class LoadResult:
    """What became of the requests so far."""

    sent: int = 0
    succeeded: int = 0
    failures: list[str] = field(default_factory=list)
    """One line for each failed request."""
    latencies_s: list[float] = field(default_factory=list)
    ttfts_s: list[float] = field(default_factory=list)
    """From sending to the first event, of those that were streamed."""
    served_by: dict[str, int] = field(default_factory=dict)
    """Requests by the server that answered."""
    cached_tokens: int = 0
    prompt_tokens: int = 0

    @property
    def hit_ratio(self) -> float:
        """Share of the prompt tokens that came from prefix caches, 0 to 1; 0 without prompts."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else 0.0

    def summary(self) -> str:
        """Some lines for people."""
        lines = [f"{self.succeeded} of {self.sent} requests succeeded"]
        for name, seconds in (("latency", self.latencies_s), ("time to first token", self.ttfts_s)):
            if seconds:
                lines.append(f"{name}: median {_median_ms(seconds)}, p99 {_ms(_p99(seconds))}")
        if self.prompt_tokens:
            lines.append(f"prompt tokens from prefix caches: {self.hit_ratio:.0%}")
        lines += [f"  {server}: {count}" for server, count in sorted(self.served_by.items())]
        lines += [f"  failed: {text}" for text in self.failures[:_SHOWN_FAILURES]]
        if len(self.failures) > _SHOWN_FAILURES:
            lines.append(f"  and {len(self.failures) - _SHOWN_FAILURES} more failures")
        return "\n".join(lines)


def comparison(results: Sequence[tuple[str, LoadResult]]) -> str:
    """The summaries of the same load on several set-ups, and what differs, in some lines for people.

    Args:
        results: by the name of the configuration, the first compared with the others.
    """
    parts = [f"{name}\n{_indented(result.summary())}" for name, result in results]
    (first_name, first), *others = results
    for name, other in others:
        hits = f"prompt tokens from prefix caches {first.hit_ratio:.0%} against {other.hit_ratio:.0%}"
        ttft = f"median time to first token {_median_ms(first.ttfts_s)} against {_median_ms(other.ttfts_s)}"
        parts.append(f"{first_name} against {name}: {hits}, {ttft}")
    return "\n".join(parts)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _p99(seconds: Sequence[float]) -> float:
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


def _median_ms(seconds: Sequence[float]) -> str:
    return _ms(statistics.median(seconds)) if seconds else "unknown"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms"
