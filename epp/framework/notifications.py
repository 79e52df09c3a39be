"""Sources of events: what is told, by whom, to whom. Of endpoints every plugin may hear: ``interfaces.FollowsEndpoints``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable


@runtime_checkable
class TellsOfEndpoints(Protocol):
    """A DataSource that is not polled: its extractors get each endpoint when it comes and when it changes, with no payload."""

    tells_of_endpoints: bool
    """Always True."""


class ObjectKind(NamedTuple):
    """A kind of Kubernetes objects."""

    group: str
    """Empty = core."""
    version: str
    kind: str

    def __str__(self) -> str:
        return f"{self.group}/{self.version}/{self.kind}".removeprefix("/")


class ObjectEvent(NamedTuple):
    """A Kubernetes object came, changed, or is gone."""

    namespace: str
    """Empty = it has none."""
    name: str
    object: Mapping[str, Any] | None
    """As the API server sends it; None = gone."""


@runtime_checkable
class TellsOfObjects(Protocol):
    """A DataSource that is not polled: its extractors, which are ``FollowsObjects``, hear of the objects of a kind."""

    objects: ObjectKind


@runtime_checkable
class FollowsObjects(Protocol):
    """An extractor that hears of Kubernetes objects. Raising is a defect, which keeps nobody else from hearing."""

    @property
    def input(self) -> str:
        """``kubernetes:`` and the kind, such as ``kubernetes:v1/Pod`` or ``kubernetes:apps/v1/Deployment``."""
        ...

    def object_changed(self, event: ObjectEvent) -> None:
        """Called for each object that is there at first, and then for each change, on the event loop."""
        ...
