"""request-attribute-reporter: report a number computed from the usage to the data plane."""

from __future__ import annotations

from pydantic import Field

from epp.framework.interfaces import Role
from epp.framework.params import Params
from epp.framework.registry import PluginType, Reads

TYPE = "request-attribute-reporter"


class AttributeKey(Params):
    """Where the number goes."""

    namespace: str = Field(default="envoy.lb", min_length=1, description="Namespace of the dynamic metadata.")
    name: str = Field(min_length=1, description="Key in the namespace.")


class ReportedAttribute(Params):
    """A number and when to report it."""

    key: AttributeKey = Field(description="Where the number goes.")
    expression: str = Field(min_length=1, description="CEL expression over the usage.")
    condition: str = Field(default="", description="CEL condition; empty = always.")


class RequestAttributeReporterParams(Params):
    """Parameters of request-attribute-reporter."""

    attributes: list[ReportedAttribute] = Field(min_length=1, max_length=1, description="The one reported attribute.")


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.RESPONSE_COMPLETE}),
    summary="Reports a number computed from the usage to the data plane.",
    params=RequestAttributeReporterParams,
    reads=Reads(usage=True),
    wait="expressions over the usage",
)
