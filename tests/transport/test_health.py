"""grpc.health.v1 over loopback, with the stubs that nobody here wrote."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

import grpc
import pytest
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1 import health_pb2_grpc

from epp.seam import HealthStatus, HealthTable
from tests.extproc.transcripts import SETTINGS
from tests.extproc.wire import LIMIT_S, Dispatcher, Loopback, loopback
from tests.transport.transports import MakeTransport

TABLE = HealthTable({"": HealthStatus.SERVING, "readiness": HealthStatus.NOT_SERVING}, HealthStatus.SERVICE_UNKNOWN)


@pytest.fixture
async def running(make: MakeTransport) -> AsyncIterator[Loopback]:
    async with loopback(make, Dispatcher(), SETTINGS) as running:
        yield running


@pytest.mark.parametrize(
    ("service", "status"),
    [("", HealthStatus.SERVING), ("readiness", HealthStatus.NOT_SERVING), ("other", HealthStatus.SERVICE_UNKNOWN)],
)
async def test_check(running: Loopback, service: str, status: HealthStatus) -> None:
    running.transport.set_health(TABLE)
    stub = health_pb2_grpc.HealthStub(running.channel)
    assert (await stub.Check(pb.HealthCheckRequest(service=service))).status == status


async def test_nothing_serves_before_the_first_table(running: Loopback) -> None:
    stub = health_pb2_grpc.HealthStub(running.channel)
    assert (await stub.Check(pb.HealthCheckRequest())).status == HealthStatus.NOT_SERVING


async def test_list(running: Loopback) -> None:
    running.transport.set_health(TABLE)
    response = await health_pb2_grpc.HealthStub(running.channel).List(pb.HealthListRequest())
    assert {name: item.status for name, item in response.statuses.items()} == TABLE.statuses


async def test_watch_tells_changes_of_its_service_only(running: Loopback) -> None:
    transport = running.transport
    transport.set_health(TABLE)
    watch = health_pb2_grpc.HealthStub(running.channel).Watch(pb.HealthCheckRequest(service="readiness"))
    async with asyncio.timeout(LIMIT_S):
        assert (await watch.read()).status == HealthStatus.NOT_SERVING
        transport.set_health(TABLE._replace(statuses={**TABLE.statuses, "": HealthStatus.NOT_SERVING}))
        transport.set_health(TABLE._replace(statuses={"readiness": HealthStatus.SERVING}))
        assert (await watch.read()).status == HealthStatus.SERVING
        transport.set_health(TABLE._replace(statuses={}))
        assert (await watch.read()).status == HealthStatus.SERVICE_UNKNOWN
    watch.cancel()


async def test_a_watcher_may_miss_values_but_not_the_latest(running: Loopback) -> None:
    transport = running.transport
    watch = health_pb2_grpc.HealthStub(running.channel).Watch(pb.HealthCheckRequest())
    values = (*(HealthStatus.SERVICE_UNKNOWN, HealthStatus.NOT_SERVING) * 10, HealthStatus.SERVING)
    seen = []
    async with asyncio.timeout(LIMIT_S):
        seen.append((await watch.read()).status)
        for status in values:
            transport.set_health(HealthTable({}, status))
        while seen[-1] != HealthStatus.SERVING:
            seen.append((await watch.read()).status)
    assert seen[0] == HealthStatus.NOT_SERVING
    assert len(seen) <= 1 + len(values)
    assert all(before != after for before, after in pairwise(seen))
    watch.cancel()


async def test_stop_ends_watches(running: Loopback) -> None:
    watch = health_pb2_grpc.HealthStub(running.channel).Watch(pb.HealthCheckRequest())
    async with asyncio.timeout(LIMIT_S):
        await watch.read()
        await running.transport.stop(None)
        assert await watch.code() is grpc.StatusCode.UNAVAILABLE


def test_numbers_are_those_of_the_protocol() -> None:
    serving = pb.HealthCheckResponse.ServingStatus
    assert {status.name: int(status) for status in HealthStatus} == {
        name: serving.Value(name) for name in ("SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
    }
