"""What plugins are told of the whole pool."""

from __future__ import annotations

from epp.datalayer.store import EndpointStore
from epp.decision.candidates import CandidateFinder
from epp.decision.ledger import Ledger
from epp.framework.testing import FakeClock, make_candidates, make_context, make_plugin
from epp.framework.types import UNSCRAPED, EndpointMetrics
from epp.pool.numbers import PoolNumbers
from epp.telemetry.requests import RequestLabels
from plugins.flowcontrol import utilization_detector


def test_running_requests_are_those_of_all_labels() -> None:
    ledger = Ledger()
    pool = PoolNumbers(ledger, EndpointStore(), fresh_s=2.0)
    a, b = RequestLabels("a"), RequestLabels("b", priority=-1)
    for labels in (a, a, b):
        ledger.enter(labels)
    assert pool.running_requests() == 3
    ledger.leave(a)
    assert pool.running_requests() == 2


def test_an_endpoint_is_ready_while_its_metrics_are_fresh() -> None:
    clock = FakeClock(now_s=10.0)
    store = EndpointStore()
    endpoints = make_candidates(3)
    store.replace_all(endpoints.endpoints)
    pool = PoolNumbers(Ledger(), store, 2.0, clock)
    assert pool.ready_endpoints() == 0
    store.set_metrics(endpoints[0].id, UNSCRAPED, 8.0)
    store.set_metrics(endpoints[1].id, UNSCRAPED, 10.0)
    assert pool.ready_endpoints() == 2
    clock.advance(0.5)
    assert pool.ready_endpoints() == 1


def test_w23_an_endpoint_that_was_not_scraped_for_3_s_is_full_but_stays_a_candidate() -> None:
    clock = FakeClock(now_s=10.0)
    store = EndpointStore()
    (endpoint,) = make_candidates(1)
    store.upsert(endpoint)
    store.set_metrics(endpoint.id, EndpointMetrics(waiting_queue=0, kv_cache_usage=0.0), 10.0)
    clock.advance(3.0)
    assert PoolNumbers(Ledger(), store, 2.0, clock).ready_endpoints() == 0
    detector = make_plugin(utilization_detector.PLUGIN, {}, make_context(clock=clock))
    candidates = CandidateFinder(store, clock=clock).find({})
    assert detector.saturation(candidates) == 1.0
    assert list(candidates) == [endpoint]
