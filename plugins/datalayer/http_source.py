"""Parameters that HTTP data sources share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from epp.framework.params import Params, parse_duration


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
