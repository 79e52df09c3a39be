"""k8s-notification-source and endpoint-notification-source: events for extractors."""

from __future__ import annotations

from pydantic import Field

from epp.framework.handle import PluginContext
from epp.framework.interfaces import Role
from epp.framework.notifications import ObjectKind
from epp.framework.params import Params
from epp.framework.registry import PluginType
from epp.framework.types import Endpoint


class K8sNotificationSourceParams(Params):
    """Parameters of k8s-notification-source."""

    group: str = Field(default="", description="API group of the watched objects; empty = core.")
    version: str = Field(min_length=1, description="API version.")
    kind: str = Field(min_length=1, description="Kind.")


class K8sNotificationSource:
    """Tells its extractors of all objects of a kind in the pool's namespace: those that are there, and what becomes of them.

    The picker must be allowed to list and watch the kind; the chart's Role does not say so. Its extractors are plugins of other
    packages: none of this one needs it. Outside of a cluster it does nothing.
    Source: llm-d-router: pkg/epp/framework/plugins/datalayer/source/notifications/k8s_datasource.go
    """

    interval_s: float | None = None

    def __init__(self, objects: ObjectKind) -> None:
        self.objects = objects
        self.output = f"kubernetes:{objects}"

    async def fetch(self, endpoint: Endpoint) -> bytes:
        """Nothing: it is not polled."""
        return b""

    async def close(self) -> None:
        """Nothing to close."""


class EndpointNotificationSource:
    """Gives each endpoint to its extractors when it comes, and again when its labels change.

    It reads nothing, so it has no interval. Plugins that keep something for each endpoint hear of all changes anyway: listed
    here they lose and gain nothing.
    Source: llm-d-router: pkg/epp/framework/plugins/datalayer/source/notifications/endpoint_datasource.go
    """

    output = "endpoint-notification"
    tells_of_endpoints = True
    interval_s: float | None = None

    async def fetch(self, endpoint: Endpoint) -> bytes:
        """Nothing: it is not polled."""
        return b""

    async def close(self) -> None:
        """Nothing to close."""


def _create_endpoints(context: PluginContext, params: Params) -> EndpointNotificationSource:
    return EndpointNotificationSource()


def _create_objects(context: PluginContext, params: K8sNotificationSourceParams) -> K8sNotificationSource:
    return K8sNotificationSource(ObjectKind(params.group, params.version, params.kind))


KUBERNETES = PluginType(
    type="k8s-notification-source",
    roles=frozenset({Role.DATA_SOURCE}),
    summary="Tells extractors of changed Kubernetes objects.",
    params=K8sNotificationSourceParams,
    factory=_create_objects,
    example="""
        version: v1
        kind: ConfigMap
    """,
)

ENDPOINTS = PluginType(
    type="endpoint-notification-source",
    roles=frozenset({Role.DATA_SOURCE}),
    summary="Tells extractors of endpoints that come, change and go.",
    factory=_create_endpoints,
    example="""
        plugins:
        - type: endpoint-notification-source
        - type: topology-extractor
        - type: random-picker
        dataLayer:
          sources:
          - pluginRef: endpoint-notification-source
            extractors:
            - pluginRef: topology-extractor
        schedulingProfiles:
        - name: default
          plugins:
          - pluginRef: random-picker
    """,
)

PLUGINS = (KUBERNETES, ENDPOINTS)
