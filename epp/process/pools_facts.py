"""What there is to say about the pools of a process: to metrics, to who asks for models, and where none can be served."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from epp.errors import ConfigError
from epp.pools.models import ModelServers
from epp.process.options import Options
from epp.process.pool_place import PoolPlace, State
from epp.process.served_pool import ServedPool
from epp.telemetry.catalogue import PREFIX
from epp.telemetry.flow_control import Series
from epp.telemetry.instruments import Gauge

Places = Mapping[str, PoolPlace]


def series_of(places: Places) -> Iterator[Series]:
    """The families of the process that tell of its pools."""
    shared = {name: place for name, place in places.items() if place.door.is_shared}
    yield f"{PREFIX}pool_loaded", {(name,): _gauge(place.state is State.SERVED) for name, place in places.items()}
    yield f"{PREFIX}pool_ready", {(name,): _gauge(place.health.ready) for name, place in places.items()}
    yield f"{PREFIX}pool_buffered_bytes", {(name,): _gauge(place.target.held_bytes) for name, place in shared.items()}


def servers_of(served: Iterable[ServedPool], options: Options) -> Iterator[ModelServers]:
    """The model servers of each pool."""
    verify = not options.model_server_metrics_https_insecure_skip_verify
    for each in served:
        addresses = [endpoint.host_port for endpoint in each.pool.store.snapshot().endpoints]
        yield ModelServers(addresses, options.model_server_metrics_scheme, verify)


def why_none(places: Places) -> Exception:
    """Why there is nothing to serve."""
    attempts = [(name, place.last) for name, place in places.items() if place.last is not None]
    if all(last.findings for _, last in attempts):
        return ConfigError([finding for _, last in attempts for finding in last.findings])
    problems = [f"{name}: {problem}" for name, last in attempts for problem in last.problems]
    return OSError("no pool can be served: " + "; ".join(problems))


def _gauge(value: float) -> Gauge:
    gauge = Gauge()
    gauge.set(value)
    return gauge
