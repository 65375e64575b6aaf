"""Nasty little servers on loopback: each takes a connection, reads the request, and does as it is told."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.client import parse_headers
from pathlib import Path
from typing import Self, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from license_client import Reply

#: What a server does with a connection, once it has read the request: its path, body and headers.
Conduct = Callable[[socket.socket, str, bytes, Mapping[str, str]], None]
#: The bytes of an answer to a request's path, body and headers.
Make = Callable[[str, bytes, Mapping[str, str]], bytes]


class Nasty:
    """A server with one conduct for every connection. `requests`: what it was asked."""

    def __init__(self, conduct: Conduct, *, tls: ssl.SSLContext | None = None, reads: bool = True) -> None:
        self._conduct, self._tls, self._reads = conduct, tls, reads
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests: list[tuple[str, bytes]] = []
        self.connections = 0
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends it; its port is refused from then on."""
        self._ended.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _start(self, target: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(30)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.enter_context(connection)
            if self._tls is not None:
                connection = stack.enter_context(self._tls.wrap_socket(connection, server_side=True))
            path, body, headers = _read(connection) if self._reads else ("", b"", {})
            self.requests.append((path, body))
            self._conduct(connection, path, body, headers)


def _read(connection: socket.socket) -> tuple[str, bytes, Mapping[str, str]]:
    with connection.makefile("rb") as stream:
        line = stream.readline()
        if not line:
            raise ConnectionResetError("no request came")
        path = line.split(b" ")[1].decode()
        headers = cast(Mapping[str, str], parse_headers(stream))
        return path, stream.read(int(headers["Content-Length"])), headers


def http(status: int, body: bytes, *headers: str, length: int | None = None) -> bytes:
    """An HTTP/1.1 answer as it goes over the wire; `length`: what it says its length is."""
    declared = f"Content-Length: {len(body) if length is None else length}"
    return "\r\n".join([f"HTTP/1.1 {status} X", declared, *headers, "", ""]).encode() + body


def sends(make: Make) -> Conduct:
    """Answers with what `make` gives for the request's path and body, and closes."""
    return lambda connection, *request: connection.sendall(make(*request))


def answers(behave: Callable[..., Reply]) -> Conduct:
    """As one of the servers without sockets does (tests.unit.clients.support)."""

    def conduct(connection: socket.socket, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        reply = behave(path, body, headers)
        connection.sendall(http(reply.status, reply.body))

    return conduct


def silent(connection: socket.socket, path: str, body: bytes, headers: Mapping[str, str]) -> None:
    """Says nothing until the other side gives up."""
    with contextlib.suppress(TimeoutError):
        connection.recv(1)


def later(number: int, first: Conduct, then: Conduct) -> Conduct:
    """A server that behaves in one way for so many requests, and in another from then on."""
    asked: list[str] = []

    def conduct(connection: socket.socket, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        asked.append(path)
        (first if len(asked) <= number else then)(connection, path, body, headers)

    return conduct


class Drips:
    """Sends what `make` gives, one byte each `every` seconds, until the other side is gone. `sent`: bytes so far."""

    def __init__(self, make: Make, at_once: int = 0, every: float = 0.2) -> None:
        self._make, self._at_once, self._every = make, at_once, every
        self.sent = 0
        self.was_cut = threading.Event()

    def __call__(self, connection: socket.socket, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        answer = self._make(path, body, headers)
        connection.sendall(answer[: self._at_once])
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for byte in answer[self._at_once :]:
                connection.sendall(bytes([byte]))
                self.sent += 1
                time.sleep(self._every)  # nothing to wait for: this is the drip
        except OSError:
            self.was_cut.set()


@contextlib.contextmanager
def refused_url() -> Iterator[str]:
    """A URL that nobody answers: its port is bound and not listened on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def certificate(folder: Path, *, days_ahead: int = 0) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS under a certificate that nobody trusts, and the file with it for those who do.

    `days_ahead`: in how many days it begins to be valid.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days_ahead and days_ahead + 1)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(alternative, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file, private = folder / "certificate.pem", folder / "private.pem"
    file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, private)
    return context, file


def good_json(path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """JSON that would be a fine answer, if it were signed."""
    return json.dumps({"valid": True, "code": "VALID", "nonce": json.loads(body)["nonce"]}).encode()
