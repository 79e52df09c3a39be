"""models-data-source and model-server-protocol-models: which models each server serves."""

from __future__ import annotations

from pydantic import Field

from epp.framework.interfaces import Role
from epp.framework.keys import SERVED_MODELS
from epp.framework.registry import Alias, Gate, PluginType
from plugins.datalayer.http_source import Interval, Scheme, TlsPaths


class ModelsDataSourceParams(TlsPaths):
    """Parameters of models-data-source."""

    scheme: Scheme = Field(default="http", description="`http` or `https`.")
    path: str = Field(default="/v1/models", min_length=1, description="Path of the model list.")
    insecure_skip_verify: bool = Field(default=True, description="Do not verify the server's certificate.")
    interval: Interval = Field(default="", description="Time between two reads, a duration; default: 5s.")


SOURCE = PluginType(
    type="models-data-source",
    roles=frozenset({Role.DATA_SOURCE}),
    summary="Reads /v1/models of each server.",
    params=ModelsDataSourceParams,
    gate=Gate.DATA_LAYER,
    wait="model discovery",
    example="""
        featureGates: [dataLayer]
        plugins:
        - type: models-data-source
        - type: model-server-protocol-models
        - type: queue-scorer
        - type: max-score-picker
        schedulingProfiles:
        - name: default
          plugins:
          - pluginRef: queue-scorer
          - pluginRef: max-score-picker
        data:
          sources:
          - pluginRef: models-data-source
            extractors:
            - pluginRef: model-server-protocol-models
    """,
)

EXTRACTOR = PluginType(
    type="model-server-protocol-models",
    roles=frozenset({Role.EXTRACTOR}),
    summary="Keeps the list of served models.",
    aliases=(Alias("models-data-extractor"),),
    produces=(SERVED_MODELS,),
    gate=Gate.DATA_LAYER,
    wait="model discovery",
    example="""
        featureGates: [dataLayer]
        plugins:
        - type: models-data-source
        - type: model-server-protocol-models
        - type: queue-scorer
        - type: max-score-picker
        schedulingProfiles:
        - name: default
          plugins:
          - pluginRef: queue-scorer
          - pluginRef: max-score-picker
        data:
          sources:
          - pluginRef: models-data-source
            extractors:
            - pluginRef: model-server-protocol-models
    """,
)

PLUGINS = (SOURCE, EXTRACTOR)
