"""Plugins that change the body of a request before anything is decided about it."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol, runtime_checkable

from epp.framework.types import InferenceRequest, Json


class BodyEdits(Protocol):
    """Changes of the top-level members of a JSON request body.

    Only the named members change: every other byte is forwarded as it came. Each call sees those before it. Whoever comes
    later (data producers, filters, scorers) reads the changed document in ``request.body``.
    """

    def set(self, member: str, value: Json) -> None:
        """Replace the value of ``member``, or add it.

        Raises:
            ValueError: ``model``; rules and the rewrite header choose that.
        """
        ...

    def remove(self, member: str) -> None:
        """Remove ``member``; nothing happens if it is not there.

        Raises:
            ValueError: as for ``set``.
        """
        ...

    def prepend(self, member: str, items: Sequence[Json]) -> None:
        """Put ``items`` before those of a list; the bytes of the list's own items stay.

        Raises:
            ValueError: as for ``set``, or ``member`` is no list.
        """
        ...


@runtime_checkable
class BodyRewriter(Protocol):
    """Changes request bodies: after the RequestHeaderProcessors, before candidates are looked at.

    Only bodies that were seen whole and that a parser read as JSON are offered. Requests that no rewriter wants are not
    touched and do not wait.
    """

    def rewrites(self, request: InferenceRequest) -> bool:
        """Whether ``rewrite`` is to be called for this request. Cheap; must not raise."""
        ...

    def rewrite(self, request: InferenceRequest, edits: BodyEdits) -> Awaitable[None] | None:
        """Ask for changes.

        It keeps a deadline of its own, within the one of the whole decision (5 s, then 503).

        Raises:
            RequestError: the request is refused. Any other exception is reported and refuses it with 500: to forward it
                unchanged would be something else than its client asked for.
        """
        ...
