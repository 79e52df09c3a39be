"""Key pairs: self-signed, loaded, refused; and served, also after a change."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from epp.errors import UsageError
from epp.seam import Port, Settings, Tls, TlsVersion
from epp.transport.grpc_server import GrpcTransport
from epp.transport.tls import load_pair, self_signed
from epp.transport.tls_settings import CIPHER_SUITES, parse_cipher_suites, parse_min_version
from tests.extproc.wire import Dispatcher
from tests.transport.transports import MakeTransport


def _write(directory: Path, tls: Tls) -> None:
    (directory / "tls.crt").write_bytes(tls.certificate)
    (directory / "tls.key").write_bytes(tls.key)


def test_self_signed_certificate() -> None:
    certificate = x509.load_pem_x509_certificate(self_signed().certificate)
    assert certificate.subject.rfc4514_string() == "O=Inference Ext"
    assert certificate.issuer == certificate.subject
    now = datetime.now(UTC)
    assert certificate.not_valid_before_utc <= now
    assert certificate.not_valid_after_utc > now + timedelta(days=3649)
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert usage.key_encipherment
    assert not usage.key_cert_sign
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    extended = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(extended) == [ExtendedKeyUsageOID.SERVER_AUTH]
    with pytest.raises(x509.ExtensionNotFound):
        certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)


def test_each_self_signed_pair_is_new() -> None:
    assert self_signed().key != self_signed().key


def test_load_pair(tmp_path: Path) -> None:
    tls = self_signed()
    _write(tmp_path, tls)
    assert load_pair(tmp_path) == tls


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param("tls.crt", None, "tls.crt cannot be read: No such file", id="no certificate"),
        pytest.param("tls.key", None, "tls.key cannot be read: No such file", id="no key"),
        pytest.param("tls.crt", b"garbage", "tls.crt is not a PEM certificate", id="certificate is garbage"),
        pytest.param("tls.key", b"garbage", "tls.key is not an unencrypted PEM private key", id="key is garbage"),
        pytest.param("tls.key", b"", "tls.key is not an unencrypted PEM private key", id="key is empty"),
        pytest.param("tls.key", self_signed().key, "tls.key is not the key of", id="key of another certificate"),
    ],
)
def test_bad_pairs_are_refused(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    _write(tmp_path, self_signed())
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        load_pair(tmp_path)


def test_min_version() -> None:
    assert parse_min_version("") is None
    assert parse_min_version("VersionTLS12") is TlsVersion.TLS12
    with pytest.raises(UsageError, match=r"'VersionTLS14' is not a TLS version; known are VersionTLS10, "):
        parse_min_version("VersionTLS14")


def test_cipher_suites() -> None:
    names = ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"]
    assert parse_cipher_suites(names) == ("ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-CHACHA20-POLY1305")
    with pytest.raises(UsageError) as caught:
        parse_cipher_suites(["NOPE", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ALSO_NOT"])
    assert [problem.split(" is")[0] for problem in caught.value.problems] == ["'NOPE'", "'ALSO_NOT'"]


def test_cipher_suites_are_known_to_openssl() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers(":".join({*CIPHER_SUITES.values()}) + ":@SECLEVEL=0")
    assert {cipher["name"] for cipher in context.get_ciphers()} >= {*CIPHER_SUITES.values()}


async def _served(port: int, context: ssl.SSLContext | None = None) -> bytes:
    """The certificate that a new connection gets, after a handshake that offers h2."""
    context = context or _client_context()
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
    assert tls.selected_alpn_protocol() == "h2"
    certificate = tls.getpeercert(binary_form=True)
    writer.transport.abort()
    assert certificate is not None
    return certificate


def _client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


def _der(tls: Tls) -> bytes:
    return ssl.PEM_cert_to_DER_cert(tls.certificate.decode())


async def test_new_handshakes_get_the_new_certificate(make: MakeTransport) -> None:
    first, second = self_signed(), self_signed()
    transport = make()
    [port] = await transport.start(Dispatcher(), Settings(tls=first), [Port("127.0.0.1", 0, secure=True)])
    try:
        assert await _served(port) == _der(first)
        transport.configure(Settings(tls=second))
        assert await _served(port) == _der(second)
        assert await _served(port) == _der(second)
    finally:
        await transport.stop(0)


async def test_a_minimum_that_grpc_cannot_enforce_is_refused() -> None:
    settings = Settings(tls=self_signed()._replace(min_version=TlsVersion.TLS13))
    with pytest.raises(UsageError, match="VersionTLS13 cannot be enforced"):
        await GrpcTransport().start(Dispatcher(), settings, [Port("127.0.0.1", 0, secure=True)])


async def test_cipher_suites_that_grpc_never_read_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRPC_SSL_CIPHER_SUITES", raising=False)
    settings = Settings(tls=self_signed()._replace(cipher_suites=("ECDHE-ECDSA-AES256-GCM-SHA384",)))
    with pytest.raises(UsageError, match="set GRPC_SSL_CIPHER_SUITES=ECDHE-ECDSA-AES256-GCM-SHA384 in the environment"):
        await GrpcTransport().start(Dispatcher(), settings, [Port("127.0.0.1", 0, secure=True)])


_CIPHERS = """
from epp.transport import grpc_environment
assert grpc_environment.prepare(("ECDHE-ECDSA-AES256-GCM-SHA384",))
import asyncio, ssl
from epp.seam import Port, Settings
from epp.transport.grpc_server import GrpcTransport
from epp.transport.tls import self_signed
from tests.extproc.wire import Dispatcher
from tests.transport.test_tls import _client_context, _served

async def main():
    tls = self_signed()._replace(cipher_suites=("ECDHE-ECDSA-AES256-GCM-SHA384",))
    transport = GrpcTransport()
    [port] = await transport.start(Dispatcher(), Settings(tls=tls), [Port("127.0.0.1", 0, True)])
    context = _client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    await _served(port, context)
    context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    try:
        await _served(port, context)
    except (ssl.SSLError, ConnectionError):
        print("refused")
    await transport.stop(0)

asyncio.run(main())
"""


def test_cipher_suites_hold_if_prepared_before_grpc_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", _CIPHERS], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "refused", done.stderr
