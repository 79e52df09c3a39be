"""Parse a request, resolve its model name, build the record that plugins see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from epp.decision.flight import Flight
from epp.decision.pipeline import Pipeline
from epp.errors import ErrorCode, RequestError
from epp.framework.data import RequestData
from epp.framework.types import InferenceRequest, ParsedBody
from epp.request.headers import FAIRNESS_ID, MODEL_REWRITE, OBJECTIVE, REQUEST_ID, lookup
from epp.request.parse import read_body
from epp.request.rewrite import Splices, model_splices
from epp.seam import Request
from epp.telemetry.metrics import Metrics, RewriteLabels

DEFAULT_FLOW = "default-flow"


class Rewrite(Protocol):
    """An InferenceModelRewrite rule that applies."""

    @property
    def name(self) -> str: ...
    @property
    def target(self) -> str: ...


class ObjectLookup(Protocol):
    """InferenceObjectives and InferenceModelRewrites."""

    def priority(self, objective: str) -> int:
        """0 for an unknown name."""
        ...

    def resolve(self, model: str) -> Rewrite | None:
        """The rule for an incoming model name, with its target drawn."""
        ...


class RequestReader:
    """Makes an ``InferenceRequest`` of what a transport shows.

    Args:
        objects: priorities and rewrites.
        metrics: where rewrites are counted.
        new_id: makes an id for a request without one.
    """

    def __init__(self, objects: ObjectLookup, metrics: Metrics, new_id: Callable[[], str]) -> None:
        self._objects = objects
        self._new_id = new_id
        self._metrics = metrics

    def read(self, pipeline: Pipeline, flight: Flight, request: Request) -> InferenceRequest:
        """Read ``request`` into its flight.

        Raises:
            RequestError: it cannot be read, or names no model.
        """
        body = read_body(pipeline.parsers, flight.path, request)
        headers = request.headers
        target = self._target_model(flight, body, request)
        if body.rewritable and target != body.model:
            flight.splices = _naming(target, body, request)
        objective = lookup(headers, *OBJECTIVE)
        request_id = headers.get(REQUEST_ID)
        flight.adds_request_id = not request_id
        flight.request = inference = InferenceRequest(  # by position, in their order: by name it takes twice as long
            request_id or self._new_id(),
            flight.path,
            headers,
            body,
            body.model,
            target,
            self._objects.priority(objective) if objective else 0,
            lookup(headers, *FAIRNESS_ID) or DEFAULT_FLOW,
            flight.forwarded_bytes(request) if flight.splices or flight.decoded else len(request.body),
            request.at_s,
            RequestData(),
        )
        if request.read and len(request.read) == len(
            pipeline.readings
        ):  # settings and pipeline are exchanged one after the other
            for key, known in zip(pipeline.readings, request.read, strict=True):
                inference.data.set(key, known)
        return inference

    def _target_model(self, flight: Flight, body: ParsedBody, request: Request) -> str:
        """The name to send upstream: a rule's, else the header's, else the client's own."""
        asked = lookup(request.headers, *MODEL_REWRITE)
        if not body.rewritable:
            return asked or body.model
        flight.incoming_model = body.model
        rule = self._objects.resolve(body.model)
        if rule is not None:
            self._metrics.model_rewrite_decision(RewriteLabels(rule.name, body.model, rule.target))
            return rule.target
        target = asked or body.model
        if not target:
            raise RequestError(ErrorCode.BAD_REQUEST, "model not found in request body")
        return target


def _naming(target: str, body: ParsedBody, request: Request) -> Splices:
    """The change of the body that makes ``target`` its model."""
    if body.model_span is None:
        return model_splices(request.body, target)
    return ((*body.model_span, target.encode("utf-8", "surrogateescape")),)
