"""Leader election against a lease that lives in this process: every order of failures, on a clock that the test moves."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.cluster.connection import ClusterConnection, ClusterError
from epp.cluster.election import Election, LeaseLostError, LeaseSettings, lease_name

SETTINGS = LeaseSettings("n", "lease", duration_s=15.0, renew_deadline_s=10.0, retry_period_s=2.0)


class World:
    """One lease, and a clock that moves when everybody waits."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = 0

    def clock(self) -> float:
        """Seconds."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Until the clock has moved so far."""
        woken = asyncio.get_running_loop().create_future()
        self._order += 1
        self._sleepers.append((self.now + seconds, self._order, woken))
        await woken

    async def pass_time(self, seconds: float) -> None:
        """Move the clock, waking everybody in order."""
        ends = self.now + seconds
        while True:
            await self.settle()
            due = sorted(sleeper for sleeper in self._sleepers if sleeper[0] <= ends and not sleeper[2].done())
            if not due:
                break
            self.now = max(self.now, due[0][0])
            self._sleepers.remove(due[0])
            due[0][2].set_result(None)
        self.now = ends
        await self.settle()

    async def settle(self) -> None:
        """Let everybody run until all wait."""
        for _ in range(50):
            await asyncio.sleep(0)


class Line(ClusterConnection):
    """The way of one picker to the lease; it may break, and may be cut before or behind a write."""

    def __init__(self, world: World) -> None:
        super().__init__(environ={})
        self._world = world
        self.broken = False
        self.loses_answers = False

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> bytes:
        self._check()
        if query is not None:  # watches of the lease are not allowed here: followers look for themselves
            raise ClusterError("may not", 403)
        if self._world.lease is None:
            raise ClusterError("not found", 404)
        return orjson.dumps(self._world.lease)

    async def send(self, method: str, path: str, body: object, **more: Any) -> Any:
        self._check()
        world = self._world
        assert isinstance(body, dict)
        if method == "POST" and world.lease is not None:
            raise ClusterError("exists", 409)
        if method == "PUT":
            if world.lease is None:
                raise ClusterError("not found", 404)
            if body["metadata"]["resourceVersion"] != world.lease["metadata"]["resourceVersion"]:
                raise ClusterError("changed", 409)
        world.version += 1
        written = copy.deepcopy(body)
        written["metadata"]["resourceVersion"] = str(world.version)
        world.lease = written
        if self.loses_answers:
            raise ClusterError("the answer is lost")
        return copy.deepcopy(written)

    def _check(self) -> None:
        if self.broken:
            raise ClusterError("the line is broken")


