"""Parameters that HTTP data sources share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from epp.framework.handle import PluginContext
from epp.framework.params import Params, parse_duration
from plugins.datalayer.client_tls import ClientTls, TlsFiles


def _check_interval(text: str) -> str:
    if text and parse_duration(text) <= 0:
        raise ValueError(f"{text!r} is not positive; leave interval out to read at every refresh")
    return text


Interval = Annotated[str, AfterValidator(_check_interval)]
"""A positive Go duration, or "" for the process's refresh interval."""
Scheme = Literal["http", "https"]


class TlsPaths(Params):
    """Certificates of an HTTPS source."""

    ca_cert_path: str = Field(default="", description="CA certificates; used only with `insecureSkipVerify: false`.")
    client_cert_path: str = Field(default="", description="Client certificate, together with `clientKeyPath`.")
    client_key_path: str = Field(default="", description="Key of the client certificate.")

    @model_validator(mode="after")
    def _check_pair(self) -> TlsPaths:
        if bool(self.client_cert_path) != bool(self.client_key_path):
            raise ValueError("clientCertPath and clientKeyPath must be given together")
        return self


def source_tls(context: PluginContext, paths: TlsPaths, *, scheme: str, verify: bool) -> ClientTls | None:
    """How a source encrypts; None = it does not. A CA that nothing is verified with is told of.

    Raises:
        ValueError: a file cannot be used. Files are those of the machine that serves: a mere check does not look for them.
    """
    is_https = scheme == "https"
    if paths.ca_cert_path and not (is_https and verify):
        context.warn("caCertPath", f"not used without {'insecureSkipVerify: false' if is_https else 'scheme: https'}")
    files = TlsFiles(paths.ca_cert_path, paths.client_cert_path, paths.client_key_path)
    has_files = context.runtime is not None or files == TlsFiles()
    return ClientTls(files, verify=verify, clock=context.clock) if is_https and has_files else None
