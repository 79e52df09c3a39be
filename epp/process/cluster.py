"""What a picker in a cluster has beside the others: one connection, and by it leader election and the rights of scrapers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from epp.cluster.access import AccessReview
from epp.cluster.connection import ClusterConnection
from epp.cluster.election import Election, LeaseSettings, lease_name
from epp.config.loaded import LoadedConfig
from epp.process.options import Options
from epp.transport.http_server import Access, AccessRequest, Authorize


def is_in_cluster(options: Options, config: LoadedConfig) -> bool:
    """The API server is needed: it tells of the endpoints, or holds the lease."""
    return options.needs_kubernetes and (config.discovery is None or options.ha_enable_leader_election)


class Cluster:
    """The API server as the process uses it.

    Args:
        options: process flags.
        on_lead: told when we lead and when we do not any more.
    """

    def __init__(self, options: Options, on_lead: Callable[[bool], None]) -> None:
        self.connection = ClusterConnection(options.kubeconfig)
        self._election: Election | None = None
        self._electing: asyncio.Task[None] | None = None
        if options.ha_enable_leader_election:
            settings = LeaseSettings(
                options.namespace,
                options.lease_name or lease_name(options.namespace, options.pool),
                options.leader_election_lease_duration_s,
                options.leader_election_renew_deadline_s,
                options.leader_election_retry_period_s,
            )
            self._election = Election(self.connection, settings, on_lead)

    async def start(self) -> None:
        """Read the credentials.

        Raises:
            UsageError: there are none that can be used.
        """
        await self.connection.open()

    def elect(self) -> asyncio.Task[None] | None:
        """Take part in the election from now on; None without one.

        Returns:
            A task that ends only by ``LeaseLostError``.
        """
        if self._election is not None and self._electing is None:
            self._electing = asyncio.create_task(self._election.run(), name="leader election")
        return self._electing

    async def resign(self) -> None:
        """Leave the election: a follower leads after its next try."""
        task, self._electing = self._electing, None
        if task is not None and self._election is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self._election.release()

    async def stop(self) -> None:
        """Close all connections."""
        await self.resign()
        await self.connection.close()


def authorize_by(connection: ClusterConnection) -> Authorize:
    """Lets in whom the API server knows, and who may get the page."""
    review = AccessReview(connection)

    async def authorize(request: AccessRequest) -> Access:
        return Access(*await review.allowed(request.token, request.verb, request.path))

    return authorize
