"""vertexai-parser: Vertex AI's gRPC prediction service."""

from __future__ import annotations

from epp.framework.interfaces import Role
from epp.framework.registry import PluginType

TYPE = "vertexai-parser"

PLUGIN = PluginType(
    type=TYPE,
    roles=frozenset({Role.PARSER}),
    summary="Reads ChatCompletions, RawPredict and StreamRawPredict calls of Vertex AI's prediction service.",
    wait="gRPC request formats",
)
