"""endpoint-attribute-filter: keep endpoints by comparing a scraped attribute with a number."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field, model_validator

from epp.framework.candidates import Candidates
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Filter, Role
from epp.framework.params import Params, PluginReference
from epp.framework.registry import PluginType
from epp.framework.types import InferenceRequest
from plugins.shared.endpoint_attributes import attribute_column, check_attribute

TYPE = "endpoint-attribute-filter"


class Threshold(Params):
    """A comparison of the attribute with a number."""

    operator: Literal["LessThan", "LessThanOrEqual", "GreaterThan", "GreaterThanOrEqual", "Equal", "NotEqual"] = Field(
        description="Comparison that an endpoint must pass."
    )
    value: float = Field(description="Number that the attribute is compared with.")


class FilterAlgorithm(Params):
    """How the attribute is judged."""

    type: Literal["threshold"] = Field(description="The only algorithm.")
    threshold: Threshold = Field(description="The comparison.")


class EndpointAttributeFilterParams(Params):
    """Parameters of endpoint-attribute-filter."""

    attribute: str = Field(min_length=1, description="Attribute to compare.")
    producer: Annotated[str, PluginReference()] = Field(
        default="", description="Instance that writes the attribute; default: the metrics extractor."
    )
    on_missing: Literal["Pass", "Fail"] = Field(default="Pass", description="What happens to endpoints without the attribute.")
    fallback_on_empty: bool = Field(default=False, description="Keep all endpoints when none would be left.")
    algorithm: FilterAlgorithm = Field(description="How the attribute is judged.")

    @model_validator(mode="after")
    def _check_producer(self) -> EndpointAttributeFilterParams:
        check_attribute(TYPE, "attribute", self.attribute, self.producer)
        return self


_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "LessThan": operator.lt,
    "LessThanOrEqual": operator.le,
    "GreaterThan": operator.gt,
    "GreaterThanOrEqual": operator.ge,
    "Equal": operator.eq,
    "NotEqual": operator.ne,
}


class EndpointAttributeFilter:
    """Keep endpoints whose attribute compares as asked with a number.

    Parameters: attribute, producer, onMissing, fallbackOnEmpty, algorithm.
    Reads: the attribute: WaitingQueueSize, RunningRequestsSize, KVCacheUsagePercent, or what an extractor writes.
    Formula: ``attribute operator value``; when none is left and ``fallbackOnEmpty``, all.
    Missing data: an endpoint without the attribute is kept, unless ``onMissing`` is Fail; so is what is no finite number.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/filter/endpointattribute
    """

    def __init__(self, params: EndpointAttributeFilterParams) -> None:
        self._column = attribute_column(params.attribute)
        self._passes = _COMPARE[params.algorithm.threshold.operator]
        self._value = params.algorithm.threshold.value
        self._keeps_missing = params.on_missing == "Pass"
        self._falls_back = params.fallback_on_empty

    def filter(self, request: InferenceRequest, candidates: Candidates) -> Candidates:
        """The candidates that pass."""
        passes, limit, keeps_missing = self._passes, self._value, self._keeps_missing
        values = self._column(candidates)
        kept = candidates.where([keeps_missing if value is None else passes(value, limit) for value in values])
        return candidates if not kept and self._falls_back else kept


def _create(context: PluginContext, params: EndpointAttributeFilterParams) -> Filter:
    return EndpointAttributeFilter(params)


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.FILTER}),
    summary="Keeps endpoints by comparing a scraped attribute with a number.",
    params=EndpointAttributeFilterParams,
    factory=_create,
    per_snapshot=True,
    experimental=True,
    example="""
        attribute: WaitingQueueSize
        algorithm:
          type: threshold
          threshold: {operator: LessThan, value: 16}
        fallbackOnEmpty: true
    """,
)
