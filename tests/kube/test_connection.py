"""How the picker finds an API server and shows who it is; what a start without one says."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from epp.cluster import connection as module
from epp.cluster.connection import ClusterConnection, ClusterError
from epp.cluster.events import EventRecorder, Subject
from epp.errors import UsageError
from tests.kube.api import Api, until
from tests.kube.cluster import Cluster
from tests.kube.manifests import pool
from tests.kube.picker import write_kubeconfig


@pytest.fixture
async def account(api: Api, tmp_path: Path) -> Path:
    """The folder that a kubelet gives to a pod."""
    (tmp_path / "token").write_text(await api.token("epp"))
    (tmp_path / "ca.crt").write_bytes(api.cluster.ca_file.read_bytes())
    return tmp_path


def in_cluster(cluster: Cluster) -> dict[str, str]:
    """Variables of a pod."""
    return {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(cluster.port), "KUBECONFIG": "/nowhere"}


@pytest.fixture
def pods_path(api: Api) -> str:
    """What the account may read."""
    return f"/api/v1/namespaces/{api.namespace}/pods"


async def test_a_pod_uses_its_service_account(api: Api, account: Path, pods_path: str) -> None:
    connection = ClusterConnection(environ=in_cluster(api.cluster), service_account=account)
    assert b'"kind":"PodList"' in await connection.get(pods_path)
    await connection.close()


async def test_a_projected_token_that_was_replaced_is_used(
    api: Api, account: Path, pods_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = (account / "token").read_text()
    (account / "token").write_text("expired")
    connection = ClusterConnection(environ=in_cluster(api.cluster), service_account=account)
    with pytest.raises(ClusterError) as refused:
        await connection.get(pods_path)
    assert (refused.value.status, refused.value.reason) == (401, "Unauthorized")
    (account / "token").write_text(good + "\n")
    monkeypatch.setattr(module, "CREDENTIALS_AGE_S", 0.0)
    assert b'"kind":"PodList"' in await connection.get(pods_path)
    await connection.close()


async def test_kubeconfig_of_the_environment(api: Api, tmp_path: Path, pods_path: str) -> None:
    kubeconfig = write_kubeconfig(tmp_path / "config", api.cluster, token=await api.token("epp"))
    connection = ClusterConnection(environ={"KUBECONFIG": str(kubeconfig)}, service_account=tmp_path / "none")
    assert b'"kind":"PodList"' in await connection.get(pods_path)
    await connection.close()


async def test_a_certificate_that_nobody_signed_is_refused(api: Api, tmp_path: Path, pods_path: str) -> None:
    other = tmp_path / "other"
    other.mkdir()
    cluster = Cluster(other)  # another authority
    cluster.port = api.cluster.port
    kubeconfig = write_kubeconfig(tmp_path / "config", cluster, token="secret")
    connection = ClusterConnection(str(kubeconfig))
    with pytest.raises(ClusterError, match="certificate verify failed"):
        await connection.get(pods_path)
    await connection.close()


async def test_what_is_not_allowed(api: Api, account: Path) -> None:
    connection = ClusterConnection(environ=in_cluster(api.cluster), service_account=account)
    with pytest.raises(ClusterError, match="cannot list resource") as refused:
        await connection.get("/api/v1/pods")
    assert (refused.value.status, refused.value.reason) == (403, "Forbidden")
    await connection.close()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param(None, "there is no file", id="no file"),
        pytest.param("clusters: [", "expected the node content", id="no YAML"),
        pytest.param("{}", "current-context", id="no context"),
        pytest.param("- a", "list", id="no mapping"),
    ],
)
async def test_a_kubeconfig_that_cannot_be_used(tmp_path: Path, text: str | None, problem: str) -> None:
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError) as refused:
        await ClusterConnection(str(path)).open()
    (sentence,) = refused.value.problems
    assert f"--kubeconfig {path}" in sentence
    assert problem in sentence
    assert "run in a pod, give --kubeconfig, or set KUBECONFIG" in sentence


def test_without_any_cluster_the_picker_says_so(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "epp",
        "serve",
        "--pool-name=chat",
        "--grpc-port=0",
        "--grpc-health-port=0",
        "--metrics-port=0",
    ]
    environ = {"PATH": "/usr/bin", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=60, check=False)
    assert done.returncode == 2
    assert "the cluster's API server cannot be found" in done.stderr


async def test_an_event_that_is_told_again_is_counted(api: Api, account: Path) -> None:
    created = await api.create(pool())
    connection = ClusterConnection(environ=in_cluster(api.cluster), service_account=account)
    recorder = EventRecorder(connection)
    subject = Subject(created["apiVersion"], "InferencePool", api.namespace, "chat", created["metadata"]["uid"])
    running = asyncio.create_task(recorder.run())
    for _ in range(3):
        recorder.warn(subject, "Tested", "x" * 3000)
    recorder.warn(subject, "Tested", "another")

    async def counts() -> bool:
        events = (await api.call("GET", f"/api/v1/namespaces/{api.namespace}/events"))["items"]
        return sorted(event["count"] for event in events) == [1, 3]

    await until(counts, "one event is counted thrice, the other once")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await connection.close()
