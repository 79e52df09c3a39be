"""Request headers with a client's latency objectives, under the names of both projects."""

from __future__ import annotations

TTFT_HEADERS = frozenset({"x-slo-ttft-ms", "x-llm-d-slo-ttft-ms"})
"""Time to first token, in ms."""
TPOT_HEADERS = frozenset({"x-slo-tpot-ms", "x-llm-d-slo-tpot-ms"})
"""Time per output token, in ms."""
SLO_HEADERS = TTFT_HEADERS | TPOT_HEADERS
