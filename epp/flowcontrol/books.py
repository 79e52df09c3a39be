"""What is written down of each request under flow control: its one outcome, how long it waited, and what waits now."""

from __future__ import annotations

from epp.flowcontrol.outcomes import ACCEPTED, Outcome
from epp.flowcontrol.queues import Band
from epp.flowcontrol.refusal_log import RefusalLog
from epp.flowcontrol.tickets import Ticket
from epp.framework.types import InferenceRequest
from epp.telemetry.flow_control import FlowMetrics, FlowSeries
from epp.telemetry.requests import RequestLabels


class Books:
    """Counts.

    Args:
        metrics: where.
        refusals: writes a line about those that were not let go.
    """

    def __init__(self, metrics: FlowMetrics, refusals: RefusalLog) -> None:
        self.metrics = metrics
        self._refusals = refusals

    def series(self, request: InferenceRequest, now_s: float) -> FlowSeries:
        """Where a request is counted."""
        model = request.model or request.target_model
        series = self.metrics.series(RequestLabels(model, request.target_model, request.fairness_id, request.priority))
        series.last_s = now_s
        return series

    def waits(self, ticket: Ticket) -> None:
        """A request waits."""
        ticket.series.size += 1
        ticket.series.bytes += ticket.size_bytes

    def accepted(self, series: FlowSeries, took_s: float) -> None:
        """An arrival was let go or put into its queue."""
        series.taken(ACCEPTED, took_s)

    def rejected(self, outcome: Outcome, band: Band, series: FlowSeries, took_s: float) -> None:
        """An arrival was refused."""
        self.metrics.outcome(outcome, band.priority)
        self._refusals.count(outcome)
        series.left(outcome, 0.0)
        series.taken(outcome, took_s)

    def let_go(self, ticket: Ticket, now_s: float, *, has_waited: bool) -> None:
        """A request goes on."""
        self.metrics.outcome(Outcome.DISPATCHED, ticket.band.priority)
        self._left(ticket, Outcome.DISPATCHED, now_s, has_waited=has_waited)

    def left(self, ticket: Ticket, outcome: Outcome, now_s: float) -> None:
        """A request waits no more, and does not go on."""
        self.metrics.outcome(outcome, ticket.band.priority)
        self._refusals.count(outcome)
        self._left(ticket, outcome, now_s, has_waited=True)

    def write(self) -> None:
        """Write the line about refusals now: nobody may be there in a second."""
        self._refusals.flush()

    @staticmethod
    def _left(ticket: Ticket, outcome: Outcome, now_s: float, *, has_waited: bool) -> None:
        series = ticket.series
        series.left(outcome, now_s - ticket.enqueued_s)
        if has_waited:
            series.size -= 1
            series.bytes -= ticket.size_bytes
