"""endpoint-attribute-scorer: prefer endpoints by a scraped attribute."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from epp.framework.candidates import Candidates
from epp.framework.handle import PluginContext
from epp.framework.interfaces import Role, Scorer
from epp.framework.params import Params, PluginReference
from epp.framework.registry import PluginType
from epp.framework.types import InferenceRequest
from plugins.shared.endpoint_attributes import attribute_column, check_attribute

TYPE = "endpoint-attribute-scorer"


class FixedRange(Params):
    """Bounds of the attribute."""

    min: float = Field(description="Value at one end of the scores.")
    max: float = Field(description="Value at the other end.")

    @model_validator(mode="after")
    def _check_order(self) -> FixedRange:
        if self.min >= self.max:
            raise ValueError(f"min must be below max, they are {self.min:g} and {self.max:g}")
        return self


class AdaptiveRange(Params):
    """Bounds are the candidates' own; no options."""


class Normalization(Params):
    """How values become scores; at most one."""

    fixed_range: FixedRange | None = Field(default=None, description="Between given bounds.")
    adaptive_range: AdaptiveRange | None = Field(default=None, description="Between the candidates' extremes (default).")

    @model_validator(mode="after")
    def _check_single(self) -> Normalization:
        if self.fixed_range is not None and self.adaptive_range is not None:
            raise ValueError("fixedRange and adaptiveRange exclude each other")
        return self


class ScorerAlgorithm(Params):
    """How the attribute is judged."""

    type: Literal["linear_lower_is_better", "linear_higher_is_better"] = Field(description="Which end scores 1.0.")
    normalization: Normalization = Field(default_factory=Normalization, description="How values become scores.")


class EndpointAttributeScorerParams(Params):
    """Parameters of endpoint-attribute-scorer."""

    attribute_key: str = Field(min_length=1, description="Attribute to score by.")
    producer: Annotated[str, PluginReference()] = Field(
        default="", description="Instance that writes the attribute; default: the metrics extractor."
    )
    algorithm: ScorerAlgorithm = Field(description="How the attribute is judged.")

    @model_validator(mode="after")
    def _check_producer(self) -> EndpointAttributeScorerParams:
        check_attribute(TYPE, "attributeKey", self.attribute_key, self.producer)
        return self


class EndpointAttributeScorer:
    """Score by an attribute, linearly between two bounds.

    Parameters: attributeKey, producer, algorithm.
    Reads: the attribute: WaitingQueueSize, RunningRequestsSize, KVCacheUsagePercent, or what an extractor writes.
    Formula: ``(v - min) / (max - min)``, clamped to [0, 1], subtracted from 1 if lower is better; the bounds are given or the
        candidates' own extremes; 1.0 where those are equal.
    Missing data: an endpoint without the attribute scores 0.0 and is no extreme; what is no finite number counts as missing.
    Source: llm-d-router: pkg/epp/framework/plugins/scheduling/scorer/endpointattribute
    """

    def __init__(self, params: EndpointAttributeScorerParams) -> None:
        self._column = attribute_column(params.attribute_key)
        self._lower_is_better = params.algorithm.type == "linear_lower_is_better"
        fixed = params.algorithm.normalization.fixed_range
        self._bounds = (fixed.min, fixed.max) if fixed is not None else None

    def score(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        """Scores in [0, 1], shape ``(len(candidates),)``."""
        values = self._column(candidates)
        known = [value for value in values if value is not None]
        if not known:
            return [0.0] * len(values)
        low, high = self._bounds or (min(known), max(known))
        if low == high:
            return [0.0 if value is None else 1.0 for value in values]
        worst, best = (high, low) if self._lower_is_better else (low, high)
        span = best - worst
        return [0.0 if value is None else min(max((value - worst) / span, 0.0), 1.0) for value in values]


def _create(context: PluginContext, params: EndpointAttributeScorerParams) -> Scorer:
    return EndpointAttributeScorer(params)


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SCORER}),
    summary="Prefers endpoints by a scraped attribute.",
    params=EndpointAttributeScorerParams,
    factory=_create,
    per_snapshot=True,
    experimental=True,
    example="""
        attributeKey: WaitingQueueSize
        algorithm:
          type: linear_lower_is_better
          normalization:
            fixedRange: {min: 0, max: 64}
    """,
)
