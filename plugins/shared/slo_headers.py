"""Request headers with a client's latency objectives, under the names of both projects."""

from __future__ import annotations

import math
from typing import NamedTuple

from epp.framework import log
from epp.framework.types import HeaderView

_logger = log.get(__name__)

TTFT_HEADERS = frozenset({"x-slo-ttft-ms", "x-llm-d-slo-ttft-ms"})
"""Time to first token, in ms."""
TPOT_HEADERS = frozenset({"x-slo-tpot-ms", "x-llm-d-slo-tpot-ms"})
"""Time per output token, in ms."""
SLO_HEADERS = TTFT_HEADERS | TPOT_HEADERS

_TTFT_NAMES = ("x-llm-d-slo-ttft-ms", "x-slo-ttft-ms")
_TPOT_NAMES = ("x-llm-d-slo-tpot-ms", "x-slo-tpot-ms")


class Objectives(NamedTuple):
    """What a client asks for; 0 = nothing."""

    ttft_ms: float = 0.0
    """Time to first token."""
    tpot_ms: float = 0.0
    """Time per output token."""


def read_objectives(headers: HeaderView) -> Objectives:
    """The objectives of a request: decimal numbers of ms. What is no positive number is no objective, never an error."""
    return Objectives(_objective(headers, _TTFT_NAMES), _objective(headers, _TPOT_NAMES))


def _objective(headers: HeaderView, names: tuple[str, ...]) -> float:
    for name in names:
        text = headers.get(name)
        if text:
            return _positive(name, text)
    return 0.0


def _positive(name: str, text: str) -> float:
    try:
        value = float(text) if "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if 0 < value < math.inf:
        return value
    if value != 0:
        _logger.debug("latency objective ignored, the header is no positive number", header=name, value=text)
    return 0.0
