"""header-label-affinity-scorer: prefer endpoints whose label equals a request header."""

from __future__ import annotations

from pydantic import Field

from epp.framework.candidates import Candidates
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Role, Scorer
from epp.framework.params import Params
from epp.framework.registry import PluginType
from epp.framework.types import InferenceRequest

TYPE = "header-label-affinity-scorer"


class HeaderLabelAffinityScorerParams(Params):
    """Parameters of header-label-affinity-scorer."""

    header_name: str = Field(min_length=1, description="Request header with the wanted value.")
    label_key: str = Field(min_length=1, description="Label that should have this value.")


class HeaderLabelAffinityScorer:
    """Score endpoints whose label has the value of a request header.

    Parameters: headerName, labelKey.
    Reads: the header; labels.
    Formula: 1.0 where the label equals the header's value exactly, else 0.0.
    Missing data: without the header, or with an empty one, 0.0 for all; an endpoint without the label 0.0.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/scorer/headerlabelaffinity
    """

    def __init__(self, header: str, label: str) -> None:
        self._header = header.lower()
        self._label = label

    def score(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        """Scores in [0, 1], shape ``(len(candidates),)``."""
        wanted = request.headers.get(self._header)
        if not wanted:
            return [0.0] * len(candidates)
        label = self._label
        return [1.0 if endpoint.labels.get(label) == wanted else 0.0 for endpoint in candidates.endpoints]


def _create(context: PluginContext, params: HeaderLabelAffinityScorerParams) -> Scorer:
    return HeaderLabelAffinityScorer(params.header_name, params.label_key)


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SCORER}),
    summary="Prefers endpoints whose label equals a request header.",
    params=HeaderLabelAffinityScorerParams,
    factory=_create,
    experimental=True,
    example="""
        headerName: x-zone
        labelKey: topology.kubernetes.io/zone
    """,
)
