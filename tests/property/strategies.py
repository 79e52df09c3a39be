"""Shared generators: endpoints, their metrics and labels, candidates, totals."""

from __future__ import annotations

from hypothesis import strategies as st

from epp.framework.candidates import Candidates
from epp.framework.testing import make_candidates
from epp.framework.types import EndpointMetrics

MAX_ENDPOINTS = 12
ADAPTERS = ("x", "y", "z")
LABELS = {
    "tier": ("gold", "silver", ""),
    "mif.moreh.io/role": ("prefill", "decode", "both", "encode-prefill", "other", ""),
    "llm-d.ai/role": ("prefill", "decode", "both", "encode"),
}

counts = st.none() | st.integers(0, 3) | st.integers(0, 10**9)
"""Small ones are frequent, so that ties are."""

usages = st.none() | st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0, 1.3, float("nan")])
"""KV cache usage, also from servers that report nonsense."""

adapters = st.frozensets(st.sampled_from(ADAPTERS))

metrics = st.builds(
    EndpointMetrics,
    waiting_queue=counts,
    running_requests=counts,
    kv_cache_usage=usages,
    active_models=adapters,
    waiting_models=adapters,
    max_active_models=st.integers(0, 4),
)

labels = st.fixed_dictionaries({}, optional={key: st.sampled_from(values) for key, values in LABELS.items()})

totals = st.lists(st.floats(-10, 1000, allow_nan=False) | st.sampled_from([0.0, 1.0, 5e-324]), max_size=MAX_ENDPOINTS)
"""Weighted sums as a profile makes them, with frequent ties and the smallest float there is."""


@st.composite
def candidates(draw: st.DrawFn, min_size: int = 0) -> Candidates:
    """Endpoints a, b, c, ... with metrics and labels."""
    rows = draw(st.lists(st.tuples(metrics, labels), min_size=min_size, max_size=MAX_ENDPOINTS))
    return make_candidates([row for row, _ in rows], [row for _, row in rows])


@st.composite
def shuffled_candidates(draw: st.DrawFn) -> tuple[Candidates, list[int]]:
    """Candidates and a permutation of their positions."""
    given = draw(candidates())
    return given, draw(st.permutations(range(len(given))))
