"""Several InferencePools followed by one process, before an API server that knows as much as they ask."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
import yaml
from aiohttp import web
from grpc import aio
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from epp.cluster.election import lease_name
from tests.conformance.test_many_pools import CODE, Folder, folder, serving
from tests.kube.manifests import pod, pool

__all__ = ["folder"]

POOLS = "/apis/inference.networking.k8s.io/v1/namespaces/{}/inferencepools"
PODS = "/api/v1/namespaces/{}/pods"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"


class FakeCluster:
    """Lists what it was given; its watches bring nothing. An async context manager.

    Args:
        objects: path of a collection and what its selector must say → objects.
    """

    def __init__(self, objects: dict[tuple[str, str], list[dict[str, Any]]]) -> None:
        self._objects = objects
        self._closed = asyncio.Event()
        self._runner: web.ServerRunner
        self.leases: dict[str, Any] = {}
        self.tokens: set[str] = set()
        self.port = 0

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        await self._runner.cleanup()

    def kubeconfig(self, path: Path) -> Path:
        document = {
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "u", "user": {"token": "secret"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path.write_text(yaml.safe_dump(document))
        return path

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path, query = request.path, request.query
        if path.startswith(LEASES.partition("{")[0]):
            return await self._lease(request)
        if path.endswith("tokenreviews"):
            token = orjson.loads(await request.read())["spec"]["token"]
            return web.json_response({"status": {"authenticated": token in self.tokens, "user": {"username": "u"}}}, status=201)
        if path.endswith("subjectaccessreviews"):
            return web.json_response({"status": {"allowed": True}}, status=201)
        selector = query.get("labelSelector", "") or query.get("fieldSelector", "")
        known = {collection for collection, _ in self._objects}
        if request.method != "GET" or path not in known:
            return _none()
        if "watch" in query:
            response = web.StreamResponse()
            await response.prepare(request)
            await self._closed.wait()
            return response
        items = self._objects.get((path, selector), [])
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": items})

    async def _lease(self, request: web.BaseRequest) -> web.Response:
        name = request.path.rpartition("/")[2]
        if request.method == "GET":
            lease = self.leases.get(name)
            return web.json_response(
                lease or {"kind": "Status", "code": 404, "reason": "NotFound"}, status=200 if lease else 404
            )
        lease = orjson.loads(await request.read())
        self.leases[lease["metadata"]["name"]] = lease
        return web.json_response(lease, status=201)


def _none() -> web.Response:
    return web.json_response({"kind": "Status", "code": 404, "reason": "NotFound", "message": "no"}, status=404)


def stored(document: dict[str, Any], namespace: str) -> dict[str, Any]:
    """An object as the API server gives it."""
    document["metadata"] |= {"namespace": namespace, "resourceVersion": "1", "uid": document["metadata"]["name"]}
    return document


def two_pools() -> FakeCluster:
    """``chat`` in ``default``, ``code`` in ``ai``, a pod each; any other pool does not exist."""
    objects: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for name, namespace, address in (("chat", "default", "10.0.0.1"), ("code", "ai", "10.0.1.1")):
        labels = {"app": name}
        objects[POOLS.format(namespace), f"metadata.name={name}"] = [stored(pool(name, labels=labels), namespace)]
        objects[PODS.format(namespace), f"app={name}"] = [stored(pod(name, address, labels=labels), namespace)]
    return FakeCluster(objects)


def pools(folder: Folder) -> None:
    folder.pools(
        {"name": "chat", "configFile": "chat.yaml", "match": {"authorities": ["chat"]}},
        {"name": "code", "namespace": "ai", "configFile": "code.yaml", "match": {"authorities": ["code"]}},
        {"name": "gone", "match": {"authorities": ["gone"]}},
        {"name": "fixed", "endpoints": [CODE], "default": True},
    )


async def test_each_pool_has_the_pods_of_its_own_inference_pool(folder: Folder, tmp_path: Path) -> None:
    pools(folder)
    async with two_pools() as cluster:
        flags = (f"--kubeconfig={cluster.kubeconfig(tmp_path / 'kubeconfig')}", "--metrics-endpoint-auth=false")
        async with serving(folder, *flags) as served:
            for name, target in (("chat", "10.0.0.1:8000"), ("code", "10.0.1.1:8000")):
                await served.pool(name, lambda found: found["endpoints"] == 1)
                assert await served.target(name) == target
            gone = await served.pool("gone")
            assert (gone["state"], gone["ready"]) == ("served", False)
            assert "does not exist" in gone["notReady"][0]
            assert await served.target("other") == CODE
            assert (await served.page("/readyz"))["status"] == "ready", "one pool that is missing is no reason for the others"


async def test_tokens_are_demanded_as_soon_as_a_pool_needs_the_cluster(folder: Folder, tmp_path: Path) -> None:
    pools(folder)
    async with two_pools() as cluster:
        cluster.tokens.add("good")
        async with serving(folder, f"--kubeconfig={cluster.kubeconfig(tmp_path / 'kubeconfig')}") as served:
            for path in ("/metrics", "/debug/pools", "/pools/chat/debug/config"):
                await served.page(path, status=401)
            async with served.http.get(served.url + "/debug/pools", headers={"Authorization": "Bearer good"}) as answer:
                assert answer.status == 200


async def test_one_lease_for_all_pools_called_by_the_first(folder: Folder, tmp_path: Path) -> None:
    pools(folder)
    async with two_pools() as cluster:
        flags = [f"--kubeconfig={cluster.kubeconfig(tmp_path / 'kubeconfig')}", "--metrics-endpoint-auth=false"]
        async with (
            serving(folder, *flags, "--ha-enable-leader-election") as served,
            aio.insecure_channel(f"127.0.0.1:{served.picker.grpc_health_port}") as channel,
        ):
            await served.pool("chat", lambda found: found["ready"])
            assert set(cluster.leases) == {lease_name("default", "chat")}
            answer = await HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="chat"))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        assert cluster.leases[lease_name("default", "chat")]["spec"].get("holderIdentity") in ("", None), "it was released"
