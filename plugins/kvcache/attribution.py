"""Whose events a message has: by the connection it came over, or by its topic ``kv@<pod>@<model>``.

A pod is known by the ``ip:port`` of its endpoint; one with several data-parallel ranks is several endpoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from epp.framework.types import Endpoint
from plugins.kvcache.event_processor import Source


class Topic(NamedTuple):
    """What a topic says."""

    pod: str
    """"" = nothing."""
    model: str = ""


def parse_topic(topic: str) -> Topic:
    """Pod and model of a topic; one of another form is all pod. A model's name may have an ``@``."""
    parts = topic.split("@", 2)
    return Topic(parts[1], parts[2]) if len(parts) == 3 else Topic(topic)


class Attribution:
    """The endpoints of a pool by everything that a publisher may call them. Immutable.

    Args:
        endpoints: of the pool.
    """

    def __init__(self, endpoints: Iterable[Endpoint] = ()) -> None:
        self.endpoints: Mapping[str, Endpoint] = {endpoint.host_port: endpoint for endpoint in endpoints}
        """By ``ip:port``."""
        self._of_pod: dict[tuple[str, str], list[Endpoint]] = {}
        by_address: dict[str, list[Endpoint]] = {}
        names: dict[str, Sequence[str]] = {}
        for endpoint in self.endpoints.values():
            self._of_pod.setdefault((endpoint.namespace, endpoint.pod_name), []).append(endpoint)
            by_address.setdefault(endpoint.address, []).append(endpoint)
        for (namespace, pod), ranks in self._of_pod.items():
            names[pod] = names[f"{namespace}/{pod}"] = _by_rank(ranks)
        for endpoint in self.endpoints.values():
            names[endpoint.name] = names[endpoint.id] = (endpoint.host_port,)
        for address, at_address in by_address.items():
            names[address] = names[f"[{address}]"] = [e.host_port for e in sorted(at_address, key=lambda e: e.port)]
        self._by_name = {**names, **{host_port: (host_port,) for host_port in self.endpoints}}

    def of_topic(self, topic: Topic) -> Source | None:
        """The pod that a topic names; None if no endpoint has that name."""
        pods = self._by_name.get(topic.pod)
        if not pods:
            return None
        first = next(pod for pod in pods if pod)
        return Source(first, pods if len(pods) > 1 else (), topic.model)

    def of_connection(self, host_port: str, topic: Topic) -> Source:
        """The endpoint that a connection was made to. The topic only tells the model.

        Where one socket publishes for all ranks of a pod, batches say whose they are.
        """
        endpoint = self.endpoints.get(host_port)
        if endpoint is None:
            return Source(host_port, (), topic.model)
        ranks = self._of_pod[endpoint.namespace, endpoint.pod_name]
        return Source(host_port, _by_rank(ranks) if len(ranks) > 1 else (), topic.model)


def _by_rank(endpoints: Sequence[Endpoint]) -> Sequence[str]:
    """``ip:port`` of each rank, "" where there is none."""
    found = {endpoint.rank_index: endpoint.host_port for endpoint in endpoints}
    return [found.get(rank, "") for rank in range(min(max(found), _MOST_RANKS) + 1)]


_MOST_RANKS = 1024
