"""request-attribute-reporter: report a number computed from the usage to the data plane."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from epp.framework.handle import PluginContext
from epp.framework.interfaces import ResponseComplete, Role
from epp.framework.params import Params
from epp.framework.registry import PluginType
from epp.framework.results import SchedulingResult
from epp.framework.types import Completion, InferenceRequest, Usage
from plugins.response.expression import EvaluationError, MissingMemberError, compile_expression

TYPE = "request-attribute-reporter"
VARIABLE = "usage"
_NOTHING_TO_SAY = (0, -1)
"""Values that are not reported; upstream uses them for "no value" and "an error"."""


def _check_expression(text: str) -> str:
    if text:
        compile_expression(text, VARIABLE)
    return text


class AttributeKey(Params):
    """Where the number goes."""

    namespace: str = Field(default="envoy.lb", min_length=1, description="Namespace of the dynamic metadata.")
    name: str = Field(min_length=1, description="Key in the namespace.")


class ReportedAttribute(Params):
    """A number and when to report it."""

    key: AttributeKey = Field(description="Where the number goes.")
    expression: Annotated[str, AfterValidator(_check_expression)] = Field(
        min_length=1, description="CEL expression over `usage` that gives a number; its fraction is cut off."
    )
    condition: Annotated[str, AfterValidator(_check_expression)] = Field(
        default="", description="CEL condition over `usage`; empty = always."
    )


class RequestAttributeReporterParams(Params):
    """Parameters of request-attribute-reporter."""

    attributes: list[ReportedAttribute] = Field(min_length=1, max_length=1, description="The one reported attribute.")


class RequestAttributeReporter:
    """Put a number that is computed from the token counts into the dynamic metadata of the last answer.

    Parameters: attributes[0].{key.namespace, key.name, expression, condition}.
    Reads: ``usage.prompt_tokens``, ``usage.completion_tokens``, ``usage.total_tokens`` and
        ``usage.prompt_tokens_details.cached_tokens``, as far as the model server reported them.
    Result: a whole number. 0 and -1 are not reported, nor is anything if a member is missing or the condition does not hold.
    Failure: an expression without a number as its value, such as a division by 0, is reported as a defect.
    Source: llm-d-router: pkg/epp/framework/plugins/requestcontrol/requestattributereporter/plugin.go
    """

    def __init__(self, attribute: ReportedAttribute) -> None:
        self._namespace = attribute.key.namespace
        self._name = attribute.key.name
        self._expression = compile_expression(attribute.expression, VARIABLE)
        self._condition = compile_expression(attribute.condition, VARIABLE) if attribute.condition else None

    def response_complete(self, request: InferenceRequest, result: SchedulingResult, completion: Completion) -> None:
        """Add the number to the metadata of the end.

        Raises:
            EvaluationError: the expression has no number as its value.
        """
        variables = {VARIABLE: _members(completion.usage)}
        try:
            if self._condition is not None and self._condition(variables) is not True:
                return
            value = self._expression(variables)
        except MissingMemberError:
            return
        number = _whole(value)
        if number not in _NOTHING_TO_SAY:
            completion.metadata.setdefault(self._namespace, {})[self._name] = float(number)


def _members(usage: Usage) -> Mapping[str, object]:
    """The usage as OpenAI writes it; empty if there is none."""
    if not usage.found:
        return {}
    members: dict[str, object] = {
        "prompt_tokens": float(usage.prompt_tokens),
        "completion_tokens": float(usage.completion_tokens),
        "total_tokens": float(usage.total_tokens),
    }
    if usage.cached_tokens is not None:
        members["prompt_tokens_details"] = {"cached_tokens": float(usage.cached_tokens)}
    return members


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise EvaluationError(f"the expression must give a number, not {value!r}")
    return int(value)


def _create(context: PluginContext, params: RequestAttributeReporterParams) -> ResponseComplete:
    return RequestAttributeReporter(params.attributes[0])


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.RESPONSE_COMPLETE}),
    summary="Reports a number computed from the usage to the data plane.",
    params=RequestAttributeReporterParams,
    factory=_create,
    example="""
        attributes:
        - key: {name: cost}
          expression: usage.prompt_tokens + 4 * usage.completion_tokens
    """,
)
