"""by-label: keep endpoints whose label has one of the given values."""

from __future__ import annotations

from pydantic import Field, model_validator

from epp.framework.candidates import Candidates
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Filter, Role
from epp.framework.params import Params
from epp.framework.registry import PluginType
from epp.framework.types import InferenceRequest

TYPE = "by-label"


class ByLabelParams(Params):
    """Parameters of by-label."""

    label: str = Field(min_length=1, description="Label to look at.")
    valid_values: list[str] = Field(
        default=[], description="Accepted values, compared exactly; an empty string also accepts endpoints without the label."
    )
    allows_no_label: bool = Field(default=False, description="Accept endpoints without the label.")

    @model_validator(mode="after")
    def _check_something_passes(self) -> ByLabelParams:
        if not self.valid_values and not self.allows_no_label:
            raise ValueError("validValues is empty and allowsNoLabel is false: no endpoint would ever pass")
        return self


class ByLabelFilter:
    """Keep endpoints by the value of one label.

    Parameters: label, validValues, allowsNoLabel.
    Reads: labels.
    Formula: value in ``validValues``, or no such label and ``allowsNoLabel``.
    Missing data: an absent label reads as "".
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/filter/bylabel/filter.go
    """

    def __init__(self, params: ByLabelParams) -> None:
        self._label = params.label
        self._accepted: frozenset[str | None] = frozenset(params.valid_values)
        if params.allows_no_label or "" in self._accepted:
            self._accepted |= {None}

    def filter(self, request: InferenceRequest, candidates: Candidates) -> Candidates:
        """The candidates with an accepted value."""
        label, accepted = self._label, self._accepted
        return candidates.where([endpoint.labels.get(label) in accepted for endpoint in candidates.endpoints])


def _create(context: PluginContext, params: ByLabelParams) -> Filter:
    return ByLabelFilter(params)


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.FILTER}),
    summary="Keeps endpoints whose label has one of the given values.",
    params=ByLabelParams,
    factory=_create,
    per_snapshot=True,
    example="""
        label: tier
        validValues: [gold]
        allowsNoLabel: false
    """,
)
