"""endpoint-attribute-filter: keep endpoints by comparing a scraped attribute with a number."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from epp.framework.interfaces import Role
from epp.framework.params import Params, PluginReference, no_producer
from epp.framework.registry import PluginType

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
        if "/" in self.attribute and not self.producer:
            raise no_producer(
                f"{TYPE} reads the attribute {self.attribute!r}, not one of the metrics extractor's: name its producer"
            )
        return self


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.FILTER}),
    summary="Keeps endpoints by comparing a scraped attribute with a number.",
    params=EndpointAttributeFilterParams,
    experimental=True,
    wait="custom endpoint attributes",
)
