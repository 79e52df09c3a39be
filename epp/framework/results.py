"""What scheduling made of a request: the pick of each profile, and where the request goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from epp.framework.candidates import Candidates
from epp.framework.data import DataKey
from epp.framework.types import Endpoint

T = TypeVar("T")


@dataclass(slots=True)
class ProfileRunResult:
    """What one SchedulingProfile picked."""

    targets: tuple[Endpoint, ...]
    """Best first, never empty."""
    candidates: Candidates
    """Those that passed the filters."""
    totals: Sequence[float]
    """Weighted score sums, shape ``(len(candidates),)``."""


class ProfileResults(dict[str, ProfileRunResult | None]):
    """What the profiles of one scheduling cycle picked, by name in the order they ran; None = ran and failed, or skipped."""

    __slots__ = ("published",)

    def __init__(self) -> None:
        self.published: dict[DataKey[Any], object] = {}

    def publish(self, key: DataKey[T], value: T) -> None:
        """Let the profiles that run next read ``value`` as data of the request. The request itself does not change."""
        self.published[key] = value

    def take_published(self) -> dict[DataKey[Any], object]:
        """What was published since the last time."""
        published, self.published = self.published, {}
        return published


@dataclass(slots=True)
class SchedulingResult:
    """What the ProfileHandler made of all profile runs."""

    primary: str
    """Name of the profile whose targets the request goes to."""
    profiles: dict[str, ProfileRunResult | None]
    """By profile name, in the order they ran; None = ran and failed, or skipped."""
    targets: tuple[Endpoint, ...]
    """The primary profile's, best first. A handler may have replaced their ports by that of a proxy in front of them; the
    profile's own targets are as they were picked."""
    prefill: str = "prefill"
    """Name of the profile whose first target computes the prompt, if it ran."""
    encode: str = "encode"
    """Name of the profile whose targets encode media, if it ran."""

    @property
    def target(self) -> Endpoint:
        """The endpoint the request should go to."""
        return self.targets[0]

    def targets_of(self, profile: str) -> tuple[Endpoint, ...]:
        """What a profile picked, best first; empty if it picked nothing or did not run."""
        run = self.profiles.get(profile)
        return () if run is None else run.targets
