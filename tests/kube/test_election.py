"""Several pickers of one pool: one leads. Cases L of datalayer.md, section 10.2."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

import pytest

from tests.kube.api import Api
from tests.kube.conftest import StartPicker
from tests.kube.manifests import pod, pool, role
from tests.kube.picker import Way
from tests.kube.test_events import A, endpoints

ELECTION = "--ha-enable-leader-election"
FAST = (
    ELECTION,
    "--leader-election-lease-duration=3s",
    "--leader-election-renew-deadline=2s",
    "--leader-election-retry-period=300ms",
)


@pytest.fixture
async def ready(api: Api) -> Api:
    """A pool with one pod, and the right to hold leases."""
    await api.patch(role(), {"rules": role(leases=True)["rules"]})
    await api.create(pool())
    await api.create(pod("a", A))
    return api


def lease(api: Api, name: str = "") -> dict[str, Any]:
    """The lease of the pool."""
    name = name or f"epp-{api.namespace}-chat.llm-d.ai"
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}}


async def holder(api: Api, name: str = "") -> str:
    """Who holds it."""
    found: str = (await api.get(lease(api, name)))["spec"].get("holderIdentity") or ""
    return found


async def test_l1_one_leads_and_the_other_is_warm(ready: Api, start: StartPicker) -> None:
    first = await start(ELECTION, name="first")
    await first.is_ready()
    second = await start(ELECTION, name="second")
    await second.has(endpoints(("a", A)))
    assert await second.reasons() == ["not the leader"]
    assert (await second.health("liveness"), await second.health()) == ("SERVING", "NOT_SERVING")
    assert (await second.pick()).target == f"{A}:8000", "a stray request is served"
    assert await holder(ready)
    spec = (await ready.get(lease(ready)))["spec"]
    assert (spec["leaseDurationSeconds"], spec["leaseTransitions"]) == (15, 0)
    # L4
    assert await second.health("inference-extension") == "SERVICE_UNKNOWN"


async def test_l2_the_leader_is_told_to_stop(ready: Api, start: StartPicker) -> None:
    first = await start(ELECTION, "--drain-timeout=4s", name="first")
    await first.is_ready()
    second = await start(ELECTION, name="second")
    await second.says("leader seen")
    before = await holder(ready)
    told_s = time.monotonic()
    first.process.send_signal(signal.SIGTERM)
    await second.is_ready(timeout_s=10)
    assert time.monotonic() - told_s < 1.5, "at once, not at its next try"
    assert await holder(ready) != before
    assert first.process.returncode is None, "it serves until its window is over"
    assert (await first.pick()).target == f"{A}:8000"
    assert await first.ends() == 0
    assert "lease released" in first.log
    assert (await ready.get(lease(ready)))["spec"]["leaseTransitions"] == 1


async def test_l3_the_leader_cannot_renew(ready: Api, start: StartPicker, way: Way) -> None:
    picker = await start(*FAST)
    await picker.is_ready()
    await way.cut()
    assert await picker.ends() == 1
    assert "is lost" in picker.log
    assert "not leading any more" in picker.log


async def test_the_leader_is_killed(ready: Api, start: StartPicker) -> None:
    first = await start(*FAST, name="first")
    await first.is_ready()
    second = await start(*FAST, name="second")
    await second.says("leader seen")
    first.process.kill()
    killed_s = time.monotonic()
    await second.is_ready(timeout_s=15)
    assert 1 < time.monotonic() - killed_s < 3 + 2 * 0.3 * 1.2 + 2, "the lease has to expire"


async def test_somebody_else_takes_the_lease(ready: Api, start: StartPicker) -> None:
    picker = await start(*FAST, "--lease-name=mine")
    await picker.is_ready()
    await ready.patch(lease(ready, "mine"), {"spec": {"holderIdentity": "thief", "renewTime": "2026-01-01T00:00:00.000000Z"}})
    assert await picker.ends() == 1
    assert "thief holds it" in picker.log
    assert await holder(ready, "mine") == "thief"


async def test_clocks_that_differ_do_not_matter(ready: Api, start: StartPicker) -> None:
    # Its holder lives in the past, and renews.
    stamp = {"renewTime": "2001-01-01T00:00:00.000000Z", "leaseDurationSeconds": 3, "holderIdentity": "other"}
    await ready.create(lease(ready) | {"spec": stamp})
    picker = await start(*FAST)
    await picker.says("leader seen")
    for second in range(10):
        await ready.patch(lease(ready), {"spec": {"renewTime": f"2001-01-01T00:00:{second:02}.000000Z"}})
        await asyncio.sleep(0.5)  # a leader renews by the clock
    assert await picker.reasons() == ["not the leader"]
    await picker.is_ready(timeout_s=15)


async def test_a_lease_that_may_not_be_written(api: Api, start: StartPicker) -> None:
    await api.create(pool())
    picker = await start(*FAST)
    await picker.says("lease cannot be used, trying again")
    assert await picker.health() == "NOT_SERVING"
    await api.patch(role(), {"rules": role(leases=True)["rules"]})
    await picker.is_ready()


async def test_without_election_all_are_ready(ready: Api, start: StartPicker) -> None:
    for name in ("first", "second"):
        picker = await start(name=name)
        await picker.is_ready()
        assert await picker.health("inference-extension") == "SERVING"
    assert (await ready.call("GET", ready.path(lease(ready), collection=True)))["items"] == []
