"""Requests that a plugin answers itself: found before they are parsed, answered in the words of the seam."""

from __future__ import annotations

from epp.decision.flight import Flight
from epp.framework.direct import DirectRequest, DirectResponder
from epp.hooks.runner import HookRunner
from epp.hooks.slots import Hook
from epp.request.headers import FAIRNESS_ID, METHOD, lookup, request_query
from epp.seam import BodyState, Reply, Request

_SEEN = (BodyState.COMPLETE, BodyState.ABSENT)


def responder(hooks: HookRunner, path: str, request: Request) -> Hook[DirectResponder] | None:
    """The plugin that answers this request itself; None for a body that was not seen."""
    if request.body_state not in _SEEN:
        return None
    return hooks.responder(request.headers.get(METHOD) or "", path)


async def respond(hooks: HookRunner, hook: Hook[DirectResponder], flight: Flight, request: Request) -> Reply | None:
    """What it answers; None if the request is to go on after all.

    Raises:
        RequestError: what the client is told instead.
    """
    headers = request.headers
    asked = DirectRequest(
        method=headers.get(METHOD) or "",
        path=flight.path,
        query=request_query(headers),
        headers=headers,
        body=request.body,
        fairness_id=lookup(headers, *FAIRNESS_ID) or "",
    )
    reply = await hooks.respond(hook, asked, flight.progress, flight.record)
    return None if reply is None else Reply(reply.status, reply.body, reply.headers, details="epp_answered")
