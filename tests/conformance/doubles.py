"""Plugins for tests, and how a test hands its own to the picker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from epp.framework.candidates import Candidates
from epp.framework.interfaces import HeaderEdits, Role
from epp.framework.registry import PluginType, Reads
from epp.framework.results import SchedulingResult
from epp.framework.types import Completion, InferenceRequest, ResponseInfo, StreamingChunk


def double(plugin: object, *roles: Role, name: str = "", every_chunk: bool = True) -> PluginType:
    """A plugin type whose only instance is ``plugin``; its type name is also its name in the configuration."""
    return PluginType(
        type=name or type(plugin).__name__.lower(),
        roles=frozenset(roles),
        summary="for a test",
        factory=lambda _context, _params: plugin,
        reads=Reads(response_chunks=every_chunk),
    )


class Recorder:
    """Takes the hooks of a request from the decision to the end, and remembers who called."""

    ROLES = (Role.PRE_REQUEST, Role.RESPONSE_RECEIVED, Role.RESPONSE_STREAMING, Role.RESPONSE_COMPLETE)

    def __init__(self) -> None:
        self.requests: list[InferenceRequest] = []
        self.calls: dict[int, list[str]] = {}
        self.responses: list[ResponseInfo] = []
        self.chunks: list[StreamingChunk] = []
        self.completions: list[Completion] = []
        self._told: asyncio.Queue[Completion] = asyncio.Queue()

    async def completion(self) -> Completion:
        """The next request that is over."""
        async with asyncio.timeout(10):
            return await self._told.get()

    def pre_request(self, request: InferenceRequest, result: SchedulingResult, edits: HeaderEdits) -> None:
        assert id(request) not in self.calls
        self.requests.append(request)
        self.calls[id(request)] = ["pre_request"]

    def response_received(
        self, request: InferenceRequest, result: SchedulingResult, response: ResponseInfo, edits: HeaderEdits
    ) -> None:
        self.calls[id(request)].append("received")
        self.responses.append(response)

    def response_streaming(self, request: InferenceRequest, result: SchedulingResult, chunk: StreamingChunk) -> None:
        self.calls[id(request)].append("streaming")
        self.chunks.append(chunk)

    def response_complete(self, request: InferenceRequest, result: SchedulingResult, completion: Completion) -> None:
        self.calls[id(request)].append("complete")
        self.completions.append(completion)
        self._told.put_nowait(completion)


class CallsBack:
    """Does in one slot what the test says; the slots have one method name each, so one object can stand in all of them."""

    def __init__(self, action: Callable[..., object]) -> None:
        self._action = action

    def process_request(self, request: InferenceRequest, edits: HeaderEdits) -> None:
        self._action(request, edits)

    def pre_request(self, request: InferenceRequest, result: SchedulingResult, edits: HeaderEdits) -> None:
        self._action(request, result, edits)

    def response_received(
        self, request: InferenceRequest, result: SchedulingResult, response: ResponseInfo, edits: HeaderEdits
    ) -> None:
        self._action(request, result, response, edits)

    def response_complete(self, request: InferenceRequest, result: SchedulingResult, completion: Completion) -> None:
        self._action(request, result, completion)

    def admit(self, request: InferenceRequest, candidates: Candidates) -> object:
        return self._action(request, candidates)

    def produce(self, request: InferenceRequest, candidates: Candidates) -> object:
        return self._action(request, candidates)

    def filter(self, request: InferenceRequest, candidates: Candidates) -> object:
        return self._action(request, candidates)

    def score(self, request: InferenceRequest, candidates: Candidates) -> object:
        return self._action(request, candidates)

    def pick(self, request: InferenceRequest, candidates: Candidates, totals: Sequence[float]) -> object:
        return self._action(request, candidates, totals)


class Full:
    """A saturation detector whose answer the test sets."""

    def __init__(self, saturation: float = 1.0) -> None:
        self.value = saturation

    def saturation(self, candidates: Candidates) -> float:
        return self.value


class Waits:
    """A data producer that does not return before the test lets it; says when it began and when it was cancelled."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.go_on = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def produce(self, request: InferenceRequest, candidates: Candidates) -> None:
        self.began.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


class WaitsAsPreRequest:
    """The same behind the decision: an endpoint is picked, the answer is not yet sent."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.go_on = asyncio.Event()

    async def pre_request(self, request: InferenceRequest, result: SchedulingResult, edits: HeaderEdits) -> None:
        self.began.set()
        await self.go_on.wait()


class PicksByName:
    """A picker that picks endpoints of these names, in this order."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def pick(self, request: InferenceRequest, candidates: Candidates, totals: Sequence[float]) -> list[int]:
        names = [endpoint.name for endpoint in candidates.endpoints]
        return [names.index(name) for name in self._names]


def raises(error: Exception) -> Callable[..., object]:
    """An action that fails."""

    def action(*_: object) -> object:
        raise error

    return action


def drops_all(_request: InferenceRequest, candidates: Candidates) -> Candidates:
    """A filter that leaves nothing."""
    return candidates.where([False] * len(candidates))
