"""Requests to the Kubernetes API server: where it is, who we are, and what its refusals mean.

Credentials, TLS and proxies are the ``kubernetes`` package's; answers are handed on as bytes, since most of what the API
server sends is never looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import orjson
import yaml

from epp.errors import UsageError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
REQUEST_TIMEOUT_S = 30.0
"""Of everything but watches; a list of a thousand pods takes a tenth of a second."""
CREDENTIALS_AGE_S = 60.0
"""Projected tokens rotate; the kubelet replaces them a good while before they expire."""
_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
"""A peer that is gone without a word is noticed after a minute, also on a watch where nothing happens."""
_OF_HANDSHAKE = ("host", "ssl_ca_cert", "cert_file", "key_file", "verify_ssl", "tls_server_name", "proxy")


class ClusterError(OSError):
    """The API server refused, or was not reached.

    Args:
        message: what was asked, and the answer.
        status: of HTTP; 0 = there was no answer.
        reason: ``reason`` of the Status object, such as ``Expired``.
        retry_after_s: how long it asks to wait.
    """

    def __init__(self, message: str, status: int = 0, reason: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s


class ClusterConnection:
    """One API server, as one user.

    Args:
        kubeconfig: file to use; empty = the service account of this pod, else ``$KUBECONFIG``.
        environ: variables of the process.
        service_account: where the token and the authority of a pod are.

    Raises:
        UsageError: on first use, if there is nothing to connect by.
    """

    def __init__(
        self, kubeconfig: str = "", environ: Mapping[str, str] | None = None, service_account: Path = SERVICE_ACCOUNT
    ) -> None:
        self._kubeconfig = kubeconfig
        self._environ = os.environ if environ is None else environ
        self._service_account = service_account
        self._rest: Any = None
        self._handshake: tuple[object, ...] = ()
        self._loaded_s = float("-inf")
        self._loading = asyncio.Lock()

    async def open(self) -> None:
        """Read the credentials, so that a mistake in them is told at the start.

        Raises:
            UsageError: they cannot be used.
        """
        await self._client()

    async def close(self) -> None:
        """Close all connections."""
        if self._rest is not None:
            await self._rest.close()

    def forget_credentials(self) -> None:
        """Read them again before the next request: they were refused."""
        self._loaded_s = float("-inf")

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> bytes:
        """Read an object or a collection.

        Raises:
            ClusterError: it could not be read.
        """
        return await self._request("GET", _with_query(path, query))

    async def send(
        self,
        method: str,
        path: str,
        body: object,
        *,
        content_type: str = "application/json",
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> Any:
        """Write an object.

        Returns:
            What the API server made of it, as plain values.

        Raises:
            ClusterError: it was refused, or there was no answer.
        """
        headers = {"Content-Type": content_type}
        return orjson.loads(await self._request(method, path, body=body, headers=headers, timeout_s=timeout_s))

    @contextlib.asynccontextmanager
    async def stream(self, path: str, query: Mapping[str, str], timeout_s: float) -> AsyncIterator[AsyncIterator[bytes]]:
        """Read an answer as it comes, in pieces of any length.

        Args:
            timeout_s: of the whole answer.

        Raises:
            ClusterError: it was refused, or broke off.
        """
        what = f"GET {path}"
        async with self._answer("GET", _with_query(path, query), timeout_s=timeout_s) as response:
            yield _pieces(response, what)

    async def _request(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> bytes:
        async with self._answer(method, path, body=body, headers=headers, timeout_s=timeout_s) as response:
            try:
                return await response.read()
            except (aiohttp.ClientError, OSError) as error:
                raise _unanswered(f"{method} {path}", error) from error

    @contextlib.asynccontextmanager
    async def _answer(
        self, method: str, path: str, *, body: object = None, headers: Mapping[str, str] | None = None, timeout_s: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        rest = await self._client()
        configuration = rest.configuration
        what = f"{method} {path.partition('?')[0]}"
        sent = {"Accept": "application/json", "User-Agent": "endpoint-picker", **(headers or {})}
        if token := configuration.api_key.get("BearerToken"):
            sent["Authorization"] = token
        timeout = aiohttp.ClientTimeout(total=timeout_s, connect=min(timeout_s, 10.0))
        try:
            answer = await rest.request(method, configuration.host + path, headers=sent, body=body, _request_timeout=timeout)
        except (aiohttp.ClientError, OSError) as error:
            raise _unanswered(what, error) from error
        response: aiohttp.ClientResponse = answer.response
        try:
            if response.status >= 400:
                raise await _refusal(what, response)
            yield response
        finally:
            response.release()

    async def _client(self) -> Any:
        """The library's client, with credentials that are not too old."""
        async with self._loading:
            if time.monotonic() - self._loaded_s > CREDENTIALS_AGE_S:
                await self._load()
        return self._rest

    async def _load(self) -> None:
        try:
            from kubernetes.aio import config
            from kubernetes.aio.client.configuration import Configuration
            from kubernetes.aio.config.incluster_config import InClusterConfigLoader
        except ImportError as error:
            msg = "the package kubernetes is not installed; discovery in a cluster needs the extra `kubernetes` of this package"
            raise UsageError([msg]) from error
        configuration = Configuration() if self._rest is None else self._rest.configuration
        kubeconfig = self._kubeconfig or ("" if self._is_in_cluster else self._environ.get("KUBECONFIG", ""))
        try:
            if kubeconfig:
                _check_exists(kubeconfig)
                await config.load_kube_config(  # type: ignore[no-untyped-call]
                    kubeconfig, client_configuration=configuration, persist_config=False
                )
            else:
                token, authority = self._service_account / "token", self._service_account / "ca.crt"
                loader = InClusterConfigLoader(str(token), str(authority), try_refresh_token=False, environ=self._environ)  # type: ignore[no-untyped-call]
                loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
        except (config.ConfigException, OSError, AttributeError, TypeError, ValueError, yaml.YAMLError) as error:
            if self._rest is not None:
                msg = f"the credentials cannot be read again: {error}"
                raise ClusterError(msg) from error
            where = f"--kubeconfig {kubeconfig}" if kubeconfig else f"the service account in {self._service_account}"
            fix = "run in a pod, give --kubeconfig, or set KUBECONFIG"
            raise UsageError([f"the cluster's API server cannot be found by {where}: {error}; {fix}"]) from error
        await self._use(configuration)
        self._loaded_s = time.monotonic()

    async def _use(self, configuration: Any) -> None:
        """Take over what was read; a new client where the handshake depends on it, whose connections begin anew."""
        if token := configuration.api_key.get("BearerToken"):
            configuration.api_key["BearerToken"] = token.strip()
        handshake = tuple(getattr(configuration, name) for name in _OF_HANDSHAKE)
        if handshake == self._handshake:
            return
        before, self._rest, self._handshake = self._rest, _make_client(configuration), handshake
        if before is not None:
            await before.close()

    @property
    def _is_in_cluster(self) -> bool:
        return bool(self._environ.get("KUBERNETES_SERVICE_HOST")) and (self._service_account / "token").exists()


