"""All that is kept of one request while its stream is open."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from epp.decision.decoding import DecodedRequest
from epp.decision.ledger import Ledger
from epp.decision.pipeline import PipelineInUse
from epp.decision.progress import Progress
from epp.flowcontrol.admission import Hold
from epp.framework.candidates import Candidates
from epp.framework.results import SchedulingResult
from epp.framework.types import Completion, Endpoint, InferenceRequest, StreamingChunk
from epp.hooks.runner import HookRunner
from epp.request.rewrite import Splices, growth
from epp.seam import Headers, Pairs, Request, ResponseHead
from epp.telemetry.decision_record import AdmissionRecord, DecisionRecord
from epp.telemetry.decision_ring import KeptDecision
from epp.telemetry.metrics import Metrics
from epp.telemetry.requests import RequestLabels
from epp.telemetry.tracing import RequestTrace


class Shadowed(Protocol):
    """A second configuration that follows the request."""

    def chunks(self, told: Sequence[StreamingChunk]) -> None:
        """Pieces of the response, where plugins in use read them."""
        ...

    def over(self, completion: Completion | None, head: ResponseHead | None) -> None:
        """The response is over; called once."""
        ...


class Flight:
    """One request from its headers to its end."""

    __slots__ = (
        "adds_request_id",
        "candidates",
        "completion",
        "decoded",
        "error_counted",
        "explanation",
        "headers",
        "hold",
        "hooks",
        "incoming_model",
        "is_evicted",
        "kept",
        "labels",
        "path",
        "progress",
        "received_s",
        "record",
        "request",
        "result",
        "served",
        "shadow",
        "splices",
        "tail",
        "target",
        "targets",
        "trace",
        "used",
    )

    def __init__(self, used: PipelineInUse, progress: Progress, received_s: float, path: str, headers: Headers) -> None:
        self.used = used
        """The pipeline that the request began with."""
        self.hooks: HookRunner = used.pipeline.hooks
        self.progress = progress
        """Of its decision."""
        self.hold: Hold | None = None
        """What admission handed out; it is told of the rest of the request."""
        self.is_evicted = False
        """It was told to end while it ran, for a request of a higher priority."""
        self.record: DecisionRecord | None = None
        """Of its decision, if somebody wants one."""
        self.candidates: Candidates | None = None
        """Among which it was decided, if there is a record."""
        self.kept: KeptDecision | None = None
        """The decision in the ring of the last ones."""
        self.explanation: Pairs = ()
        """Headers for the response to a request that asked for them."""
        self.trace: RequestTrace | None = None
        """Its spans, if it is traced."""
        self.completion: Completion | None = None
        """Set when a scheduled request is over."""
        self.shadow: Shadowed | None = None
        """The second configuration, if it is shown the request."""
        self.received_s = received_s
        self.path = path
        self.headers = headers
        self.incoming_model = ""
        self.request: InferenceRequest | None = None
        self.result: SchedulingResult | None = None
        """Set once an endpoint was scheduled; cleared by the completion."""
        self.labels: RequestLabels | None = None
        self.target: Endpoint | None = None
        self.targets: tuple[Endpoint, ...] = ()
        """As they were sent to the data plane, best first; ``target`` is the first of them."""
        self.served: Endpoint | None = None
        """The endpoint that answered, if the data plane said so."""
        self.tail: asyncio.Task[None] | None = None
        """The last coroutine hook."""
        self.splices: Splices = ()
        """Changes of the body, with which it is forwarded; of the decoded body if it came with a content coding."""
        self.decoded: DecodedRequest | None = None
        """What was decided about if the body came with a content coding; until the request is routed."""
        self.adds_request_id = False
        self.error_counted = False

    def let_go(self) -> None:
        """The request is over, and nothing of it is left once its last coroutine hook has ended."""
        if self.hold is not None:
            self.hold.over()
        if self.decoded is not None:
            self.decoded.let_go()
        if self.tail is not None and not self.tail.done():
            self.tail.add_done_callback(lambda _: self.used.end())
        else:
            self.used.end()

    @property
    def inference(self) -> InferenceRequest:
        """The request that plugins see; only after it was parsed."""
        assert self.request is not None
        return self.request

    def forwarded_bytes(self, request: Request) -> int:
        """Length of the body as it goes on.

        Args:
            request: as it was decided about.
        """
        if self.decoded is not None and not self.splices:
            return self.decoded.received_bytes
        return len(request.body) + growth(self.splices)

    def note_admission(self, outcome: str, error: str = "") -> None:
        """Write down how the request was let in, if somebody wants it."""
        if self.record is None:
            return
        held_s, ahead = (self.hold.held_s, self.hold.ahead) if self.hold is not None else (0.0, 0)
        self.record.admission = AdmissionRecord(outcome, held_s, error, ahead)

    def make_labels(self) -> RequestLabels:
        """What the request is counted under."""
        request = self.inference
        return RequestLabels(request.model or request.target_model, request.target_model, request.fairness_id, request.priority)

    def scheduled(self, result: SchedulingResult, ledger: Ledger, metrics: Metrics) -> None:
        """An endpoint was picked: the request is in flight."""
        self.result = result
        self.targets = result.targets
        self.target = self.targets[0]
        self.labels = labels = self.make_labels()
        metrics.request_scheduled(labels)
        ledger.enter(labels)
