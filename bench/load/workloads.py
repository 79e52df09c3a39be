"""What is sent, how fast, to how many endpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Response = Literal["json", "sse"]
Page = Literal["small", "full"]


@dataclass(frozen=True, slots=True)
class Workload:
    """One workload; every number can be overridden on the command line."""

    summary: str
    response: Response = "json"
    """What the back end answers: one small JSON document, or a stream of server-sent events."""
    prompt_bytes: int = 200
    """Length of the prompt in a request."""
    connections: int = 32
    """Requests at the same time in a closed loop; 0 sends nothing at all."""
    rate: float = 0.0
    """Requests per second of an open loop; 0 means closed loop."""
    endpoints: int = 10
    page: Page = "small"
    """Size of a metrics page: 0.8 KB, or the 62 KB of a real vLLM."""
    freeze: bool = False
    """Whether the pickers that are not driven are stopped, so that their scraping takes no CPU from the one that is."""


WORKLOADS = {
    "small-json": Workload("small request and response"),
    "sequential": Workload("small request and response, one at a time: latency without contention", connections=1),
    "sse": Workload("streamed responses of 100 chunks", response="sse", rate=30.0),
    "big-prompt": Workload("prompts of 400 KB", prompt_bytes=400_000, rate=10.0),
    "idle": Workload(
        "nothing sent; what scraping 100 full metrics pages costs", connections=0, endpoints=100, page="full", freeze=True
    ),
}
