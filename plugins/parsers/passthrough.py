"""passthrough-parser: forward bodies unread."""

from __future__ import annotations

from epp.framework.handle import PluginContext
from epp.framework.interfaces import Parser, Role
from epp.framework.params import NoParams
from epp.framework.registry import PluginType
from epp.framework.types import RAW_BODY, HeaderView, ParsedBody

TYPE = "passthrough-parser"


class PassthroughParser:
    """Take every path that no other parser claims; the body is neither read nor changed.

    Parameters: none.
    Such a request has no model name and no text: it is scheduled by headers and load alone.
    Source: llm-d-router: pkg/epp/framework/plugins/requesthandling/parsers/passthrough
    """

    paths: tuple[str, ...] = ()
    app_protocols: tuple[str, ...] = ()

    def parse(self, path: str, headers: HeaderView, body: memoryview) -> ParsedBody:
        """Nothing is read."""
        return RAW_BODY


def _create(context: PluginContext, params: NoParams) -> Parser:
    return PassthroughParser()


PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.PARSER}),
    summary="Takes every path that no other parser claims; forwards bodies unread.",
    factory=_create,
)
