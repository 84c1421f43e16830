"""A certificate authority made for one test, and the certificates it signs."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True)
class ServerCertificate:
    """Files of a server: its chain and key, and the authority that its clients trust.

    ``client_ca_path`` is the authority whose clients the server admits, or None to admit any;
    ``client_pair`` the certificate and key of one such client.
    """

    chain_path: Path
    key_path: Path
    ca_path: Path
    client_ca_path: Path | None = None
    client_pair: tuple[str, str] | None = None


class CertificateAuthority:
    """Signs certificates for loopback servers and for clients; everything lies in ``folder``."""

    def __init__(self, folder: Path, name: str = "registry-sync tests") -> None:
        self.folder = folder
        self.certificate_path = folder / "ca.pem"
        folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def server(
        self, *, hosts: tuple[str, ...] = ("127.0.0.1", "localhost"), asks_for_client: bool = False
    ) -> ServerCertificate:
        """A certificate for ``hosts`` (names or IP addresses); with ``asks_for_client`` clients must show one."""
        chain, key = self._issue("server", hosts, ExtendedKeyUsageOID.SERVER_AUTH)
        if not asks_for_client:
            return ServerCertificate(chain, key, self.certificate_path)
        return ServerCertificate(chain, key, self.certificate_path, self.certificate_path, self.client())

    def client(self, name: str = "client") -> tuple[str, str]:
        """Paths of a certificate and key that a client shows."""
        chain, key = self._issue(name, (), ExtendedKeyUsageOID.CLIENT_AUTH)
        return str(chain), str(key)

    def _issue(self, name: str, hosts: tuple[str, ...], usage: x509.ObjectIdentifier) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
        )
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName([_alternative(host) for host in hosts]), False)
        chain_path, key_path = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        chain_path.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return chain_path, key_path

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
