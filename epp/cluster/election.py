"""Leader election by a Lease: one of several pickers of a pool is ready, the others are warm.

Time is never compared across machines: a lease counts as expired when its record has not changed for its duration by our own
clock. Source: kubernetes/client-go: tools/leaderelection/leaderelection.go; llm-d-router: pkg/epp/server/controller_manager.go.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import random
import socket
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from epp.cluster.connection import ClusterConnection, ClusterError
from epp.cluster.watch import Changed, Collection, Watch
from epp.framework import log

_logger = log.get(__name__)

JITTER = 1.2
"""Followers wait up to this factor longer, so that they do not try together."""
RELEASE_TIMEOUT_S = 2.0
_MAX_NAME = 253
_NOT_FOUND, _CONFLICT, _UNAUTHORIZED = 404, 409, 401


class LeaseLostError(OSError):
    """We led, and may not any more: somebody else leads, or the lease could not be renewed in time."""


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    """Name and timing."""

    namespace: str
    name: str
    duration_s: float = 15.0
    """How long others wait for a leader that is silent."""
    renew_deadline_s: float = 10.0
    """How long the leader tries to renew before it gives up; shorter than ``duration_s``."""
    retry_period_s: float = 2.0


def lease_name(namespace: str, pool: str) -> str:
    """The name that all pickers of a pool agree on."""
    name = f"epp-{namespace}-{pool}.llm-d.ai"
    if len(name) <= _MAX_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"epp-{digest}.llm-d.ai"


class Election:
    """Takes part in the election from ``run`` to ``release``.

    Args:
        connection: the API server.
        settings: which lease, and how fast.
        on_lead: told True when we lead and False when we do not any more.
        identity: of this process; must differ from that of every other.
        clock, sleep, rng: replaced in tests.
    """

    def __init__(
        self,
        connection: ClusterConnection,
        settings: LeaseSettings,
        on_lead: Callable[[bool], None],
        *,
        identity: str = "",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._on_lead = on_lead
        self.identity = identity or f"{socket.gethostname()}_{uuid.uuid4()}"
        self._clock = clock
        self._sleep = sleep
        self._rng = rng or random.Random()
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{settings.namespace}/leases"
        self._path = f"{self._collection}/{settings.name}"
        self._lease: dict[str, Any] | None = None
        """As last seen; None = there is none."""
        self._seen: tuple[Any, ...] = ()
        self._seen_s = float("-inf")
        """When the record was first seen as it is."""
        self._freed = asyncio.Event()
        self._leads = False
        self._problem = ""

    async def run(self) -> None:
        """Wait until we lead, then renew.

        Raises:
            LeaseLostError: we led, and do not any more.
        """
        settings = self._settings
        _logger.info("leader election", lease=settings.name, namespace=settings.namespace, identity=self.identity)
        watching = asyncio.create_task(self._watch(), name="watch lease")
        try:
            while not await self._try():
                await self._until_free(settings.retry_period_s * self._rng.uniform(1, JITTER))
        finally:
            watching.cancel()
        self._lead(leads=True)
        renewed_s = self._clock()
        while self._clock() - renewed_s < settings.renew_deadline_s:
            await self._sleep(settings.retry_period_s)
            left_s = renewed_s + settings.renew_deadline_s - self._clock()
            try:
                async with asyncio.timeout(max(left_s, 0)):
                    renewed = await self._try()
            except TimeoutError:
                renewed = False
            if renewed:
                renewed_s = self._clock()
            elif self._holder not in ("", self.identity):
                break
        self._lead(leads=False)
        raise LeaseLostError(
            f"the lease {settings.namespace}/{settings.name} is lost: {self._problem or self._holder + ' holds it'}"
        )

    async def _until_free(self, seconds: float) -> None:
        """Wait for the next try, or until the lease is given up: then it is free before it expires."""
        pause = asyncio.ensure_future(self._sleep(seconds))
        freed = asyncio.create_task(self._freed.wait())
        try:
            await asyncio.wait([pause, freed], return_when=asyncio.FIRST_COMPLETED)
        finally:
            pause.cancel()
            freed.cancel()
            self._freed.clear()

    async def _watch(self) -> None:
        """Notice at once that the lease is given up. Where it may not be watched, a follower notices at its next try."""
        collection = Collection(self._collection, field_selector=f"metadata.name={self._settings.name}")
        watch = Watch(self._connection, collection, _holder_of, optional=True)
        async for event in watch.events():
            if isinstance(event, Changed) and any(change.is_deleted or not change.object for change in event.changes):
                self._freed.set()

    async def release(self) -> None:
        """Give the lease up, so that a follower leads after its next try; nothing happens if we do not lead."""
        if not self._leads or self._lease is None:
            return
        self._lead(leads=False)
        try:
            await self._free()
        except ClusterError as error:
            _logger.warning("lease not released, followers wait until it expires", problem=str(error))
        else:
            _logger.info("lease released", lease=self._settings.name)

    async def _free(self) -> None:
        """Write that nobody holds the lease. A renewal that was cut off may have been written: then we look, once."""
        try:
            await self._write(holder="", duration_s=1, timeout_s=RELEASE_TIMEOUT_S)
        except ClusterError as error:
            if error.status != _CONFLICT:
                raise
            await self._look()
            if self._holder != self.identity:
                raise
            await self._write(holder="", duration_s=1, timeout_s=RELEASE_TIMEOUT_S)

    @property
    def _holder(self) -> str:
        return _holder_of(self._lease or {})

    def _lead(self, *, leads: bool) -> None:
        if leads != self._leads:
            self._leads = leads
            _logger.info("leading" if leads else "not leading any more", lease=self._settings.name)
            self._on_lead(leads)

    async def _try(self) -> bool:
        """Acquire or renew; whether we hold the lease now."""
        try:
            if not self._leads:
                await self._look()
            if self._holder not in ("", self.identity) and not self._has_expired:
                return False
            try:
                await self._write(self.identity, self._settings.duration_s, self._settings.renew_deadline_s)
            except ClusterError as error:
                if error.status not in (_CONFLICT, _NOT_FOUND):
                    raise
                await self._look()  # somebody wrote first, or deleted it
                return False
        except ClusterError as error:
            if error.status == _UNAUTHORIZED:
                self._connection.forget_credentials()
            if str(error) != self._problem:
                self._problem = str(error)
                _logger.warning("lease cannot be used, trying again", problem=self._problem)
            return False
        self._problem = ""
        return True

    @property
    def _has_expired(self) -> bool:
        """The record has not changed for as long as it is said to be good."""
        spec = (self._lease or {}).get("spec") or {}
        return self._clock() - self._seen_s > float(spec.get("leaseDurationSeconds") or 0)

    async def _look(self) -> None:
        """Read the lease."""
        try:
            found = orjson.loads(await self._connection.get(self._path))
        except ClusterError as error:
            if error.status != _NOT_FOUND:
                raise
            found = None
        holder = self._holder
        self._lease = found
        spec = (found or {}).get("spec") or {}
        seen = tuple(spec.get(name) for name in ("holderIdentity", "renewTime", "acquireTime", "leaseTransitions"))
        if seen != self._seen:
            self._seen, self._seen_s = seen, self._clock()
        if self._holder != holder and self._holder:
            _logger.info("leader seen", lease=self._settings.name, holder=self._holder)

    async def _write(self, holder: str, duration_s: float, timeout_s: float) -> None:
        """Create or update the lease; the version that we saw must still be the current one."""
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        lease, before = self._lease, (self._lease or {}).get("spec") or {}
        is_ours = before.get("holderIdentity") == self.identity
        spec = {
            "holderIdentity": holder,
            "leaseDurationSeconds": max(1, round(duration_s)),
            "acquireTime": before.get("acquireTime") if is_ours else now,
            "renewTime": now,
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + (0 if is_ours or lease is None else 1),
        }
        if lease is None:
            body = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self._settings.name, "namespace": self._settings.namespace},
                "spec": spec,
            }
            self._lease = await self._connection.send("POST", self._collection, body, timeout_s=timeout_s)
        else:
            self._lease = await self._connection.send("PUT", self._path, {**lease, "spec": spec}, timeout_s=timeout_s)


def _holder_of(lease: Mapping[str, Any]) -> str:
    """Who holds a lease; empty = nobody."""
    return str((lease.get("spec") or {}).get("holderIdentity") or "")
