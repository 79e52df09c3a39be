"""What became of each request of a replay."""

from __future__ import annotations

from dataclasses import dataclass

from epp.telemetry.choice import Choice


@dataclass(slots=True)
class Outcome:
    """One request under one configuration. What did not happen is None."""

    line: int
    """In the trace."""
    at_s: float
    """When it came, from the beginning of the replay."""
    server: int | None = None
    """Index of the server it was sent to."""
    status: int = 0
    """HTTP status that its client got; 0 = none yet."""
    problem: str = ""
    """Why it was refused."""
    prompt_tokens: int = 0
    """Of all its prompts; 0 if no server computed them."""
    cached_tokens: int = 0
    """Of these, found in the server's prefix cache."""
    output_tokens: int = 0
    held_s: float = 0.0
    """Until the picker decided: what flow control took."""
    queued_s: float | None = None
    """In the server's queue."""
    ttft_s: float | None = None
    """From its arrival to the first token."""
    latency_s: float | None = None
    """From its arrival to the end of the response."""
    is_split: bool = False
    """Another server was to compute its prompt or its media first; a replay leaves that out."""
    choice: Choice | None = None
    """How it was decided, if that was to be known."""

    @property
    def is_served(self) -> bool:
        """It was answered as it wanted to be."""
        return self.status == 200
