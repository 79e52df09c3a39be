"""ClientTls: the TLS settings of an HTTP data source, re-read when its files change."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from epp.framework import log

_logger = log.get(__name__)

CHECK_INTERVAL_S = 10.0
"""How often the files are looked at; rotated certificates are in use at most this long after they were written."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of PEM files; "" = none."""

    ca: str = ""
    client_certificate: str = ""
    client_key: str = ""

    def signature(self) -> tuple[tuple[int, int, int] | None, ...]:
        """Changes when one of the files does."""
        return tuple(_stat(path) for path in (self.ca, self.client_certificate, self.client_key) if path)


class ClientTls:
    """Gives the SSL context for the next request.

    Args:
        files: the CA's and the client's certificates.
        verify: check the server's certificate and name; without it the CA is not used.
        clock: seconds, monotonic.

    Raises:
        ValueError: a file cannot be used; says which and why.
    """

    def __init__(self, files: TlsFiles, *, verify: bool, clock: Callable[[], float]) -> None:
        self._files = files
        self._verify = verify
        self._clock = clock
        self._signature = files.signature()
        self._context = self._load()
        self._next_check_s = clock() + CHECK_INTERVAL_S

    def context(self) -> ssl.SSLContext:
        """The context of the newest files that could be read."""
        now = self._clock()
        if now >= self._next_check_s:
            self._next_check_s = now + CHECK_INTERVAL_S
            self._reload()
        return self._context

    def _reload(self) -> None:
        signature = self._files.signature()
        if signature == self._signature:
            return
        try:
            self._context = self._load()
        except ValueError as error:
            _logger.warning("changed TLS files cannot be used, the previous ones stay", error=str(error))
            return
        self._signature = signature
        _logger.info("TLS files of a data source reloaded", files=[p for p in _paths(self._files) if p])

    def _load(self) -> ssl.SSLContext:
        files = self._files
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if not self._verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif files.ca:
            _load_ca(context, files.ca)
        else:
            context.load_default_certs()
        if files.client_certificate:
            _load_client(context, files)
        return context


def _load_ca(context: ssl.SSLContext, path: str) -> None:
    try:
        context.load_verify_locations(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"caCertPath: {path} cannot be used: {error}") from error


def _load_client(context: ssl.SSLContext, files: TlsFiles) -> None:
    try:
        context.load_cert_chain(files.client_certificate, files.client_key)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"clientCertPath, clientKeyPath: {files.client_certificate} and {files.client_key} cannot be used: {error}"
        ) from error


def _paths(files: TlsFiles) -> tuple[str, str, str]:
    return files.ca, files.client_certificate, files.client_key


def _stat(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
