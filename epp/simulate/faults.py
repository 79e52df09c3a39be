"""Faults that a simulated server commits on purpose."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from epp.errors import UsageError


class FaultKind(StrEnum):
    """What goes wrong.

    Kinds that begin with ``metrics-`` concern ``/metrics`` only, ``refuse`` everything, the others all but ``/metrics``.
    """

    REFUSE = "refuse"
    """The port is closed: connection refused."""
    RESET = "reset"
    """The connection is reset in the middle of the response."""
    HANG = "hang"
    """The request is accepted and never answered."""
    SLOW = "slow"
    """The answer begins a second late."""
    ERROR = "5xx"
    """The answer is 500, 502, 503 or 504."""
    METRICS_RESET = "metrics-reset"
    METRICS_HANG = "metrics-hang"
    METRICS_SLOW = "metrics-slow"
    METRICS_ERROR = "metrics-5xx"
    METRICS_HALF = "metrics-half"
    """A complete response that holds the first half of the page and ends within a line."""


ERROR_STATUSES = (500, 502, 503, 504)
SLOW_S = 1.0
"""Long enough to be later than any scrape timeout in use, short enough to wait for."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a server."""

    kind: FaultKind
    rate: float = 1.0
    """Share of the requests that it hits, above 0 and at most 1."""

    def __post_init__(self) -> None:
        """Check the rate.

        Raises:
            UsageError: the rate is out of range, or ``refuse`` has one.
        """
        if not 0 < self.rate <= 1:
            raise UsageError([f"the rate of fault {self.kind} must be above 0 and at most 1, is {self.rate:g}"])
        if self.kind is FaultKind.REFUSE and self.rate != 1:
            raise UsageError(["fault refuse closes the port, so it cannot have a rate; use reset for some of the requests"])


def parse_fault(text: str) -> tuple[Fault, str | None]:
    """Read ``KIND[:RATE][@SERVER]``.

    Returns:
        The fault and the server's name or index, None for all servers.

    Raises:
        UsageError: the text has no known kind or no usable rate.
    """
    spec, _, server = text.partition("@")
    name, colon, rate = spec.partition(":")
    try:
        kind = FaultKind(name)
    except ValueError:
        kinds = ", ".join(FaultKind)
        raise UsageError([f"--fault {text}: there is no fault {name!r}; the kinds are {kinds}"]) from None
    try:
        fault = Fault(kind, float(rate) if colon else 1.0)
    except ValueError:
        raise UsageError([f"--fault {text}: the rate {rate!r} is not a number; write for example {name}:0.1"]) from None
    return fault, server or None


class FaultPlan:
    """Decides which request is hit; can be changed while the server runs.

    Args:
        faults: in the order in which they are tried; the first that hits is committed.
        seed: of the generator that draws for rates.
    """

    def __init__(self, faults: Iterable[Fault] = (), seed: int = 0) -> None:
        self._faults = tuple(faults)
        self._rng = random.Random(seed)

    @property
    def refuses(self) -> bool:
        """The port must be closed."""
        return any(fault.kind is FaultKind.REFUSE for fault in self._faults)

    def replace(self, faults: Iterable[Fault]) -> None:
        """From now on these faults, no others."""
        self._faults = tuple(faults)

    def draw(self, metrics: bool) -> FaultKind | None:
        """The fault that hits this request, or None.

        Args:
            metrics: the request is for ``/metrics``.
        """
        for fault in self._faults:
            if fault.kind is FaultKind.REFUSE or fault.kind.startswith("metrics-") is not metrics:
                continue
            if fault.rate >= 1 or self._rng.random() < fault.rate:
                return fault.kind
        return None

    def error_status(self) -> int:
        """One of the statuses of a failing server."""
        return self._rng.choice(ERROR_STATUSES)
