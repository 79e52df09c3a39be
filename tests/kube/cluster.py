"""A cluster of two processes: etcd and kube-apiserver, on ports that the system chose; no kubelet, no controllers."""

from __future__ import annotations

import contextlib
import http
import http.client
import json
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.load.process import free_port
from epp.demo.lifeline import tied
from tests.kube.build import apiserver
from tests.kube.certificates import write_certificates

ADMIN_TOKEN = "admin-of-the-tests"
_START_TIMEOUT_S = 60.0
_AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "rules": [{"level": "None", "userGroups": ["system:masters"]}, {"level": "Metadata"}],
    "omitStages": ["ResponseComplete"],
}
"""A request is recorded when it comes: watches end much later."""


def missing() -> str:
    """Why there can be no cluster here; empty if there can."""
    if shutil.which("etcd") is None:
        return "etcd is not there: install Debian's etcd-server"
    if not apiserver().exists():
        return f"{apiserver()} is not there: run `make kube`"
    return ""


class AuditedRequest(NamedTuple):
    """One request that the API server received."""

    user: str
    verb: str
    uri: str


class Cluster:
    """etcd and kube-apiserver, started by ``start``, killed by ``stop``.

    Args:
        folder: data, certificates and logs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._etcd_port = free_port()
        self._etcd: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None
        write_certificates(folder)
        # The groups are what makes an administrator without any binding.
        (folder / "tokens.csv").write_text(f'{ADMIN_TOKEN},admin,admin,"system:masters"\n')
        (folder / "audit.yaml").write_text(json.dumps(_AUDIT))

    @property
    def url(self) -> str:
        """Where the API is."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca_file(self) -> Path:
        """Of the authority that signed the API server's certificate."""
        return self.folder / "ca.crt"

    def start(self) -> None:
        """Start both, and wait until the API is ready.

        Raises:
            RuntimeError: it did not become ready; the message holds the end of the log.
        """
        self.start_etcd()
        self.start_server()

    def stop(self) -> None:
        """Kill both."""
        self.kill_server()
        self.kill_etcd()

    def start_etcd(self) -> None:
        """Start etcd with the data that are there."""
        url = f"http://127.0.0.1:{self._etcd_port}"
        peers = f"http://127.0.0.1:{free_port()}"
        self._etcd = self._run(
            "etcd",
            ["etcd", f"--data-dir={self.folder / 'etcd'}", f"--listen-client-urls={url}", f"--advertise-client-urls={url}",
             f"--listen-peer-urls={peers}", "--log-level=error"],
        )  # fmt: skip

    def start_server(self) -> None:
        """Start the API server on the port that it had before, and wait until it is ready."""
        folder = self.folder
        flags = [
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--tls-cert-file={folder / 'tls.crt'}",
            f"--tls-private-key-file={folder / 'tls.key'}",
            f"--token-auth-file={folder / 'tokens.csv'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={folder / 'sa.key'}",
            f"--service-account-signing-key-file={folder / 'sa.key'}",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--endpoint-reconciler-type=none",
            f"--audit-policy-file={folder / 'audit.yaml'}",
            f"--audit-log-path={folder / 'audit.log'}",
            "--audit-log-mode=blocking",
        ]
        self._server = self._run("kube-apiserver", [str(apiserver()), *flags])
        self._wait_until_ready()

    def kill_server(self) -> None:
        """kill -9."""
        _kill(self._server)
        self._server = None

    def kill_etcd(self) -> None:
        """kill -9."""
        _kill(self._etcd)
        self._etcd = None

    def audited(self) -> Iterator[AuditedRequest]:
        """All requests so far except the administrator's, oldest first."""
        path = self.folder / "audit.log"
        if not path.exists():
            return
        for line in path.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):  # the last line may be half written
                event = json.loads(line)
                yield AuditedRequest(event["user"].get("username", ""), event["verb"], event["requestURI"])

    def _run(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                list(tied(command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        problem: object = None
        while time.monotonic() < deadline and self._server is not None and self._server.poll() is None:
            try:
                problem = self._readyz()
            except (http.client.HTTPException, OSError) as error:
                problem = error
            if problem == http.HTTPStatus.OK:
                return
            time.sleep(0.1)  # a foreign process tells nobody when it is ready
        log = (self.folder / "kube-apiserver.log").read_text()[-3000:]
        self.stop()
        msg = f"kube-apiserver is not ready: {problem}\n{log}"
        raise RuntimeError(msg)

    def _readyz(self) -> int:
        context = ssl.create_default_context(cafile=self.ca_file)
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=2)
        try:
            connection.request("GET", "/readyz", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"})
            with connection.getresponse() as response:
                return response.status
        finally:
            connection.close()


def _kill(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None:
        process.send_signal(signal.SIGKILL)
        process.wait()
