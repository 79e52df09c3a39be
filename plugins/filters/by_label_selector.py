"""by-label-selector: keep endpoints that a Kubernetes label selector matches."""

from __future__ import annotations

from epp.framework.candidates import Candidates
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Filter, Role
from epp.framework.registry import Alias, PluginType
from epp.framework.types import InferenceRequest
from plugins.shared.label_selector import LabelSelector

TYPE = "by-label-selector"


class ByLabelSelectorParams(LabelSelector):
    """Parameters of by-label-selector: a label selector as in Kubernetes."""


class ByLabelSelectorFilter:
    """Keep endpoints whose labels meet all conditions; without conditions all.

    Parameters: matchLabels, matchExpressions.
    Reads: labels.
    Formula: as Kubernetes: NotIn also matches endpoints without the label.
    Missing data: an absent label meets NotIn and DoesNotExist only.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/filter/bylabel/selector.go
    """

    def __init__(self, params: ByLabelSelectorParams) -> None:
        self._matches = params.matcher()

    def filter(self, request: InferenceRequest, candidates: Candidates) -> Candidates:
        """The candidates that match."""
        matches = self._matches
        return candidates.where([matches(endpoint.labels) for endpoint in candidates.endpoints])


def _create(context: PluginContext, params: ByLabelSelectorParams) -> Filter:
    return ByLabelSelectorFilter(params)


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.FILTER}),
    summary="Keeps endpoints that a Kubernetes label selector matches.",
    params=ByLabelSelectorParams,
    factory=_create,
    per_snapshot=True,
    aliases=(Alias("label-selector-filter"),),
    example="""
        matchLabels: {env: production}
        matchExpressions:
        - {key: tier, operator: NotIn, values: [canary]}
    """,
)
