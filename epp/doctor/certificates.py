"""Findings about the picker's TLS: how long its certificates hold, and whether Envoy and picker agree on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from epp.doctor.catalogue import finding
from epp.errors import Finding

SOON = timedelta(days=14)
"""Time enough to renew by hand."""


@dataclass(frozen=True, slots=True)
class Served:
    """What a port showed when TLS was tried on it."""

    address: str
    """``host:port``."""
    error: str = ""
    """Why the port could not be reached; empty = it could."""
    speaks_tls: bool = False
    not_before: datetime | None = None
    not_after: datetime | None = None
    is_self_signed: bool = False


def check_served(served: Served, now: datetime) -> Iterator[Finding]:
    """Whether the port answers, and whether its certificate holds."""
    if served.error:
        fix = "see that the picker listens there (--grpc-port, --bind-address); Envoy may have a way that is closed from here"
        yield finding("CRT006", served.address, "", served.error, fix)
    if served.not_after is None or served.not_before is None:
        return
    until, since = served.not_after.isoformat(), served.not_before.isoformat()
    renew = "renew it; with --enable-cert-reload, or at SIGHUP, the picker takes the new one without a restart"
    if now >= served.not_after:
        yield finding("CRT001", served.address, "certificate", f"it has expired on {until}", renew, value=until)
    elif now < served.not_before:
        message = f"it is valid from {since} on only"
        yield finding("CRT002", served.address, "certificate", message, "compare the clocks, or take another one", value=since)
    elif served.not_after - now < SOON:
        left = served.not_after - now
        message = f"it expires on {until}, in {left.days} days"
        yield finding("CRT003", served.address, "certificate", message, renew, value=until)


def check_agreement(served: Served, place: str, *, envoy_encrypts: bool, envoy_verifies: bool) -> Iterator[Finding]:
    """Whether Envoy speaks to the picker as the picker serves.

    Args:
        served: what the picker's gRPC port showed.
        place: the cluster in Envoy's configuration.
        envoy_encrypts: the cluster has TLS.
        envoy_verifies: it has authorities that it trusts.
    """
    if served.error:
        return
    silent = "every request fails with 500 or 503 and the picker's log says nothing"
    silent = "every request fails with 500 or 503 and the picker's log says nothing"
    if envoy_encrypts and not served.speaks_tls:
        message = f"{silent}: Envoy speaks TLS, the picker serves without"
        fix = "remove transport_socket from the cluster, or start the picker without --secure-serving=false"
        yield finding("CRT004", served.address, place, message, fix)
    elif served.speaks_tls and not envoy_encrypts:
        message = f"{silent}: the picker serves with TLS, Envoy speaks without"
        fix = "give the cluster a transport_socket with TLS, or start the picker with --secure-serving=false"
        yield finding("CRT005", served.address, place, message, fix)
    elif envoy_verifies and served.is_self_signed:
        message = "Envoy verifies the certificate, which is signed by itself: it must itself be one of those that Envoy trusts"
        fix = "serve one of the trusted authority with --cert-path, or add it to trusted_ca"
        yield finding("CRT007", served.address, place, message, fix)
