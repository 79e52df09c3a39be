"""Plugins hear of endpoints that came, changed and left, whatever other plugins do."""

from __future__ import annotations

import pytest

from epp.datalayer.membership import EXTENSION_POINT, Follower, PluginFollowers
from epp.datalayer.store import EndpointStore
from epp.framework.interfaces import FollowsEndpoints
from epp.framework.types import Endpoint, EndpointChange


class Mirror:
    """A plugin that keeps a copy of the pool by what it is told alone."""

    def __init__(self) -> None:
        self.pool: dict[str, Endpoint] = {}
        self.batches = 0

    def endpoints_changed(self, change: EndpointChange) -> None:
        self.batches += 1
        for endpoint in change.removed:
            assert self.pool.pop(endpoint.id) == endpoint
        for endpoint in change.updated:
            assert self.pool[endpoint.id].host_port == endpoint.host_port
            self.pool[endpoint.id] = endpoint
        for endpoint in change.added:
            assert endpoint.id not in self.pool
            self.pool[endpoint.id] = endpoint


class Broken:
    """A plugin with a bug."""

    def endpoints_changed(self, change: EndpointChange) -> None:
        raise RuntimeError("a bug")


class Defects:
    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str, str]] = []

    def plugin_failed(self, role: str, type_name: str, name: str, problem: str | Exception) -> None:
        self.seen.append((role, type_name, name, repr(problem)))


def at(name: str, port: int, **labels: str) -> Endpoint:
    return Endpoint.of(name, "10.0.0.1", port, labels)


A, B, C = at("a", 8001), at("b", 8002), at("c", 8003)


def following(*plugins: FollowsEndpoints) -> tuple[EndpointStore, Defects]:
    """A store with a, b and c that tells these plugins p1, p2, ... of the types t1, t2, ..."""
    store, defects = EndpointStore(), Defects()
    store.replace_all([A, B, C])
    followers = [Follower(f"t{number}", f"p{number}", plugin) for number, plugin in enumerate(plugins, 1)]
    store.subscribe(PluginFollowers(followers, defects))
    return store, defects


@pytest.mark.parametrize(
    "pool",
    [
        pytest.param([A, B, C, at("d", 8004)], id="one comes"),
        pytest.param([A, at("b", 8002, role="decode"), C], id="one changes its labels"),
        pytest.param([C], id="two leave"),
        pytest.param([A, at("b", 9002), C], id="one moves"),
        pytest.param([at("e", 8001), at("c", 9003), at("a", 8001, x="y")], id="all at once"),
        pytest.param([], id="all leave"),
    ],
)
def test_a_plugin_that_follows_knows_the_pool_by_one_call_for_each_change(pool: list[Endpoint]) -> None:
    mirror = Mirror()
    store, defects = following(mirror)
    assert (list(mirror.pool.values()), mirror.batches) == ([A, B, C], 1)
    store.replace_all(pool)
    assert mirror.pool == {endpoint.id: endpoint for endpoint in store}
    assert (mirror.batches, defects.seen) == (2, [])


def test_single_changes_are_batches_of_one() -> None:
    mirror = Mirror()
    store, _ = following(mirror)
    store.delete(B.id)
    store.upsert(at("d", 8004))
    store.upsert(A)
    store.delete(B.id)
    assert mirror.batches == 3, "what changes nothing is not told"
    assert list(mirror.pool) == ["default/a", "default/c", "default/d"]


def test_a_plugin_that_raises_keeps_no_other_from_hearing_and_is_reported() -> None:
    before, behind = Mirror(), Mirror()
    store, defects = following(before, Broken(), behind)
    store.delete(A.id)
    assert before.pool == behind.pool == {B.id: B, C.id: C}
    assert defects.seen == [(EXTENSION_POINT, "t2", "p2", "RuntimeError('a bug')")] * 2
