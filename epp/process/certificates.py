"""Certificates that change while the process serves: read again on SIGHUP, and followed where flags say so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from epp.errors import UsageError
from epp.framework import log
from epp.framework.file_watch import watch_files
from epp.hooks.runner import Spawn
from epp.process.options import Options

_logger = log.get("epp.process.certificates")


class Certificates:
    """Those of the ext_proc port and of the metrics port.

    Args:
        options: where they are.
        reload_serving, reload_metrics: read one again; raise UsageError or OSError if it cannot be used.
    """

    def __init__(self, options: Options, reload_serving: Callable[[], None], reload_metrics: Callable[[], None]) -> None:
        self._options = options
        self._reload_serving = reload_serving
        self._reload_metrics = reload_metrics

    def reload(self) -> None:
        """Read all again that there are."""
        if self._options.cert_path and self._options.secure_serving:
            self._serving()
        if self._options.metrics_cert_dir:
            self._metrics()

    def follow(self, spawn: Spawn, stop: asyncio.Event) -> None:
        """Begin to watch those that are to be followed, until ``stop`` is set."""
        options = self._options
        if options.cert_path and options.enable_cert_reload:
            self._watch(options.cert_path, self._serving, spawn, stop)
        if options.metrics_cert_dir:
            self._watch(options.metrics_cert_dir, self._metrics, spawn, stop)

    def _serving(self) -> None:
        _reload(self._options.cert_path, self._reload_serving)

    def _metrics(self) -> None:
        _reload(self._options.metrics_cert_dir, self._reload_metrics)

    @staticmethod
    def _watch(directory: str, reload: Callable[[], None], spawn: Spawn, stop: asyncio.Event) -> None:
        files = [Path(directory) / "tls.crt", Path(directory) / "tls.key"]
        _ = spawn(watch_files(files, reload, stop), "certificates")


def _reload(path: str, read: Callable[[], None]) -> None:
    """New handshakes get what is in the directory now."""
    try:
        read()
    except (UsageError, OSError) as error:
        _logger.error("certificate not reloaded, the one in use stays", path=path, problem=str(error))
        return
    _logger.info("certificate reloaded", path=path)
