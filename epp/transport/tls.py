"""Key pairs for serving: self-signed, or from a directory.

To be imported only where a port is secure: the library behind it takes 8 MB.
Source: llm-d/llm-d-router: internal/tls/tls.go, pkg/common/certs.go
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from epp.errors import UsageError
from epp.seam import Tls

CERTIFICATE_FILE = "tls.crt"
KEY_FILE = "tls.key"

_VALIDITY = timedelta(days=3650)
"""Clients of a self-signed certificate do not verify it; it only has to outlive the process."""

_CLOCK_SKEW = timedelta(minutes=5)


def self_signed() -> Tls:
    """A new key pair, for data planes that encrypt but do not verify."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Inference Ext")])
    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=True,
        key_encipherment=True,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _VALIDITY)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Tls(
        certificate=certificate.public_bytes(serialization.Encoding.PEM),
        key=key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def load_pair(directory: Path) -> Tls:
    """The key pair in ``directory``: ``tls.crt`` (the chain, leaf first) and ``tls.key``.

    Raises:
        UsageError: a file cannot be read, is not PEM, or the two do not belong together.
    """
    certificate = _read(directory / CERTIFICATE_FILE)
    key = _read(directory / KEY_FILE)
    try:
        leaf = x509.load_pem_x509_certificates(certificate)[0]
    except ValueError as error:
        raise UsageError([f"{directory / CERTIFICATE_FILE} is not a PEM certificate: {error}"]) from error
    try:
        private = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError) as error:
        raise UsageError([f"{directory / KEY_FILE} is not an unencrypted PEM private key: {error}"]) from error
    if private.public_key() != leaf.public_key():
        raise UsageError(
            [f"{directory / KEY_FILE} is not the key of {directory / CERTIFICATE_FILE}; was only one of them replaced?"]
        )
    return Tls(certificate=certificate, key=key)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError([f"{path} cannot be read: {error.strerror or error}"]) from error
