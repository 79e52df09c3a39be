"""Readiness from components, drain and leadership."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from epp.process.health import Health
from epp.seam import HealthStatus, HealthTable

EXT_PROC = "envoy.service.ext_proc.v3.ExternalProcessor"
SERVING, NOT_SERVING, UNKNOWN = HealthStatus.SERVING, HealthStatus.NOT_SERVING, HealthStatus.SERVICE_UNKNOWN
Change = Callable[[Health], None]


def started(*, leader_election: bool = False) -> Health:
    health = Health(["configuration", "pool"], leader_election=leader_election)
    health.set_ready("configuration")
    health.set_ready("pool")
    return health


def lead(health: Health) -> None:
    health.set_leading(True)


def lose_pool(health: Health) -> None:
    health.set_not_ready("pool", "not synced")


def answer(table: HealthTable, service: str) -> HealthStatus:
    return table.statuses.get(service, table.default)


@pytest.mark.parametrize(
    ("leader_election", "changes", "readiness", "other"),
    [
        pytest.param(False, [], SERVING, SERVING, id="ready"),
        pytest.param(False, [lose_pool], NOT_SERVING, NOT_SERVING, id="a component is not"),
        pytest.param(False, [Health.drain], NOT_SERVING, NOT_SERVING, id="draining"),
        pytest.param(True, [], NOT_SERVING, UNKNOWN, id="L4 election, not leading: unknown services stay unknown"),
        pytest.param(True, [lead], SERVING, UNKNOWN, id="election, leading"),
        pytest.param(True, [lead, lose_pool], NOT_SERVING, UNKNOWN, id="election, leading without pool"),
        pytest.param(True, [lead, Health.drain], NOT_SERVING, UNKNOWN, id="election, leading and draining"),
    ],
)
def test_answers_by_service(leader_election: bool, changes: list[Change], readiness: HealthStatus, other: HealthStatus) -> None:
    health = started(leader_election=leader_election)
    for change in changes:
        change(health)
    table = health.table()
    for service in ("", "readiness", EXT_PROC):
        assert answer(table, service) is readiness
    for service in ("inference-extension", "any-name-a-chart-probes"):
        assert answer(table, service) is other
    assert answer(table, "liveness") is SERVING
    assert set(table.statuses) == {"", "readiness", "liveness", EXT_PROC}


@pytest.mark.parametrize(
    ("health", "expected"),
    [
        pytest.param(Health([]), [], id="nothing to wait for"),
        pytest.param(Health(["pool"]), ["pool: not started"], id="not started"),
        pytest.param(started(), [], id="ready"),
        pytest.param(started(leader_election=True), ["not the leader"], id="not leading"),
    ],
)
def test_reasons_are_given(health: Health, expected: list[str]) -> None:
    assert health.why() == expected
    assert health.ready is (not expected)


def test_all_reasons_are_given_at_once() -> None:
    health = Health(["configuration", "pool"], leader_election=True)
    health.set_not_ready("pool", "waiting for InferencePool default/chat")
    health.drain()
    assert health.why() == [
        "draining",
        "configuration: not started",
        "pool: waiting for InferencePool default/chat",
        "not the leader",
    ]


def test_a_drain_cannot_be_undone() -> None:
    health = started()
    health.drain()
    health.set_not_ready("pool", "gone")
    health.set_ready("pool")
    assert health.draining
    assert not health.ready


def test_only_changes_of_answers_are_told() -> None:
    told: list[HealthTable] = []
    health = Health(["configuration", "pool"], on_change=told.append)
    health.set_ready("configuration")
    assert told == []
    health.set_ready("pool")
    health.set_ready("pool")
    assert [answer(table, "") for table in told] == [SERVING]
    health.set_not_ready("pool", "not synced")
    health.set_not_ready("pool", "still not synced")
    health.drain()
    assert [answer(table, "") for table in told] == [SERVING, NOT_SERVING]


def test_leadership_matters_only_with_election() -> None:
    health = started()
    health.set_leading(False)
    assert health.ready


def test_losing_leadership_is_told() -> None:
    told: list[HealthTable] = []
    health = Health([], leader_election=True, on_change=told.append)
    health.set_leading(True)
    health.set_leading(False)
    assert [answer(table, "readiness") for table in told] == [SERVING, NOT_SERVING]


@pytest.mark.parametrize(
    "change", [lambda h: h.set_ready("pol"), lambda h: h.set_not_ready("pol", "x")], ids=["ready", "not ready"]
)
def test_an_unknown_component_is_a_defect(change: Change) -> None:
    with pytest.raises(KeyError, match="no health component 'pol'; there are configuration, pool"):
        change(started())


def test_names_of_pools_have_answers_of_their_own() -> None:
    told: list[HealthTable] = []
    health = Health(["pools"], leader_election=True, on_change=told.append)
    health.set_ready("pools")
    health.set_named({"chat": True, "code": False})
    assert [answer(health.table(), name) for name in ("chat", "code")] == [NOT_SERVING, NOT_SERVING], "another one leads"
    health.set_leading(True)
    assert [answer(health.table(), name) for name in ("chat", "code", "")] == [SERVING, NOT_SERVING, SERVING]
    count = len(told)
    health.set_named({"chat": True, "code": False})
    assert len(told) == count, "nothing has changed"
    health.set_named({"chat": False})
    assert answer(told[-1], "chat") is NOT_SERVING
    health.set_named({"chat": True})
    health.drain()
    assert answer(health.table(), "chat") is NOT_SERVING
