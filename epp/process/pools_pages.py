"""What the metrics port shows of several pools: the list of all, and each one's pages below its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Protocol

import orjson
from aiohttp import web

from epp.errors import PageError
from epp.page.pools_page import ShownPool, pools_page
from epp.page.static_files import POLICY, PREFIX, static_pages
from epp.pools.load import PoolsFile
from epp.process.config_reload import Attempt
from epp.process.options import Options
from epp.process.pool_place import PoolPlace, State
from epp.process.pools_reload import PoolsReload
from epp.telemetry.metrics import Metrics
from epp.telemetry.metrics_of_pools import MetricsOfPools
from epp.transport.http_server import HttpServer, HttpSources, PageRequest, reading
from epp.version import VERSION

FOLDER = "/pools/"
_HTML = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Shown(Protocol):
    """What the pages look at."""

    @property
    def options(self) -> Options: ...
    @property
    def file(self) -> PoolsFile: ...
    @property
    def places(self) -> Mapping[str, PoolPlace]: ...
    @property
    def ports(self) -> Mapping[str, int]: ...
    @property
    def metrics(self) -> Metrics: ...
    @property
    def reload_of_file(self) -> PoolsReload: ...


class PoolsPages:
    """The pages.

    Args:
        shown: what they look at.
    """

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._mounted: dict[str, object] = {}
        """Prefix → what its pages were made of."""
        self._files = {path: page for path, page in static_pages().items() if path.startswith(PREFIX)}

    def sources(self, not_ready: Callable[[], Sequence[str]]) -> HttpSources:
        """Of the process."""

        async def index(_request: web.BaseRequest) -> web.Response:
            return self._list(self._shown.places.values(), not_ready())

        return HttpSources(
            metrics=MetricsOfPools(self._shown.metrics, self._metrics, legacy=self._shown.options.legacy_metrics),
            not_ready=not_ready,
            pages={"/debug/pools": reading(self.as_json)},
            posts={"/debug/explain": self._explain},
            answers={**self._files, "/": index, "/debug/": self._several},
        )

    def mount(self, http: HttpServer) -> None:
        """Show each pool below its name, and the only one also without it."""
        places = self._shown.places
        wanted: dict[str, PoolPlace] = {f"{FOLDER}{name}": place for name, place in places.items()}
        if len(places) == 1:
            wanted[""] = next(iter(places.values()))
        for prefix in [prefix for prefix in self._mounted if prefix not in wanted]:
            del self._mounted[prefix]
            http.unmount(prefix)
        for prefix, place in wanted.items():
            if self._mounted.get(prefix, http) is not (place.served or place):
                self._mounted[prefix] = place.served or place
                http.mount(prefix, place.served.sources if place.served is not None else self._unloaded(place))

    def as_json(self) -> object:
        """``/debug/pools``."""
        last = self._shown.reload_of_file.last
        return {
            "file": self._shown.file.source.name,
            "reload": last.as_json() if last is not None else None,
            "pools": [self._pool(place) for place in self._shown.places.values()],
        }

    # ── parts ──

    def _metrics(self) -> Mapping[str, Metrics]:
        return {name: place.metrics for name, place in self._shown.places.items() if place.metrics is not None}

    def _pool(self, place: PoolPlace) -> dict[str, object]:
        entry, served = place.entry, place.served
        config = served.pool.generation.config if served is not None else None
        attempt = _attempt(place)
        return {
            "name": place.name,
            "namespace": place.options.namespace,
            "state": place.state.value,
            "ready": place.health.ready,
            "notReady": place.health.why(),
            "match": {"authorities": entry.match.authorities, "headers": dict(entry.match.headers)},
            "default": entry.is_default,
            "grpcPort": self._shown.ports.get(place.name),
            "maxBufferedBytes": entry.max_buffered_bytes,
            "bufferedBytes": place.target.held_bytes if place.door.is_shared else place.door.transport.stats().buffered_bytes,
            "endpoints": len(served.pool.store) if served is not None else None,
            "inFlight": served.pool.ledger.running if served is not None else None,
            "openStreams": place.target.open,
            "config": {"file": entry.config_file or None, "sha256": config.sha256 if config is not None else None},
            "reload": attempt.as_json() if attempt is not None else None,
            "page": f"{FOLDER}{place.name}/",
        }

    def _list(self, places: Iterable[PoolPlace], not_ready: Sequence[str], prefix: str = "") -> web.Response:
        last = self._shown.reload_of_file.last
        count = len(self._shown.places)
        about = f"version {VERSION} · {count} pool{'s' if count != 1 else ''} of {self._shown.file.source.name}"
        body = pools_page([self._row(place, prefix) for place in places], not_ready, about, last.problems if last else ())
        return web.Response(body=body, headers=_HTML)

    def _row(self, place: PoolPlace, prefix: str) -> ShownPool:
        served, attempt = place.served, _attempt(place)
        why = place.health.why() if place.state is State.SERVED else ()
        state = "ready" if not why and served is not None else "not ready" if served is not None else place.state.value
        return ShownPool(
            place.name,
            f"{prefix}pools/{place.name}/",
            state,
            state == "ready",
            self._asked_for(place),
            str(len(served.pool.store)) if served is not None else "–",
            str(served.pool.ledger.running) if served is not None else "–",
            f"{attempt.result.value} at {_clock(attempt.at_s)}" if attempt is not None else "–",
            [*why, *(attempt.problems if attempt is not None else ())],
        )

    def _asked_for(self, place: PoolPlace) -> str:
        entry = place.entry
        if not place.door.is_shared:
            return f"port {self._shown.ports.get(place.name, entry.grpc_port)}"
        parts = [", ".join(entry.match.authorities), ", ".join(f"{name}: {value}" for name, value in entry.match.headers)]
        text = " with ".join(part for part in parts if part)
        return "; ".join(filter(None, (text, "all others" if entry.is_default else "")))

    def _unloaded(self, place: PoolPlace) -> HttpSources:
        """The pages of a pool that is not loaded: why it is not."""

        async def index(_request: web.BaseRequest) -> web.Response:
            return self._list([place], place.health.why(), "../../")

        async def nothing(request: web.BaseRequest) -> web.Response:
            return self._nothing(place, request.path)

        async def explain(_asked: PageRequest) -> object:
            raise PageError(f"the pool {place.name} is {place.state.value}")

        return HttpSources(
            metrics=Metrics(),
            not_ready=place.health.why,
            posts={"/debug/explain": explain},
            answers={**self._files, "/": index, "/debug/": nothing},
        )

    def _nothing(self, place: PoolPlace, path: str) -> web.Response:
        """A page that a pool does not have, as it is not loaded."""
        if place.served is not None:
            return web.json_response({"error": f"no page {path}"}, status=HTTPStatus.NOT_FOUND)
        document = {"error": f"the pool {place.name} is {place.state.value}", "pool": self._pool(place)}
        return web.json_response(document, status=HTTPStatus.SERVICE_UNAVAILABLE, dumps=_dumps)

    async def _several(self, request: web.BaseRequest) -> web.StreamResponse:
        """A page of one pool, asked without saying which."""
        if len(self._shown.places) == 1:
            [only] = self._shown.places.values()
            return self._nothing(only, request.path)
        paths = [f"{FOLDER}{name}{request.path}" for name in self._shown.places]
        error = f"no page {request.path}: several pools are served; ask for that of one"
        return web.json_response({"error": error, "paths": paths}, status=HTTPStatus.NOT_FOUND)

    async def _explain(self, asked: PageRequest) -> object:
        places = list(self._shown.places.values())
        served = places[0].served if len(places) == 1 else None
        if served is None:
            names = ", ".join(f"{FOLDER}{place.name}" for place in places)
            raise PageError(f"several pools are served, or none: say which, by its name before the path: {names}")
        return await served.pool.rehearse(asked.body)


def _attempt(place: PoolPlace) -> Attempt | None:
    """The last to load or reload its document."""
    reload = place.served.config_reload if place.served is not None else None
    return (reload.last if reload is not None else None) or place.last


def _dumps(document: object) -> str:
    return orjson.dumps(document, default=str, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_INDENT_2).decode()


def _clock(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%H:%M:%S UTC")
