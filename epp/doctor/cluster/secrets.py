"""Findings about the Secrets that the picker's certificates come from. Keys are compared, and never shown."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from epp.doctor.catalogue import finding
from epp.doctor.certificates import Served, check_served
from epp.doctor.cluster.view import UNASKED, ClusterView
from epp.doctor.cluster.workload import Workload
from epp.doctor.documents import Json, mapping
from epp.errors import Finding

CERTIFICATE, KEY = "tls.crt", "tls.key"
_FLAGS = ("cert-path", "metrics-cert-dir")


def secrets_of(workload: Workload) -> dict[str, str]:
    """Flag → name of the Secret that its folder comes from."""
    named = {flag: workload.secret(workload.flag(flag)) for flag in _FLAGS if workload.flag(flag)}
    return {flag: name for flag, name in named.items() if name}


def check_secrets(view: ClusterView, workload: Workload, now: datetime) -> list[Finding]:
    """All findings."""
    found: list[Finding] = []
    for flag, name in secrets_of(workload).items():
        read = view.secrets.get(name, UNASKED)
        if read.is_absent:
            message = f"--{flag} comes from it, and it does not exist, so the picker's pods do not start"
            found.append(finding("CRT008", view.source, f"Secret {name}", message, "create it", value=flag))
        elif read.is_known and read.items:
            found += _pair(view, name, read.items[0], now)
        if flag == "cert-path" and not workload.is_on("enable-cert-reload"):
            message = (
                f"the certificate of the Secret {name} is read at the start only, and is served until then when it is renewed"
            )
            found.append(
                finding("CRT009", view.source, workload.title, message, "start it with --enable-cert-reload", value=name)
            )
    return found


def _pair(view: ClusterView, name: str, secret: Json, now: datetime) -> Iterator[Finding]:
    place, data = f"Secret {name}", mapping(secret.get("data"))
    if lacking := [key for key in (CERTIFICATE, KEY) if not data.get(key)]:
        message = f"it has no {' and no '.join(lacking)}, so the picker does not start"
        yield finding("CRT008", view.source, place, message, "make it of type kubernetes.io/tls", value=lacking[0])
        return
    try:
        certificate = x509.load_pem_x509_certificate(base64.b64decode(str(data[CERTIFICATE])))
        key = load_pem_private_key(base64.b64decode(str(data[KEY])), None)
    except (ValueError, TypeError, binascii.Error):  # of a key, what is wrong must not be told in full
        message = f"{CERTIFICATE} or {KEY} is no PEM that can be read, so the picker does not start"
        yield finding("CRT008", view.source, place, message, "put a certificate and its key there, without a passphrase")
        return
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if certificate.public_key().public_bytes(*form) != key.public_key().public_bytes(*form):
        message = f"{KEY} is not the key of {CERTIFICATE}, so the picker does not start"
        yield finding("CRT008", view.source, place, message, "put both of one pair there")
    served = Served(
        f"{view.source}/{name}",
        speaks_tls=True,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        is_self_signed=certificate.issuer == certificate.subject,
    )
    yield from check_served(served, now)
