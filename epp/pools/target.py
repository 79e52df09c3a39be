"""One pool as requests find it: who decides about them, how many run, and how much memory their bodies take."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from epp.pools.readers import own_results
from epp.seam import BodyState, Headers, Metadata, Reply, Request, RequestHandler, Route, Stream

NO_BODY = memoryview(b"")


class PoolTarget:
    """A pool behind a port that it may share.

    Args:
        name: of the pool.
        limit_bytes: for the bodies of its requests that are not decided about yet, all together; 0 = no limit.
    """

    __slots__ = ("_are_first", "_places", "_when_idle", "handler", "held_bytes", "limit_bytes", "name", "open")

    def __init__(self, name: str, limit_bytes: int = 0) -> None:
        self.name = name
        self.limit_bytes = limit_bytes
        self.handler: RequestHandler | None = None
        """Decides; None while the pool is not loaded."""
        self._places: tuple[int, ...] = ()
        self._are_first = True
        self.held_bytes = 0
        """Of bodies that wait for a decision."""
        self.open = 0
        """Requests that have begun and are not over."""
        self._when_idle: Callable[[], None] | None = None

    def use_places(self, places: tuple[int, ...]) -> None:
        """Where the results of its request readers are among those of all pools of the port."""
        self._places = places
        self._are_first = places == tuple(range(len(places)))

    def own(self, request: Request) -> Request:
        """The request with the results of the pool's own readers: itself where there are no others, or none of its own."""
        read, places = request.read, self._places
        if not read or not places or (self._are_first and len(read) == len(places)):
            return request
        return PoolRequest(request, read=own_results(read, places))

    def retire(self, when_idle: Callable[[], None]) -> None:
        """No request comes here any more: tell once, when the last one is over; at once if none runs."""
        if self.open:
            self._when_idle = when_idle
        else:
            when_idle()

    def over(self) -> None:
        """A request is over."""
        self.open -= 1
        if not self.open and self._when_idle is not None:
            when_idle, self._when_idle = self._when_idle, None
            when_idle()


class PoolStream:
    """A stream that a pool was chosen for, as the pool sees it; implements ``seam.Stream``.

    Args:
        stream: as the transport has it.
        target: the pool.
        handler: decides about it to its end, whatever becomes of the pool.
    """

    __slots__ = ("_held", "_stream", "handler", "state", "target")

    def __init__(self, stream: Stream, target: PoolTarget, handler: RequestHandler) -> None:
        self.state: object = None
        self.target = target
        self.handler = handler
        self._stream = stream
        self._held = 0
        target.open += 1

    def take(self, request: Request) -> Request:
        """The request as the pool is to see it: read by its own readers, and without a body that it may not have."""
        target = self.target
        request = target.own(request)
        if not target.limit_bytes:
            return request
        size = len(request.body)
        if target.held_bytes + size > target.limit_bytes and request.body_state is BodyState.COMPLETE:
            return PoolRequest(request, read=request.read, is_dropped=True)
        self._held = size
        target.held_bytes += size
        return request

    def answer(self, answer: Route | Reply) -> None:
        """Decide: from now on the body is on its way, or dropped."""
        self.release()
        self._stream.answer(answer)

    def release(self) -> None:
        """The body needs no memory any more; may be called again."""
        self.target.held_bytes -= self._held
        self._held = 0


class PoolRequest:
    """A request with other results of readers, or without its body; implements ``seam.Request``."""

    __slots__ = ("_request", "body", "body_state", "read")

    def __init__(self, request: Request, *, read: Sequence[object], is_dropped: bool = False) -> None:
        self._request = request
        self.read = tuple(read)
        self.body_state = BodyState.NO_MEMORY if is_dropped else request.body_state
        self.body = NO_BODY if is_dropped else request.body

    @property
    def headers(self) -> Headers:
        """As they came."""
        return self._request.headers

    @property
    def metadata(self) -> Metadata:
        """As it came."""
        return self._request.metadata

    @property
    def at_s(self) -> float:
        """When the request headers came."""
        return self._request.at_s
