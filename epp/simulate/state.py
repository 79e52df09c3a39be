"""How a simulated server is at one moment."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerState:
    """What a live table shows of a server."""

    name: str
    address: str
    """``host:port``."""
    is_up: bool
    waiting: int
    running: int
    kv_usage_ratio: float
    prefix_hit_ratio: float
    """Of the prompt tokens so far, 0 to 1."""
    prompt_tokens: int
    """So far, cached ones included."""
    ttft_s: float
    """Mean time to the first token, from the arrival at this server; 0 before the first."""
    served: int
    """Inference requests answered in full."""
