"""What plugins are told of the whole pool."""

from __future__ import annotations

from epp.datalayer.store import EndpointStore
from epp.decision.ledger import Ledger
from epp.framework.testing import FakeClock, make_candidates
from epp.framework.types import UNSCRAPED
from epp.pool.numbers import PoolNumbers
from epp.telemetry.requests import RequestLabels


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
