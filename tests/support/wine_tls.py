"""A certificate authority of the tests' own, and servers' TLS under it: Windows takes a name, never an address."""

from __future__ import annotations

import datetime
import secrets
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID


class Authority:
    """Its certificate is `der`; who trusts it trusts the servers that it has signed for."""

    def __init__(self, name: str) -> None:
        # Of its own: a server's certificate names its authority, and two by one name could not be told apart.
        unique = f"{name} {secrets.token_hex(4)}"
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, unique)])
        # RSA: Wine 8 takes no ECDSA signature one of whose numbers is shorter than the curve's: one in 128.
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        signed = _builder(self._name, self._name, self._key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self.der = signed.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)

    def tls(self, folder: Path, host: str) -> ssl.SSLContext:
        """A server's TLS with a certificate for `host`. `folder`: where its files can be."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        alternative = x509.SubjectAlternativeName([x509.DNSName(host)])
        signed = _builder(name, self._name, key.public_key()).add_extension(alternative, critical=False)
        file = folder / f"{x509.random_serial_number()}.pem"
        file.write_bytes(
            signed.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )
