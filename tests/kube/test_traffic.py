"""Requests through a real Envoy while the cluster changes, or breaks."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from epp.demo.envoy import EnvoyProcess
from tests.kube import crds
from tests.kube.api import Api, until
from tests.kube.conftest import StartPicker
from tests.kube.manifests import pool, role
from tests.kube.picker import Picker
from tests.kube.test_election import ELECTION, FAST
from tests.kube.traffic import Pods, Traffic, bootstrap, pods_of

pytestmark = pytest.mark.envoy
# The recorder belongs to tests of events; here the choice matters.
CONFIG = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: queue-scorer
- type: active-request-scorer
- type: max-score-picker
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: queue-scorer
  - pluginRef: active-request-scorer
  - pluginRef: max-score-picker
"""


@pytest.fixture
async def exits() -> AsyncIterator[AsyncExitStack]:
    """What a test starts beside pickers."""
    async with AsyncExitStack() as stack:
        yield stack


async def behind_envoy(exits: AsyncExitStack, *pickers: Picker, health_check: bool = False) -> str:
    """URL of an Envoy that asks these pickers."""
    document = bootstrap([picker.grpc_port for picker in pickers], health_check=health_check)
    envoy = await exits.enter_async_context(EnvoyProcess(document))
    return envoy.url


async def sees(picker: Picker, pods: Pods) -> None:
    """Wait until the picker's endpoints are those of the pods that live."""

    async def holds() -> bool:
        return {name.partition("-rank-")[0] for name in await picker.endpoints()} == set(pods.names())

    await until(holds, f"the endpoints are those of {pods.names()}")


async def test_kill_9_of_the_api_server_and_of_etcd_loses_no_request(
    own_api: Api, own_start: StartPicker, exits: AsyncExitStack
) -> None:
    cluster = own_api.cluster
    await own_api.install(crds.pool())
    async with pods_of(own_api, 3) as pods:
        await own_api.create(pool(ports=(pods.port,)))
        picker = await own_start(config=CONFIG)
        await sees(picker, pods)
        async with Traffic(await behind_envoy(exits, picker))() as traffic:
            cluster.kill_server()
            await picker.says("watch failed, trying again")
            await asyncio.to_thread(cluster.start_server)
            await picker.says("watch works again")
            cluster.kill_etcd()
            cluster.kill_server()
            await picker.says("watch failed, trying again", times=2)
            assert await picker.health() == "SERVING"
            cluster.start_etcd()
            await asyncio.to_thread(cluster.start_server)
            await pods.add()
            await sees(picker, pods)
        assert traffic.failures == []
        assert traffic.answers[200] == traffic.total > 100


async def test_a_rolling_update_of_the_pods(api: Api, start: StartPicker, exits: AsyncExitStack) -> None:
    async with pods_of(api, 4) as pods:
        await api.create(pool(ports=(pods.port,)))
        picker = await start(config=CONFIG)
        await sees(picker, pods)
        async with Traffic(await behind_envoy(exits, picker), rate_s=200)() as traffic:
            for old in pods.names():
                await pods.add()
                await pods.remove(old)
            await sees(picker, pods)
        assert traffic.failures == []
        assert traffic.answers[200] == traffic.total > 200


async def test_the_pool_is_changed_and_made_again_under_traffic(api: Api, start: StartPicker, exits: AsyncExitStack) -> None:
    async with pods_of(api, 2) as pods:
        await api.create(pool(ports=(pods.port,)))
        picker = await start(config=CONFIG)
        await sees(picker, pods)
        for name in ("blue1", "blue2"):
            await pods.add(name, labels={"app": "blue"})
        async with Traffic(await behind_envoy(exits, picker))() as traffic:
            await api.patch(pool(), {"spec": {"selector": {"matchLabels": {"app": "blue"}}}})

            async def turned() -> bool:
                return {name[:4] for name in await picker.endpoints()} == {"blue"}

            await until(turned, "the endpoints are those of the other selector")
            await api.patch(pool(), {"metadata": {"labels": {"touched": "1"}}})
        assert traffic.failures == []
        url = traffic.url
        await api.delete(pool())
        await picker.has({})
        async with Traffic(url)() as refused:
            await asyncio.sleep(0.2)  # some requests
        assert set(refused.answers) == {503}
        await api.create(pool(labels={"app": "blue"}, ports=(pods.port,)))
        await until(turned, "the endpoints are back")
        async with Traffic(url)() as traffic:
            await asyncio.sleep(0.2)  # some requests
        assert traffic.failures == []


async def pair(api: Api, start: StartPicker, pods: Pods, *flags: str) -> tuple[Picker, Picker]:
    """A leader, and a follower that is warm."""
    await api.patch(role(), {"rules": role(leases=True)["rules"]})
    await api.create(pool(ports=(pods.port,)))
    leader = await start(*flags, config=CONFIG, name="leader")
    await leader.is_ready()
    follower = await start(*flags, config=CONFIG, name="follower")
    await sees(leader, pods)
    await sees(follower, pods)
    await follower.says("leader seen")
    return leader, follower


async def test_a_leader_that_is_told_to_stop_is_followed_at_once(api: Api, start: StartPicker, exits: AsyncExitStack) -> None:
    async with pods_of(api, 2) as pods:
        leader, follower = await pair(api, start, pods, ELECTION, "--drain-timeout=3s")
        url = await behind_envoy(exits, leader, follower, health_check=True)
        async with Traffic(url)() as traffic:
            leader.process.send_signal(signal.SIGTERM)
            await follower.is_ready()
            assert await leader.ends() == 0
        # Not ready at once, while nobody leads yet: a data plane that heeds health has nobody to ask until it asks again.
        gap_s = max(traffic.failed_s, default=0.0) - min(traffic.failed_s, default=0.0)
        assert gap_s < 1, "a few health checks, which come five times a second"


async def test_a_leader_that_is_killed_leaves_a_gap_of_its_lease(api: Api, start: StartPicker, exits: AsyncExitStack) -> None:
    async with pods_of(api, 2) as pods:
        leader, follower = await pair(api, start, pods, *FAST)
        url = await behind_envoy(exits, leader, follower, health_check=True)
        async with Traffic(url)() as traffic:
            await asyncio.sleep(0.3)  # some requests
            killed_s = time.monotonic()
            leader.process.kill()
            await follower.is_ready()
            ready_s = time.monotonic()
            await until(lambda: _succeeds(traffic), "requests are served again")
        assert traffic.answers[200] > 0
        assert ready_s - killed_s < 3 + 2 * 0.3 * 1.2 + 1.5
        assert max(traffic.failed_s) - killed_s < ready_s - killed_s + 1


async def _succeeds(traffic: Traffic) -> bool:
    before = traffic.answers[200]
    await asyncio.sleep(0.1)  # a few requests
    return traffic.answers[200] > before
