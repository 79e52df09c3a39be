"""endpoint-attribute-scorer: prefer endpoints by a scraped attribute."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from epp.framework.interfaces import Role
from epp.framework.params import Params, PluginReference, no_producer
from epp.framework.registry import PluginType

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
        if "/" in self.attribute_key and not self.producer:
            raise no_producer(
                f"{TYPE} reads the attribute {self.attribute_key!r}, not one of the metrics extractor's: name its producer"
            )
        return self


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.SCORER}),
    summary="Prefers endpoints by a scraped attribute.",
    params=EndpointAttributeScorerParams,
    experimental=True,
    wait="custom endpoint attributes",
)
