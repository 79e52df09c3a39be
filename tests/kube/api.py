"""What the tests do to a cluster: an administrator's client that shares no code with the picker's."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import aiohttp

from tests.kube.cluster import ADMIN_TOKEN, Cluster

Object = dict[str, Any]

_PLURALS = {"InferencePool": "inferencepools", "NetworkPolicy": "networkpolicies", "Ingress": "ingresses"}
T = TypeVar("T")
_PAUSE_S = 0.02
_AT_ONCE = 20
_CLUSTER_WIDE = {"Namespace", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}


class ApiError(Exception):
    """The API server refused; ``status`` is the HTTP status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


class Api:
    """The API of a cluster, as an async context manager.

    Args:
        cluster: whose.
        namespace: of objects that name none.
    """

    def __init__(self, cluster: Cluster, namespace: str = "default") -> None:
        self.cluster = cluster
        self.namespace = namespace
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        context = ssl.create_default_context(cafile=self.cluster.ca_file)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context), headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def call(self, method: str, path: str, body: object = None, content_type: str = "application/json") -> Object:
        """One request.

        Raises:
            ApiError: it was refused.
        """
        assert self._session is not None
        headers = {"Content-Type": content_type}
        async with self._session.request(method, self.cluster.url + path, json=body, headers=headers) as response:
            if response.status >= 400:
                raise ApiError(response.status, await response.text())
            answer: Object = await response.json()
            return answer

    def path(self, manifest: Mapping[str, Any], *, collection: bool = False) -> str:
        """Where an object is, or the collection it belongs to."""
        return path_of(manifest, self.namespace, collection=collection)

    async def create(self, manifest: Object) -> Object:
        """Create an object, and its status where it has one."""
        created = await self.call("POST", self.path(manifest, collection=True), manifest)
        if "status" in manifest:
            created["status"] = manifest["status"]
            created = await self.call("PUT", self.path(manifest) + "/status", created)
        return created

    async def patch(self, manifest: Mapping[str, Any], change: Object, subresource: str = "") -> Object:
        """Merge ``change`` into an object."""
        path = self.path(manifest) + (f"/{subresource}" if subresource else "")
        return await self.call("PATCH", path, change, "application/merge-patch+json")

    async def get(self, manifest: Mapping[str, Any]) -> Object:
        """The object as it is."""
        return await self.call("GET", self.path(manifest))

    async def delete(self, manifest: Mapping[str, Any]) -> None:
        """Delete an object at once."""
        await self.call("DELETE", self.path(manifest), {"gracePeriodSeconds": 0, "propagationPolicy": "Background"})

    async def install(self, definition: Object) -> None:
        """Create a custom resource definition, and wait until its resources are served."""
        try:
            await self.create(definition)
        except ApiError as error:
            if error.status != 409:
                raise
        spec = definition["spec"]
        path = f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}"
        await until(lambda: self._is_served(path), "the resource is served")

    async def _is_served(self, path: str) -> bool:
        try:
            await self.call("GET", path)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    async def token(self, account: str) -> str:
        """A token of a service account, which is created if need be."""
        manifest = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}}
        try:
            await self.create(manifest)
        except ApiError as error:
            if error.status != 409:
                raise
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
        answer = await self.call("POST", self.path(manifest) + "/token", request)
        token: str = answer["status"]["token"]
        return token


async def until(holds: Callable[[], Awaitable[T]], what: str, timeout_s: float = 30.0) -> T:
    """Ask until the answer is true, and return it: for what another process does without telling.

    Raises:
        AssertionError: it was never true.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        answer = await holds()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}; last: {answer!r}"
        await asyncio.sleep(_PAUSE_S)


async def several(work: Iterable[Awaitable[object]]) -> None:
    """Do all, some at once."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(call: Awaitable[object]) -> None:
        async with gate:
            await call

    await asyncio.gather(*map(one, work))


def path_of(manifest: Mapping[str, Any], namespace: str, *, collection: bool = False) -> str:
    """The path of an object in the API."""
    version, kind, metadata = manifest["apiVersion"], manifest["kind"], manifest["metadata"]
    plural = _PLURALS.get(kind) or (kind.lower()[:-1] + "ies" if kind.endswith("cy") else kind.lower() + "s")
    path = f"/apis/{version}" if "/" in version else f"/api/{version}"
    if kind not in _CLUSTER_WIDE:
        path += f"/namespaces/{quote(metadata.get('namespace', namespace))}"
    path += f"/{plural}"
    return path if collection else f"{path}/{quote(metadata['name'])}"