class Candidate:
    """A picker that takes part."""

    def __init__(self, world: World, name: str) -> None:
        self.line = Line(world)
        self.leads = False
        self.told: list[bool] = []
        self.election = Election(
            self.line, SETTINGS, self._on_lead, identity=name, clock=world.clock, sleep=world.sleep, rng=random.Random(name)
        )
        self.task = asyncio.create_task(self.election.run())

    def _on_lead(self, leads: bool) -> None:
        self.leads = leads
        self.told.append(leads)

    async def leave(self) -> None:
        """As on SIGTERM."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.election.release()


@asynccontextmanager
async def candidates(world: World, *names: str) -> AsyncIterator[list[Candidate]]:
    """Pickers that take part until the end."""
    made = [Candidate(world, name) for name in names]
    try:
        yield made
    finally:
        for candidate in made:
            candidate.task.cancel()
        await asyncio.gather(*(candidate.task for candidate in made), return_exceptions=True)


async def test_one_leads() -> None:
    world = World()
    async with candidates(world, "a", "b", "c") as made:
        await world.pass_time(60)
        assert sum(candidate.leads for candidate in made) == 1
        assert all(candidate.told in ([], [True]) for candidate in made)


async def test_a_leader_that_leaves_is_followed_at_the_next_try() -> None:
    world = World()
    async with candidates(world, "a", "b") as (one, two):
        await world.pass_time(5)
        leader, follower = (one, two) if one.leads else (two, one)
        await leader.leave()
        assert leader.told == [True, False]
        assert world.lease is not None
        assert world.lease["spec"]["holderIdentity"] == ""
        await world.pass_time(2 * 1.2 + 0.1)
        assert follower.leads


async def test_a_leader_that_leaves_while_it_renews_frees_the_lease() -> None:
    world = World()
    async with candidates(world, "a") as (only,):
        await world.pass_time(5)
        only.line.loses_answers = True  # the lease is renewed, and nobody hears of it
        await world.pass_time(2)
        only.line.loses_answers = False
        await only.leave()
        assert world.lease is not None
        assert world.lease["spec"]["holderIdentity"] == ""


async def test_a_leader_that_leaves_frees_the_lease_of_nobody_else() -> None:
    world = World()
    async with candidates(world, "a") as (only,):
        await world.pass_time(5)
        assert world.lease is not None
        world.lease["spec"]["holderIdentity"] = "thief"
        world.lease["metadata"]["resourceVersion"] = "of the thief"
        await only.leave()
        assert world.lease["spec"]["holderIdentity"] == "thief"


async def test_l3_a_leader_that_cannot_renew_gives_up_before_others_may_lead() -> None:
    world = World()
    async with candidates(world, "a", "b") as (one, two):
        await world.pass_time(5)
        leader, follower = (one, two) if one.leads else (two, one)
        leader.line.broken = True
        await world.pass_time(8.5)  # it renewed a second before the line broke
        assert leader.leads
        await world.pass_time(1.5)
        assert not leader.leads
        with pytest.raises(LeaseLostError, match="the line is broken"):
            await leader.task
        assert not follower.leads
        await world.pass_time(9.5)
        assert follower.leads


async def test_a_short_break_does_not_matter() -> None:
    world = World()
    async with candidates(world, "a", "b") as (one, two):
        await world.pass_time(5)
        leader = one if one.leads else two
        leader.line.broken = True
        await world.pass_time(7)
        leader.line.broken = False
        await world.pass_time(60)
        assert leader.told == [True]


async def test_an_answer_that_is_lost_does_not_matter() -> None:
    world = World()
    async with candidates(world, "a") as (only,):
        await world.pass_time(5)
        only.line.loses_answers = True
        await world.pass_time(3)
        only.line.loses_answers = False
        await world.pass_time(30)
        assert only.told == [True]


async def test_a_lease_that_is_deleted_is_made_again() -> None:
    world = World()
    async with candidates(world, "a") as (only,):
        await world.pass_time(5)
        world.lease = None
        await world.pass_time(10)
        assert world.lease is not None
        assert only.told == [True]


@given(
    st.lists(
        st.tuples(st.sampled_from(["break", "mend", "lose", "find"]), st.integers(0, 2), st.floats(0.1, 20.0)), max_size=25
    )
)
@settings(max_examples=60)
def test_two_never_lead_at_once(steps: list[tuple[str, int, float]]) -> None:
    async def run() -> None:
        world = World()
        async with candidates(world, "a", "b", "c") as made:
            for what, number, seconds in steps:
                line = made[number].line
                line.broken = {"break": True, "mend": False}.get(what, line.broken)
                line.loses_answers = {"lose": True, "find": False}.get(what, line.loses_answers)
                for _ in range(8):
                    await world.pass_time(seconds / 8)
                    assert sum(candidate.leads for candidate in made) <= 1

    asyncio.run(run())


@pytest.mark.parametrize(("namespace", "pool"), [("n" * 63, "p" * 253), ("n", "a.b.c")])
def test_any_name_of_a_pool_makes_a_name_of_a_lease(namespace: str, pool: str) -> None:
    name = lease_name(namespace, pool)
    assert len(name) <= 253
    assert name.startswith("epp-")
    assert name.endswith(".llm-d.ai")