def _check_exists(kubeconfig: str) -> None:
    """One of the files of a kubeconfig must be there; the library would go on without any."""
    if not any(Path(part).expanduser().exists() for part in kubeconfig.split(os.pathsep) if part):
        raise FileNotFoundError(f"there is no file {kubeconfig}")


def _make_client(configuration: Any) -> Any:
    from kubernetes.aio.client.rest import RESTClientObject

    class Client(RESTClientObject):
        """Notices peers that are gone without a word."""

        def _create_connector(self) -> aiohttp.TCPConnector:
            return aiohttp.TCPConnector(limit=self.maxsize, ssl=self.ssl_context, socket_factory=_kept_alive)

    configuration.retries = None  # watches and leases have their own pace
    return Client(configuration)


def _kept_alive(address: Any) -> socket.socket:
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, seconds in _KEEPALIVE:
        if option := getattr(socket, name, None):
            made.setsockopt(socket.IPPROTO_TCP, option, seconds)
    return made


async def _pieces(response: aiohttp.ClientResponse, what: str) -> AsyncIterator[bytes]:
    try:
        async for piece in response.content.iter_any():
            yield piece
    except (aiohttp.ClientError, OSError) as error:
        raise _unanswered(what, error) from error


async def _refusal(what: str, response: aiohttp.ClientResponse) -> ClusterError:
    """The error that a refusal is."""
    try:
        status = orjson.loads(await response.read())
    except (ValueError, aiohttp.ClientError, OSError):
        status = {}
    fields = status if isinstance(status, dict) else {}
    message = fields.get("message") or response.reason or "no reason given"
    wait = response.headers.get("Retry-After", "")
    return ClusterError(
        f"{what}: {response.status}: {message}",
        response.status,
        reason_of(fields),
        float(wait) if wait.isdecimal() else None,
    )


def reason_of(status: Mapping[str, Any]) -> str:
    """The reason in a Status object; the first cause where it names one, which is more precise."""
    causes = (status.get("details") or {}).get("causes") or ()
    return str((causes[0].get("reason") if causes else "") or status.get("reason") or "")


def _unanswered(what: str, error: BaseException) -> ClusterError:
    return ClusterError(f"{what}: {str(error) or type(error).__name__}")


def _with_query(path: str, query: Mapping[str, str] | None) -> str:
    return f"{path}?{urlencode(query)}" if query else path
