"""What lets a decision wait: coroutines, a responder, and an admission that holds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from epp.errors import DropReason, ErrorCode, RequestError
from epp.flowcontrol.admission import Hold
from epp.framework.candidates import Candidates
from epp.framework.direct import DirectRequest
from epp.framework.types import InferenceRequest
from tests.unit.decision.rig import Rig

FULL = RequestError(ErrorCode.RESOURCE_EXHAUSTED, "full", DropReason.SATURATED)


class Stubborn:
    """A coroutine function that swallows its cancellation and goes on."""

    def __init__(self, result: object = None) -> None:
        self.began = asyncio.Event()
        self._result = result

    async def __call__(self, *_: object) -> Any:
        self.began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return self._result


async def for_ever(*args: object) -> None:
    await asyncio.Event().wait()


class Direct:
    """Claims everything."""

    name = "direct"

    def __init__(self, respond: Callable[[DirectRequest], Awaitable[Any]]) -> None:
        self._respond = respond

    def answers(self, method: str, path: str) -> bool:
        return True

    async def respond(self, request: DirectRequest) -> Any:
        return await self._respond(request)


class Gate:
    """An admission that holds every request until it is told otherwise."""

    needs_candidates = True

    def __init__(self) -> None:
        self.held: list[Hold] = []
        self.arrived = asyncio.Event()
        self.withdrawn = 0
        self.seen: list[int] = []

    def admit(self, request: InferenceRequest, candidates: Candidates) -> Hold | None:
        self.seen.append(len(candidates))
        self.held.append(Hold(self._left))
        self.arrived.set()
        return self.held[-1]

    def _left(self) -> None:
        self.withdrawn += 1


def running(rig: Rig) -> float:
    """Requests that are scheduled and not over."""
    return rig.count("request_running", model_name="m") or 0
