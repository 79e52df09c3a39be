"""Cases of the Gateway API Inference Extension's conformance suite that concern the picker, through Envoy.

A gateway is not there: Envoy has the configuration that one makes of an HTTPRoute to the pool. Whether routes and pools are
accepted, weighted and reported is the gateway's own.
Source: kubernetes-sigs/gateway-api-inference-extension: conformance/tests.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping

import aiohttp
import pytest

from epp.demo.envoy import EnvoyProcess
from epp.simulate.options import DEFAULT_MODEL
from tests.kube.api import Api
from tests.kube.conftest import StartPicker
from tests.kube.manifests import pool
from tests.kube.test_traffic import sees
from tests.kube.traffic import bootstrap, pods_of

pytestmark = pytest.mark.envoy
SELECTION = "test-epp-endpoint-selection"
CONFIG = """
apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: header-based-testing-filter
- type: random-picker
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: header-based-testing-filter
  - pluginRef: random-picker
"""
REQUESTS, AT_ONCE = 100, 10


async def served_by(url: str, selection: str) -> Counter[str]:
    """Who answered how many of a hundred requests that name endpoints; every one must be answered."""
    counts: Counter[str] = Counter()
    gate = asyncio.Semaphore(AT_ONCE)
    body = {"model": DEFAULT_MODEL, "prompt": "Write as if you were a critic: San Francisco", "max_tokens": 2}

    async def one(session: aiohttp.ClientSession) -> None:
        async with gate, session.post(f"{url}/v1/completions", json=body, headers={SELECTION: selection}) as response:
            assert response.status == 200, await response.text()
            counts[response.headers["x-served-by"]] += 1

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(one(session) for _ in range(REQUESTS)))
    return counts


async def test_traffic_goes_where_the_picker_says(api: Api, start: StartPicker) -> None:
    """GatewayFollowingEPPRouting."""
    async with pods_of(api) as pods:
        one, two, three = [await pods.add() for _ in range(3)]
        await api.create(pool(ports=(pods.port,)))
        picker = await start(config=CONFIG)
        await sees(picker, pods)
        async with EnvoyProcess(bootstrap([picker.grpc_port])) as envoy:
            for chosen in ((three,), (one, two), (one, two, three)):
                counts = await served_by(envoy.url, ",".join(chosen))
                assert set(counts) == {f"{address}:{pods.port}" for address in chosen}


async def test_traffic_goes_to_the_ranks_that_the_picker_says(api: Api, start: StartPicker) -> None:
    """GatewayFollowingEPPRoutingWithDataParallelism."""
    async with pods_of(api) as pods:
        ports = tuple(pods.port + offset for offset in range(8))
        one, two, three = [await pods.add(ports=ports) for _ in range(3)]
        await api.create(pool(ports=ports))
        picker = await start(config=CONFIG)
        await sees(picker, pods)
        everywhere = frozenset(ports)
        async with EnvoyProcess(bootstrap([picker.grpc_port])) as envoy:
            cases: list[Mapping[str, frozenset[int]]] = [
                {two: everywhere},
                {one: everywhere, three: frozenset({ports[2]})},
                {one: everywhere, two: frozenset({ports[0], ports[4]}), three: everywhere},
            ]
            for case in cases:
                named = [
                    address if allowed == everywhere else ",".join(f"{address}:{port}" for port in allowed)
                    for address, allowed in case.items()
                ]
                counts = await served_by(envoy.url, ",".join(named))
                assert set(counts) <= {f"{address}:{port}" for address, allowed in case.items() for port in allowed}
                assert {address.partition(":")[0] for address in counts} == set(case)
