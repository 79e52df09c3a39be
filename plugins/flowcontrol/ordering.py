"""fcfs-ordering-policy, edf-ordering-policy, slo-deadline-ordering-policy: which request of a flow is next."""

from __future__ import annotations

from math import inf

from epp.framework.flow_control import OrderingPolicy, SortKey, WaitingRequest
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Role
from epp.framework.params import NoParams
from epp.framework.registry import PluginType, Reads
from epp.framework.types import HeaderView
from plugins.shared.slo_headers import TTFT_HEADERS

_TTFT_NAMES = ("x-llm-d-slo-ttft-ms", "x-slo-ttft-ms")
_LONGEST_MS = (2**63 - 1) // 1_000_000
"""The longest Go duration; upstream counts a longer objective as none."""


class FcfsOrdering:
    """First come, first served.

    Parameters: none.
    Reads: the time of arrival at flow control.
    Formula: earliest arrival first; of equal times the one that came first.
    Source: llm-d-router: pkg/epp/framework/plugins/flowcontrol/ordering
    """

    def sort_key(self, waiting: WaitingRequest) -> SortKey:
        """The time of arrival."""
        return waiting.enqueued_s, 0.0


class EdfOrdering:
    """The request whose time to wait is over first.

    Without limits of single requests (`x-llm-d-inference-ttl`, deadlines of gRPC clients) all have the same limit, so that
    this is first come, first served. Requests that can hardly make it are served first of all: under lasting overload in vain.

    Parameters: none.
    Reads: the time of arrival and how long the request may wait.
    Formula: earliest ``arrival + limit`` first, then earliest arrival.
    Missing data: a request without a limit comes behind all others.
    Source: llm-d-router: pkg/epp/framework/plugins/flowcontrol/ordering
    """

    def sort_key(self, waiting: WaitingRequest) -> SortKey:
        """Expiry, then arrival."""
        expires_s = waiting.enqueued_s + waiting.ttl_s if waiting.ttl_s > 0 else inf
        return expires_s, waiting.enqueued_s


class SloDeadlineOrdering:
    """The request whose first token is due first.

    What has missed its objective is not dropped but served first: under lasting overload in vain.

    Parameters: none.
    Reads: request headers ``x-llm-d-slo-ttft-ms``, ``x-slo-ttft-ms``: whole milliseconds; when the request's headers came.
    Formula: earliest ``received + objective`` first, then earliest received.
    Missing data: a request without a valid objective comes behind all others.
    Source: llm-d-router: pkg/epp/framework/plugins/flowcontrol/ordering
    """

    def sort_key(self, waiting: WaitingRequest) -> SortKey:
        """When the first token is due, then when the request was received."""
        request = waiting.request
        objective_ms = objective(request.headers)
        due_s = request.received_s + objective_ms / 1000 if objective_ms is not None else inf
        return due_s, request.received_s


def objective(headers: HeaderView) -> int | None:
    """Milliseconds until the first token is due; None = no valid objective. Stricter than what the latency admitter reads."""
    text = next((found for name in _TTFT_NAMES if (found := headers.get(name)) is not None), "").strip()
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(_LONGEST_MS)):
        return None
    value = int(text)
    return value if value <= _LONGEST_MS else None


def _fcfs(context: PluginContext, params: NoParams) -> OrderingPolicy:
    return FcfsOrdering()


def _edf(context: PluginContext, params: NoParams) -> OrderingPolicy:
    return EdfOrdering()


def _slo_deadline(context: PluginContext, params: NoParams) -> OrderingPolicy:
    return SloDeadlineOrdering()


FCFS = PluginType(
    type="fcfs-ordering-policy",
    roles=frozenset({Role.ORDERING_POLICY}),
    summary="First come, first served (default).",
    factory=_fcfs,
)

EDF = PluginType(
    type="edf-ordering-policy",
    roles=frozenset({Role.ORDERING_POLICY}),
    summary="Earliest expiry of the queue wait first.",
    factory=_edf,
)

SLO_DEADLINE = PluginType(
    type="slo-deadline-ordering-policy",
    roles=frozenset({Role.ORDERING_POLICY}),
    summary="Earliest deadline of the first token first.",
    reads=Reads(request_headers=TTFT_HEADERS),
    factory=_slo_deadline,
)

PLUGINS = (FCFS, EDF, SLO_DEADLINE)
