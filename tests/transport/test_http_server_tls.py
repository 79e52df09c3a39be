"""The metrics port over HTTPS."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import ssl
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from epp.errors import UsageError
from epp.transport.http_server import HttpServer
from tests.transport.http_client import LOCAL, Client, sources


class Authority:
    """A certificate authority in memory."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._sign(self._name, self._key.public_key(), is_ca=True)

    def write_pair(self, directory: Path, name: str) -> Path:
        """``tls.crt`` and ``tls.key`` for 127.0.0.1 in ``directory``."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        directory.mkdir(exist_ok=True)
        (directory / "tls.crt").write_bytes(pem(self._sign(subject, key.public_key(), is_ca=False)))
        (directory / "tls.key").write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return directory

    def write(self, path: Path) -> Path:
        path.write_bytes(pem(self.certificate))
        return path

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, is_ca: bool) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=5))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            # Python 3.13 verifies strictly: whose key signed this, and what it may be used for.
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(key_usage(is_ca=is_ca), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        )
        return builder.sign(self._key, hashes.SHA256())


def key_usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def trusting(authority: Path, own: Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority))
    if own is not None:
        context.load_cert_chain(own / "tls.crt", own / "tls.key")
    return context


def served_name(port: int, authority: Path) -> str:
    """Common name of the certificate that the server shows."""
    text = ssl.get_server_certificate(("127.0.0.1", port), ca_certs=str(authority))
    certificate = x509.load_pem_x509_certificate(text.encode())
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


async def test_pages_are_served_over_tls_and_the_certificate_is_reloaded(tmp_path: Path) -> None:
    authority = Authority("ca")
    ca_file = authority.write(tmp_path / "ca.crt")
    pair = authority.write_pair(tmp_path / "pair", "first")
    server = HttpServer(sources(), replace(LOCAL, cert_dir=pair))
    port = await server.start()
    assert (await Client(port, trusting(ca_file)).ask("/healthz")).status == 200
    authority.write_pair(pair, "second")
    assert await asyncio.to_thread(served_name, port, ca_file) == "first"
    server.reload_tls()
    assert await asyncio.to_thread(served_name, port, ca_file) == "second"
    (pair / "tls.key").write_text("garbage")
    with pytest.raises(UsageError, match="--metrics-cert-dir"):
        server.reload_tls()
    assert await asyncio.to_thread(served_name, port, ca_file) == "second"
    await server.stop()


async def test_clients_must_show_a_certificate_of_the_given_authority(tmp_path: Path) -> None:
    authority, stranger = Authority("ca"), Authority("stranger")
    ca_file = authority.write(tmp_path / "ca.crt")
    pair = authority.write_pair(tmp_path / "server", "server")
    own = authority.write_pair(tmp_path / "client", "client")
    foreign = stranger.write_pair(tmp_path / "foreign", "client")
    server = HttpServer(sources(), replace(LOCAL, cert_dir=pair, client_ca_file=ca_file))
    port = await server.start()
    assert (await Client(port, trusting(ca_file, own)).ask("/metrics")).status == 200
    for context in (trusting(ca_file), trusting(ca_file, foreign)):
        with pytest.raises(aiohttp.ClientError):
            await Client(port, context).ask("/metrics")
    await server.stop()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param("tls.crt", "--metrics-cert-dir: .*tls.crt and .*tls.key cannot be used", id="certificate missing"),
        pytest.param("ca.crt", "--metrics-client-ca-file: .*ca.crt cannot be used", id="client CA missing"),
    ],
)
async def test_unusable_tls_files_are_usage_errors(tmp_path: Path, spoil: str, message: str) -> None:
    authority = Authority("ca")
    ca_file = authority.write(tmp_path / "ca.crt")
    authority.write_pair(tmp_path, "server")
    (tmp_path / spoil).unlink()
    server = HttpServer(sources(), replace(LOCAL, cert_dir=tmp_path, client_ca_file=ca_file))
    with pytest.raises(UsageError, match=message):
        await server.start()
    await server.stop()
