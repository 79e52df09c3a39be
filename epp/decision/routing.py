"""A decision in the words of the seam: where the request goes, what is changed on its way, what its response needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from epp.decision.candidates import CandidateFinder
from epp.decision.flight import Flight
from epp.decision.response import ResponseObserver
from epp.errors import RequestError
from epp.framework import log
from epp.framework.results import SchedulingResult
from epp.framework.types import Endpoint
from epp.request.content_coding import CONTENT_ENCODING
from epp.request.edits import EditList
from epp.request.headers import DESTINATION, DESTINATION_SCORES, LB_NAMESPACE, REQUEST_ID
from epp.seam import Edits, Pairs, Plan, Rename, Request, Route

_logger = log.get("epp.decision.routing")

NO_ENDPOINTS = "no pods available in datastore"
"""What clients of requests without a body are told. Source: llm-d-router: pkg/epp/handlers/request.go."""
_UNOBSERVED = Plan()


class Router:
    """Makes routes.

    Args:
        finder: finds candidates of requests without a body.
        responses: knows what a response needs.
        choose: draws one of several endpoints.
        new_id: makes an id for a request without one.
    """

    def __init__(
        self,
        finder: CandidateFinder,
        responses: ResponseObserver,
        choose: Callable[[Sequence[Endpoint]], Endpoint],
        new_id: Callable[[], str],
    ) -> None:
        self._finder = finder
        self._responses = responses
        self._choose = choose
        self._new_id = new_id
        self._said_list = False

    def anywhere(self, request: Request) -> Route:
        """Requests without a body go to any endpoint: no plugins, no books (protocol decisions D3 and D16).

        Raises:
            RequestError: SERVICE_UNAVAILABLE if there is none.
        """
        try:
            candidates = self._finder.find(request.metadata)
        except RequestError as error:
            raise RequestError(error.code, NO_ENDPOINTS, error.reason) from error
        target = self._choose(candidates.endpoints).host_port
        first: list[tuple[str, str]] = [(DESTINATION, target)]
        if not request.headers.get(REQUEST_ID):
            first.append((REQUEST_ID, self._new_id()))
        return Route(Edits(tuple(first)), {LB_NAMESPACE: {DESTINATION: target}}, _UNOBSERVED)

    def route(
        self, flight: Flight, result: SchedulingResult, edits: EditList, scores: Mapping[str, float] | None = None
    ) -> Route:
        """The route of a scheduled request.

        Args:
            edits: what plugins asked for.
            scores: of all candidates, to be emitted; None or none = they are not.
        """
        targets = result.targets
        destination = targets[0].host_port if len(targets) == 1 else self._list(targets)
        first: Pairs = ((DESTINATION, destination),)
        if flight.adds_request_id:
            first = (*first, (REQUEST_ID, flight.inference.request_id))
        values: dict[str, object] = {DESTINATION: destination}
        if scores:
            values[DESTINATION_SCORES] = scores
        metadata: Mapping[str, Mapping[str, object]] = {LB_NAMESPACE: values}
        if edits.metadata is not None:
            metadata = {**edits.metadata, LB_NAMESPACE: {**edits.metadata.get(LB_NAMESPACE, {}), **values}}
        decoded, flight.decoded = flight.decoded, None
        headers, splices = edits.freeze(first), flight.splices
        if decoded is not None:
            if splices:
                headers, splices = headers._replace(remove=headers.remove | {CONTENT_ENCODING}), decoded.replacing(splices)
            decoded.let_go()
        return Route(headers, metadata, self._plan(flight), splices)

    def _list(self, targets: Sequence[Endpoint]) -> str:
        """Several endpoints, best first; said once, because not every data plane can take a list."""
        if not self._said_list:
            self._said_list = True
            _logger.warning(
                "sending lists of endpoints",
                needs="a cluster with the override_host policy; ORIGINAL_DST clusters answer a list with 503",
                endpoints=len(targets),
            )
        return ",".join([endpoint.host_port for endpoint in targets])

    def _plan(self, flight: Flight) -> Plan:
        body = flight.inference.body
        plan = self._responses.plan(flight.hooks, body)
        if body.rewritable and flight.inference.target_model != body.model and body.model:
            return plan._replace(rename=Rename("model", flight.inference.target_model, body.model))
        return plan
