"""The records of a recorded load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from epp.errors import EppError


class TraceError(EppError):
    """A trace that cannot be read.

    Args:
        problems: one sentence for each bad line, with its number.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Content(Protocol):
    """The body of a request, made when it is needed: all bodies of a trace together may not fit into memory."""

    def body(self, model: str) -> bytes:
        """As the client sends it.

        Args:
            model: name for a trace that knows none.
        """
        ...

    def prompt(self) -> bytes | None:
        """The tokens of its one prompt, four bytes each, if they are known without reading the body."""
        ...


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """One line of a trace."""

    line: int
    """Counted from 1."""
    at_s: float
    """When it came; only differences matter."""
    path: str
    headers: tuple[tuple[str, str], ...]
    """Without pseudo-headers."""
    output_tokens: int
    """Length of each answer."""
    content: Content


@dataclass(frozen=True, slots=True)
class Trace:
    """A whole trace, with at least one request."""

    name: str
    requests: tuple[RecordedRequest, ...]
    """In the order of their times; those of equal times in the order of their lines."""

    @property
    def start_s(self) -> float:
        """When the first one came."""
        return self.requests[0].at_s

    @property
    def duration_s(self) -> float:
        """From the first request to the last."""
        return self.requests[-1].at_s - self.start_s
