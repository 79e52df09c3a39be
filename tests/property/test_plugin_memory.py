"""What plugins remember of requests and endpoints that are gone does not grow."""

from __future__ import annotations

import asyncio
import gc
import sys
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import pytest

import plugins
from epp.framework.candidates import Candidates
from epp.framework.interfaces import HOOK_ROLES, SCHEDULING_ROLES, FollowsEndpoints
from epp.framework.registry import PluginType
from epp.framework.testing import FakeClock, FakeHeaders, RecordedEdits, make_context, make_plugin, make_request
from epp.framework.types import (
    Endpoint,
    EndpointChange,
    EndpointMetrics,
    Freshness,
    InferenceRequest,
    ResponseInfo,
    StreamingChunk,
    Usage,
)
from tests.property.test_plugins import VARIANTS
from tests.unit.plugins.flights import begin, decided, end
from tests.unit.plugins.test_plugin_types import MINIMAL

REQUESTS = 60
DAY_S = 86_400.0
"""Longer than anything is kept by default, except responses."""
ELSEWHERE = {"responses-store"}
"""Its bounds are those of its repository, which has tests of its own."""
CODE = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)


def cases() -> list[Any]:
    """Every built type that is asked about requests, with each of its variants."""
    return [
        pytest.param(plugin_type, parameters, id=f"{plugin_type.type}-{number}")
        for plugin_type in plugins.plugin_types()
        if plugin_type.is_built and plugin_type.roles & (HOOK_ROLES | SCHEDULING_ROLES) and plugin_type.type not in ELSEWHERE
        for number, parameters in enumerate(VARIANTS.get(plugin_type.type, [MINIMAL.get(plugin_type.type, {})]))
    ]


def size_bytes(plugin: object, clock: FakeClock) -> int:
    """Of all objects that a plugin holds, code aside."""
    seen = {id(clock)}
    todo, total = [plugin], 0
    while todo:
        here = todo.pop()
        if id(here) in seen or isinstance(here, CODE):
            continue
        seen.add(id(here))
        total += sys.getsizeof(here)
        todo += gc.get_referents(here)
    return total


async def serve(plugin: Any, number: int, endpoints: Candidates) -> None:
    """A request of a client of its own for a model of its own, from its headers to the end of its response."""
    request = make_request(
        request_id=f"r{number}", model=f"m{number}", headers={"x-session-id": f"s{number}", "x-tier": f"t{number}"}
    )
    result = decided(endpoints[0], prefill=endpoints[1])
    calls: list[tuple[str, tuple[object, ...]]] = [
        ("process_request", (request, RecordedEdits())),
        ("screen", (request, endpoints)),
        ("produce", (request, endpoints)),
        ("admit", (request, endpoints)),
        ("filter", (request, endpoints)),
        ("score", (request, endpoints)),
    ]
    for name, arguments in calls:
        if hasattr(plugin, name):
            found = getattr(plugin, name)(*arguments)
            if asyncio.iscoroutine(found):
                await found
    if hasattr(plugin, "pre_request"):
        begin(plugin, request, result)
    if hasattr(plugin, "response_received"):
        plugin.response_received(request, result, ResponseInfo(200, FakeHeaders(), result.target, {}, 0.0), RecordedEdits())
    if hasattr(plugin, "response_streaming"):
        plugin.response_streaming(request, result, StreamingChunk(b"data: 1", False, 0.0, Usage()))
    if hasattr(plugin, "response_complete"):
        end(plugin, request, result)


async def serve_many(plugin: Any, clock: FakeClock, first: int) -> None:
    """Requests to endpoints that leave afterwards; then a day passes."""
    for number in range(first, first + REQUESTS):
        pair = [Endpoint.of(f"{name}{number}", "10.0.0.1", 8000, {"tier": f"t{number}"}) for name in "ab"]
        metrics = EndpointMetrics(waiting_queue=1, running_requests=1, kv_cache_usage=0.5)
        if isinstance(plugin, FollowsEndpoints):
            plugin.endpoints_changed(EndpointChange(added=tuple(pair)))
        await serve(plugin, number, Candidates(pair, [metrics, metrics], [Freshness(clock())] * 2))
        if isinstance(plugin, FollowsEndpoints):
            for endpoint in pair:
                plugin.endpoints_changed(EndpointChange(removed=(endpoint,)))
    clock.advance(DAY_S)
    lasting = [Endpoint.of(name, "10.0.0.1", 8000) for name in "ab"]
    await serve(plugin, 0, Candidates(lasting, [EndpointMetrics()] * 2))


async def growth_bytes(plugin: object, clock: FakeClock) -> int:
    """By how much three batches of requests let a plugin grow that has seen one."""
    sizes = []
    for batch in range(4):
        await serve_many(plugin, clock, 1 + batch * REQUESTS)
        sizes.append(size_bytes(plugin, clock))
    return max(sizes[1:]) - sizes[0]


FEW_BYTES = 2000
"""A small integer for each request of the batches would be more."""


@pytest.mark.parametrize(("plugin_type", "parameters"), cases())
async def test_memory_does_not_grow(plugin_type: PluginType, parameters: dict[str, Any]) -> None:
    clock = FakeClock()
    plugin = make_plugin(plugin_type, parameters, make_context(plugin_type.type, clock=clock))
    assert await growth_bytes(plugin, clock) < FEW_BYTES


class Hoards:
    """Keeps one thing of each request."""

    def __init__(self, thing: str) -> None:
        self._thing = thing
        self._kept: set[object] = set()

    def score(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        self._kept.add(request.request_id if self._thing == "request" else candidates[0].id)
        return [0.0] * len(candidates)


@pytest.mark.parametrize("thing", ["request", "endpoint"])
async def test_the_smallest_leak_is_seen(thing: str) -> None:
    assert await growth_bytes(Hoards(thing), FakeClock()) > FEW_BYTES
