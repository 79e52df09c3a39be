"""Requests that a plugin answers itself, in place of a model server."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from epp.framework.types import HeaderView

JSON_TYPE = ("content-type", "application/json")


@dataclass(frozen=True, slots=True)
class DirectRequest:
    """An HTTP request as it came: no parser has looked at it."""

    method: str
    path: str
    """Without the query."""
    query: str
    """Without the question mark; "" if there is none."""
    headers: HeaderView
    body: memoryview
    """Empty if it has none."""
    fairness_id: str
    """Tenant that the client's header names; "" if it names none."""


@dataclass(frozen=True, slots=True)
class DirectReply:
    """What the client gets."""

    body: bytes
    status: int = 200
    headers: tuple[tuple[str, str], ...] = field(default=(JSON_TYPE,))


@runtime_checkable
class DirectResponder(Protocol):
    """Answers requests itself, before they are parsed. The first in declaration order that claims a request gets it."""

    def answers(self, method: str, path: str) -> bool:
        """Whether ``respond`` is to be called. Asked about every request: cheap; must not raise.

        Args:
            method: ``GET``, ``POST``, ...
            path: without query.
        """
        ...

    def respond(self, request: DirectRequest) -> Awaitable[DirectReply | None] | DirectReply | None:
        """The answer; None lets the request go on as if nobody had claimed it.

        It keeps a deadline of its own, within the one of a decision (5 s, then 503).

        Raises:
            RequestError: answered with its status. Any other exception is reported and answered with 500.
        """
        ...
