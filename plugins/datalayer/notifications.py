"""k8s-notification-source and endpoint-notification-source: events for extractors."""

from __future__ import annotations

from pydantic import Field

from epp.framework.interfaces import Role
from epp.framework.params import Params
from epp.framework.registry import PluginType


class K8sNotificationSourceParams(Params):
    """Parameters of k8s-notification-source."""

    group: str = Field(default="", description="API group of the watched objects; empty = core.")
    version: str = Field(min_length=1, description="API version.")
    kind: str = Field(min_length=1, description="Kind.")


KUBERNETES = PluginType(
    type="k8s-notification-source",
    roles=frozenset({Role.DATA_SOURCE}),
    summary="Tells extractors of changed Kubernetes objects.",
    params=K8sNotificationSourceParams,
    wait="Kubernetes",
    example="""
        version: v1
        kind: ConfigMap
    """,
)

ENDPOINTS = PluginType(
    type="endpoint-notification-source",
    roles=frozenset({Role.DATA_SOURCE}),
    summary="Tells extractors of endpoints that come, change and go.",
    wait="notification sources",
)

PLUGINS = (KUBERNETES, ENDPOINTS)
