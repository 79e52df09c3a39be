"""Kubernetes label selectors as parameters: the grammar, and matching."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from epp.framework.params import Params

_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*")


def _check_key(key: str) -> str:
    prefix, slash, name = key.rpartition("/")
    if not _NAME.fullmatch(name) or (slash and not (_PREFIX.fullmatch(prefix) and len(prefix) <= 253)):
        raise ValueError(
            f"{key!r} is not a label key: at most 63 of A-Z a-z 0-9 - _ . , alphanumeric at both ends, optionally after "
            "a DNS name and a slash"
        )
    return key


def _check_value(value: str) -> str:
    if value and not _NAME.fullmatch(value):
        raise ValueError(
            f"{value!r} is not a label value: empty, or at most 63 of A-Z a-z 0-9 - _ . , alphanumeric at both ends"
        )
    return value


LabelKey = Annotated[str, AfterValidator(_check_key)]
"""A qualified label name."""
LabelValue = Annotated[str, AfterValidator(_check_value)]
"""A label value, possibly empty."""

Matcher = Callable[[Mapping[str, str]], bool]

_PART = re.compile(
    r"\s*(?:!\s*(?P<absent>[^\s=!,()]+)"
    r"|(?P<key>[^\s=!,()]+)\s*(?:(?P<sign>==?|!=)\s*(?P<value>[^\s=!,()]*)|\s(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?)\s*"
)
_COMMA = re.compile(r",(?![^(]*\))")


def parse_selector(text: str) -> Matcher:
    """The predicate of a selector as kubectl takes it: ``a=b,c!=d,e in (x,y),f notin (z),g,!h``.

    Raises:
        ValueError: it is none.
    """
    matchers = [_expression(part).matcher() for part in _COMMA.split(text)]
    return lambda labels: all(matches(labels) for matches in matchers)


def _expression(part: str) -> LabelExpression:
    match = _PART.fullmatch(part)
    if match is None:
        raise ValueError(f"{part.strip()!r} is no condition: write a=b, a!=b, a in (x,y), a notin (x,y), a or !a")
    if match["absent"]:
        return LabelExpression(key=match["absent"], operator="DoesNotExist")
    key, sign, which = match["key"], match["sign"], match["set"]
    if which:
        values = [value.strip() for value in match["values"].split(",")]
        return LabelExpression(key=key, operator="In" if which == "in" else "NotIn", values=values)
    if sign:
        return LabelExpression(key=key, operator="NotIn" if sign == "!=" else "In", values=[match["value"]])
    return LabelExpression(key=key, operator="Exists")


def _check_selector(text: str) -> str:
    parse_selector(text)
    return text


SelectorText = Annotated[str, AfterValidator(_check_selector)]
"""A label selector as text."""


class LabelExpression(Params):
    """One entry of ``matchExpressions``."""

    key: LabelKey = Field(description="Label to look at.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(
        description="In: value is one of `values`; NotIn: label absent or value not one of them; Exists; DoesNotExist."
    )
    values: list[LabelValue] = Field(default=[], description="Values for In and NotIn; empty for the other two.")

    @model_validator(mode="after")
    def _check_values(self) -> LabelExpression:
        wants_values = self.operator in ("In", "NotIn")
        if wants_values and not self.values:
            raise ValueError(f"operator {self.operator} needs at least one entry in values")
        if not wants_values and self.values:
            raise ValueError(f"operator {self.operator} takes no values")
        return self

    def matcher(self) -> Matcher:
        """A predicate over labels."""
        key, values = self.key, frozenset(self.values)
        match self.operator:
            case "In":
                return lambda labels: labels.get(key) in values
            case "NotIn":
                return lambda labels: labels.get(key) not in values
            case "Exists":
                return lambda labels: key in labels
            case "DoesNotExist":
                return lambda labels: key not in labels


class LabelSelector(Params):
    """All conditions must hold; an empty selector matches everything."""

    match_labels: dict[LabelKey, LabelValue] = Field(default={}, description="Labels that must have exactly these values.")
    match_expressions: list[LabelExpression] = Field(default=[], description="Further conditions.")

    def matcher(self) -> Matcher:
        """A predicate over labels."""
        wanted = list(self.match_labels.items())
        expressions = [expression.matcher() for expression in self.match_expressions]

        def matches(labels: Mapping[str, str]) -> bool:
            value_of = labels.get
            for key, value in wanted:
                if value_of(key) != value:
                    return False
            for expression in expressions:  # noqa: SIM110 — once per endpoint and request: a generator costs more
                if not expression(labels):
                    return False
            return True

        return matches
