"""What operators may ask of the TLS handshake: the lowest version, and cipher suites by Go's names.

Source: llm-d/llm-d-router: internal/tls/tls.go; Go: crypto/tls/cipher_suites.go
"""

from __future__ import annotations

from collections.abc import Sequence

from epp.errors import UsageError
from epp.seam import TlsVersion

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
