"""The URLs that hosts and people write: other schemes, several hosts, TLS. libpq reads them, so psql's rules hold."""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import text

from api.ledger.database import Database
from api.ledger.errors import LedgerUnavailable
from tests.support.postgres import PostgresServer, free_port


def answer(url: str, sql: str) -> object:
    database = Database(url)
    try:
        with database.reading() as connection:
            return connection.execute(text(sql)).scalar()
    finally:
        database.close()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_every_spelling_of_the_scheme_connects(postgres_url: str, scheme: str) -> None:
    url = re.sub(r"^postgres\w*", scheme, postgres_url)
    assert answer(url, "SELECT 1") == 1


def test_of_several_hosts_the_first_that_answers_is_taken(postgres_url: str) -> None:
    found = re.match(r"^(.*@|postgres\w*://)([^/@]+)/(.*)$", postgres_url)
    assert found is not None
    before, host, after = found.groups()
    url = f"{before}127.0.0.1:{free_port()},{host}/{after}"
    assert answer(url, "SELECT 1") == 1
    joint = "&" if "?" in url else "?"
    assert answer(f"{url}{joint}target_session_attrs=read-write", "SELECT 1") == 1


def test_parameters_of_the_url_reach_the_server(postgres_url: str) -> None:
    joint = "&" if "?" in postgres_url else "?"
    url = f"{postgres_url}{joint}sslmode=prefer&options=-c%20work_mem%3D7MB"
    assert answer(url, "SHOW work_mem") == "7MB"


@pytest.fixture(scope="module")
def tls_server(postgres_server: dict[str, str]) -> Iterator[PostgresServer]:
    """A server of its own that speaks TLS; `postgres_server` skips loudly where there are no programs for it."""
    with PostgresServer() as server:
        server.start()
        server.stop()
        _certify(server.data)
        server.start()
        yield server


def test_tls_is_spoken_where_the_url_asks_for_it(tls_server: PostgresServer) -> None:
    url = tls_server.url()
    joint = "&" if "?" in url else "?"
    in_use = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    assert answer(f"{url}{joint}sslmode=require", in_use) is True
    assert answer(f"{url}{joint}sslmode=verify-ca&sslrootcert={tls_server.data / 'server.crt'}", in_use) is True


def test_a_server_that_cannot_prove_itself_is_not_spoken_to(tls_server: PostgresServer, tmp_path: Path) -> None:
    url = tls_server.url()
    joint = "&" if "?" in url else "?"
    other = tmp_path / "other.crt"
    other.write_bytes(_certificate(ec.generate_private_key(ec.SECP256R1())))
    with pytest.raises(LedgerUnavailable):
        answer(f"{url}{joint}sslmode=verify-ca&sslrootcert={other}", "SELECT 1")


def _certify(data: Path) -> None:
    owner = data.stat()
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for name, content in (("server.key", pem), ("server.crt", _certificate(key))):
        path = data / name
        path.write_bytes(content)
        path.chmod(0o600 if name.endswith("key") else 0o644)
        os.chown(path, owner.st_uid, owner.st_gid)
    with (data / "postgresql.conf").open("a") as settings:
        settings.write("\nssl = on\n")


def _certificate(key: ec.EllipticCurvePrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ledger of the tests")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=30))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
