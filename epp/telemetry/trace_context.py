"""W3C trace context: what ``traceparent`` says, and which requests are traced.

Whether a request is traced is decided here, before anything of OpenTelemetry is called: a look at one header and a comparison
for those that are not.

Source: W3C Trace Context, level 1; OpenTelemetry specification, TraceIdRatioBased and ParentBased.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
_LOW = 2**64 - 1
DEFAULT_SAMPLER = "parentbased_traceidratio"
DEFAULT_RATIO = 0.1
"""llm-d-router's."""

_ROOTS = ("always_on", "always_off", "traceidratio")
SAMPLERS = (*_ROOTS, *(f"parentbased_{root}" for root in _ROOTS))
"""Values of ``OTEL_TRACES_SAMPLER`` that are known."""


class Parent(NamedTuple):
    """The span that a request comes from."""

    trace_id: int
    span_id: int
    is_sampled: bool


def parse_traceparent(text: str | None) -> Parent | None:
    """What a ``traceparent`` header says; None if there is none, or one that cannot be used and is to be ignored."""
    if not text:
        return None
    match = _TRACEPARENT.fullmatch(text.strip())
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return Parent(int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & 1))


def format_traceparent(trace_id: int, span_id: int) -> str:
    """The header of a span that is sampled."""
    return f"00-{trace_id:032x}-{span_id:016x}-01"


class Sampled(NamedTuple):
    """A request that is traced."""

    trace_id: int
    parent: Parent | None


class Sampler:
    """Decides which requests are traced.

    Args:
        name: one of ``SAMPLERS``.
        ratio: of those that follow the trace id.
        draw: gives a new trace id.
    """

    def __init__(self, name: str, ratio: float, draw: Callable[[], int] = lambda: random.getrandbits(128) or 1) -> None:
        if name not in SAMPLERS:
            msg = f"unknown sampler {name!r}; there are {', '.join(SAMPLERS)}"
            raise ValueError(msg)
        self._follows_parent = name.startswith("parentbased_")
        root = name.removeprefix("parentbased_")
        share = {"always_on": 1.0, "always_off": 0.0}.get(root, ratio)
        self._bound = round(share * 2**64)
        self._draw = draw

    def sample(self, traceparent: str | None) -> Sampled | None:
        """The request with this header, if it is traced."""
        if traceparent is not None and (parent := parse_traceparent(traceparent)) is not None:
            is_sampled = parent.is_sampled if self._follows_parent else parent.trace_id & _LOW < self._bound
            return Sampled(parent.trace_id, parent) if is_sampled else None
        trace_id = self._draw()
        return Sampled(trace_id, None) if trace_id & _LOW < self._bound else None


def make_sampler(environ: Mapping[str, str], warn: Callable[[str], None]) -> Sampler:
    """The sampler that ``OTEL_TRACES_SAMPLER`` and ``OTEL_TRACES_SAMPLER_ARG`` name; what cannot be used is told.

    Args:
        environ: the environment.
        warn: takes a sentence.
    """
    name = environ.get("OTEL_TRACES_SAMPLER", "").strip().lower() or DEFAULT_SAMPLER
    if name not in SAMPLERS:
        warn(f"OTEL_TRACES_SAMPLER={name} is not known; {DEFAULT_SAMPLER} is used (there are {', '.join(SAMPLERS)})")
        name = DEFAULT_SAMPLER
    text = environ.get("OTEL_TRACES_SAMPLER_ARG", "").strip()
    try:
        ratio = float(text) if text else DEFAULT_RATIO
        if not 0 <= ratio <= 1:
            raise ValueError(text)
    except ValueError:
        warn(f"OTEL_TRACES_SAMPLER_ARG={text} is no number from 0 to 1; {DEFAULT_RATIO:g} is used")
        ratio = DEFAULT_RATIO
    return Sampler(name, ratio)
