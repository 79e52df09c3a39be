"""Fixtures of tests that need a cluster: kube-apiserver and etcd, one for all tests; a namespace and a user for each."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.kube import crds
from tests.kube.api import Api
from tests.kube.cluster import Cluster, missing
from tests.kube.manifests import binding, role
from tests.kube.picker import Picker, Way, write_kubeconfig

StartPicker = Callable[..., Awaitable[Picker]]


@pytest.fixture(scope="session")
def have_cluster(request: pytest.FixtureRequest) -> None:
    """Without the programs the test is skipped, or fails under ``--require=kube``."""
    if problem := missing():
        if "kube" in request.config.getoption("--require").split(","):
            pytest.fail(problem)
        pytest.skip(problem)


@pytest.fixture(scope="session")
def cluster(have_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that tests share; they break the way to it, not the cluster."""
    started = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.fixture
def own_cluster(have_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of this test alone, without custom resources."""
    started = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.fixture
async def cleanup() -> AsyncIterator[AsyncExitStack]:
    """What the other fixtures start; ended in reverse order when the test is over."""
    async with AsyncExitStack() as stack:
        yield stack


async def _namespace(api: Api) -> None:
    """A namespace with what a picker is allowed to do there."""
    await api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": api.namespace}})
    await api.create(role())
    await api.create(binding(api.namespace))


@pytest.fixture
async def api(cluster: Cluster) -> AsyncIterator[Api]:
    """An administrator's client, with a namespace of its own; all resources are there."""
    async with Api(cluster, f"n-{uuid.uuid4().hex[:10]}") as client:
        for definition in crds.everything():
            await client.install(definition)
        await _namespace(client)
        yield client


@pytest.fixture
async def own_api(own_cluster: Cluster) -> AsyncIterator[Api]:
    """The same for the cluster of this test alone, where no custom resource is installed."""
    async with Api(own_cluster, "n") as client:
        await _namespace(client)
        yield client


@pytest.fixture
async def way(cluster: Cluster, cleanup: AsyncExitStack) -> Way:
    """The network between the pickers of this test and the API server."""
    return await cleanup.enter_async_context(Way(cluster.port))


@pytest.fixture
def start(api: Api, way: Way, tmp_path: Path, cleanup: AsyncExitStack) -> StartPicker:
    """Factory: ``await start(...)`` runs a picker of the pool ``chat`` in the namespace of this test."""
    return _starter(api, way.port, tmp_path, cleanup)


@pytest.fixture
def own_start(own_api: Api, tmp_path: Path, cleanup: AsyncExitStack) -> StartPicker:
    """The same for the cluster of this test alone."""
    return _starter(own_api, 0, tmp_path, cleanup)


def _starter(api: Api, port: int, folder: Path, cleanup: AsyncExitStack) -> StartPicker:
    async def begin(
        *arguments: str, pool: str = "chat", user: Any = None, port: int = port, account: str = "epp", **more: Any
    ) -> Picker:
        name = more.setdefault("name", "picker")
        token = "" if user else await api.token(account)
        kubeconfig = write_kubeconfig(folder / f"{name}.kubeconfig", api.cluster, port=port, token=token, user=user)
        pool_flags = [f"--pool-name={pool}"] if pool else []
        if not more.get("pools_file"):
            pool_flags.append(f"--pool-namespace={api.namespace}")
        flags = [*pool_flags, f"--kubeconfig={kubeconfig}", *arguments]
        return await cleanup.enter_async_context(Picker(folder, flags, **more))

    return begin
