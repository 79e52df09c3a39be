"""Key pairs for serving: self-signed, or from a directory; and what operators may ask of the handshake.

Source: llm-d/llm-d-router: internal/tls/tls.go, pkg/common/certs.go; Go: crypto/tls/cipher_suites.go
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from epp.errors import UsageError
from epp.extproc.handler import Tls, TlsVersion

CERTIFICATE_FILE = "tls.crt"
KEY_FILE = "tls.key"

_VALIDITY = timedelta(days=3650)
"""Clients of a self-signed certificate do not verify it; it only has to outlive the process."""

_CLOCK_SKEW = timedelta(minutes=5)

CIPHER_SUITES = {
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305": "ECDHE-RSA-CHACHA20-POLY1305",
}
"""Go's names of cipher suites up to TLS 1.2 → OpenSSL's. Suites that modern libraries refuse (RC4, 3DES, CBC with SHA-256)
are left out."""

_TLS13_SUITES = frozenset({"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"})


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


def parse_min_version(name: str) -> TlsVersion | None:
    """The minimum version that an operator named; None for an empty name.

    Raises:
        UsageError: there is no such version.
    """
    if not name:
        return None
    try:
        return TlsVersion(name)
    except ValueError:
        known = ", ".join(TlsVersion)
        raise UsageError([f"{name!r} is not a TLS version; known are {known}"]) from None


def parse_cipher_suites(names: Sequence[str]) -> tuple[str, ...]:
    """OpenSSL's names for Go's names of cipher suites. Those of TLS 1.3 cannot be chosen and are always on.

    Raises:
        UsageError: a name is unknown; all unknown ones are reported.
    """
    unknown = [name for name in names if name not in CIPHER_SUITES and name not in _TLS13_SUITES]
    if unknown:
        known = ", ".join(CIPHER_SUITES)
        raise UsageError([f"{name!r} is not a cipher suite that can be used; known are {known}" for name in unknown])
    return tuple(dict.fromkeys(CIPHER_SUITES[name] for name in names if name in CIPHER_SUITES))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError([f"{path} cannot be read: {error.strerror or error}"]) from error
