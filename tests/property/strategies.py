"""Shared generators: endpoints, their metrics and labels, candidates, totals."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from hypothesis import strategies as st

from epp.framework.candidates import Candidates
from epp.framework.keys import (
    IN_FLIGHT_LOAD,
    LATENCY_PREDICTION,
    PEER_ENDPOINT,
    PREFIX_CACHE_MATCH,
    InFlightLoad,
    LatencyPrediction,
    PrefixMatch,
)
from epp.framework.testing import make_candidates, make_request
from epp.framework.types import Endpoint, EndpointId, EndpointMetrics, InferenceRequest

T = TypeVar("T")

MAX_ENDPOINTS = 12
ADAPTERS = ("x", "y", "z")
LABELS = {
    "tier": ("gold", "silver", ""),
    "mif.moreh.io/role": ("prefill", "decode", "both", "encode-prefill", "other", ""),
    "llm-d.ai/role": ("prefill", "decode", "both", "encode"),
    "mif.moreh.io/context-length-range": ("0-8", "4-400", "0-8_100-1000", "no range"),
    "topology.kubernetes.io/zone": ("east", "west", ""),
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
    attributes=st.fixed_dictionaries({}, optional={"heat": st.floats() | st.integers(0, 3) | st.just("much")}),
)
times = st.none() | st.sampled_from([999.7, 999.9, 1000.0])
"""Those of a FakeClock that was not moved."""

labels = st.fixed_dictionaries({}, optional={key: st.sampled_from(values) for key, values in LABELS.items()})

totals = st.lists(st.floats(-10, 1000, allow_nan=False) | st.sampled_from([0.0, 1.0, 5e-324]), max_size=MAX_ENDPOINTS)
"""Weighted sums as a profile makes them, with frequent ties and the smallest float there is."""


@st.composite
def candidates(draw: st.DrawFn, min_size: int = 0) -> Candidates:
    """Endpoints a, b, c, ... with metrics, labels and ages."""
    rows = draw(st.lists(st.tuples(metrics, labels, times), min_size=min_size, max_size=MAX_ENDPOINTS))
    return make_candidates(*(list(column) for column in zip(*rows, strict=True))) if rows else make_candidates([])


milliseconds = st.sampled_from([-50.0, -1.0, 0.0, 1.0, 50.0]) | st.floats(-1e6, 1e6)

matches = st.builds(
    lambda held, more, size: PrefixMatch(held, held + more, size),
    st.integers(0, 5),
    st.integers(0, 5),
    st.sampled_from([16, 64]),
)
loads = st.builds(InFlightLoad, st.integers(0, 4), st.integers(0, 10**7), st.integers(0, 10**5))
predictions = st.builds(
    LatencyPrediction,
    ttft_ms=st.floats(0, 1e6),
    tpot_ms=st.floats(0, 1e6),
    ttft_headroom_ms=milliseconds,
    tpot_headroom_ms=milliseconds,
    ttft_is_valid=st.booleans(),
    tpot_is_valid=st.booleans(),
    dispatched_requests=st.integers(0, 2),
)

WRITERS = ("prefix-cache-scorer", "precise-prefix-cache-scorer", "approx-prefix-cache-producer")
"""Who may have written a prefix match; each reader finds the one that it looks for."""


class Decision(NamedTuple):
    """What plugins are asked about."""

    candidates: Candidates
    order: list[int]
    """A permutation of the candidates."""
    new_request: Callable[[], InferenceRequest]
    """The request with all data that a producer may have written about it."""


@st.composite
def decisions(draw: st.DrawFn) -> Decision:
    """Candidates, and a request with data about some of them."""
    given = draw(candidates())
    match, load, prediction = draw(_about(given, matches)), draw(_about(given, loads)), draw(_about(given, predictions))
    peer = draw(st.none() | st.sampled_from(given.endpoints)) if given else None
    prompt = "x" * draw(st.sampled_from([0, 20, 2000]))
    headers = draw(st.fixed_dictionaries({}, optional={"x-tier": st.sampled_from(["gold", "tin"])}))

    def new_request() -> InferenceRequest:
        request = make_request(model="x", document={"prompt": prompt}, headers=headers)
        for writer in WRITERS:
            request.data.set(PREFIX_CACHE_MATCH.by(writer), match)
        request.data.set(IN_FLIGHT_LOAD, load)
        request.data.set(LATENCY_PREDICTION, prediction)
        if peer is not None:
            request.data.set(PEER_ENDPOINT, peer)
        return request

    return Decision(given, draw(st.permutations(range(len(given)))), new_request)


@st.composite
def _about(draw: st.DrawFn, given: Candidates, values: st.SearchStrategy[T]) -> dict[EndpointId, T]:
    """A value for some of the endpoints, and one for an endpoint that is no candidate."""
    known: list[Endpoint] = draw(st.lists(st.sampled_from(given.endpoints), unique_by=lambda e: e.id)) if given else []
    return {endpoint_id: draw(values) for endpoint_id in (*(e.id for e in known), EndpointId("default/elsewhere"))}
