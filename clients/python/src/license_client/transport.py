"""One request and its whole answer within one deadline, whatever the server does to draw it out.

The time-outs of requests bound a single read: a server that sends a byte a second passes them all. So each exchange
has a thread of its own that is left behind at the deadline, after its socket has been shut: it ends at its next read.
That bounds what no socket option bounds as well: name resolution, several addresses, a TLS handshake that drips.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import requests
from cryptography import x509
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from license_client.servers import is_loopback

#: Bytes of an answer. A verdict takes about 2 KiB.
MAX_ANSWER = 256 * 1024
_CHUNK = 64 * 1024


class TransportFailed(Exception):
    """No whole answer. `reason`: `refused`, `timeout`, `name`, `tls`, `short body`, `body too large`, `broken`, ...

    `tls date`: the certificate is not valid at this machine's time; `not_before`: from when it is (Unix seconds), where
    that lies ahead. `proxy`: the proxy does not let the call through.
    """

    def __init__(self, reason: str, *, not_before: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.not_before = not_before


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole HTTP answer. `headers`: by their names in lower case, as far as the transport gives them."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Transport(Protocol):
    """How a call reaches a server: the seam for tests and for other ways out."""

    def post(self, url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Reply:
        """The whole answer within `timeout` seconds in total. Raises `TransportFailed`. Follows no redirect."""

    def close(self) -> None:
        """Gives back what it holds."""


class Lifeline:
    """The socket of one exchange, for another thread to shut."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._is_cut = False

    def hold(self, connected: socket.socket) -> None:
        """Keeps a handle of its own: TLS takes the socket object apart. Raises `TimeoutError` when it is too late."""
        with self._lock:
            if self._is_cut:
                connected.close()
                raise TimeoutError
            before, self._socket = self._socket, connected.dup()
        if before is not None:
            before.close()

    def cut(self) -> None:
        """Shuts the socket, or keeps it from being used once it connects. May be called twice."""
        with self._lock:
            self._is_cut = True
            held, self._socket = self._socket, None
        if held is not None:
            with contextlib.suppress(OSError), held:
                held.shutdown(socket.SHUT_RDWR)


_LIFELINE: ContextVar[Lifeline] = ContextVar("lifeline of the exchange that runs in this thread")


class _Held(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        connected = super()._new_conn()
        _LIFELINE.get().hold(connected)
        return connected


class _HeldTls(_Held, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Held


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _HeldTls


class _Adapter(HTTPAdapter):
    """Connections that can be cut, straight ones and those through an HTTP proxy. `context`: whom they trust."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._trust: dict[str, Any] = {} if context is None else {"ssl_context": context}
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **(kwargs | self._trust))
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **(kwargs | self._trust))
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
        return manager


def _named_authorities() -> Path | None:
    """The file or folder that the environment names, as OpenSSL's programs and curl take it."""
    names = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
    return next((Path(os.environ[name]) for name in names if os.environ.get(name)), None)


def _system_trust() -> ssl.SSLContext | None:
    """A context that asks the system whom to trust: a company's authority is there and not in certifi."""
    try:
        import truststore
    except ImportError:
        return None
    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class RequestsTransport:
    """HTTP by one `requests.Session`. `ca_bundle`: a PEM file to trust in place of the usual authorities.

    The usual authorities are those of `REQUESTS_CA_BUNDLE` or `SSL_CERT_FILE` where one is set, else the system's own
    where the package `truststore` is installed, else those of `certifi`.
    """

    def __init__(self, *, ca_bundle: Path | None = None) -> None:
        self._session = requests.Session()
        named = ca_bundle or _named_authorities()
        # Given with each request: the session's own would give way to REQUESTS_CA_BUNDLE of the environment.
        self._verify = None if named is None else str(named)
        context = _system_trust() if named is None else None
        # Checks are minutes apart, and many routers forget an idle connection silently: each call makes its own.
        self._session.headers.update({"Connection": "close", "Accept-Encoding": "identity"})
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, _Adapter(context))

    def post(self, url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Reply:
        return self.request("POST", url, body, headers, timeout)

    def request(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
        timeout: float,
        limit: int = MAX_ANSWER,
    ) -> Reply:
        """`post` by another method. `limit`: bytes of an answer. Raises `TransportFailed`."""
        exchange = _Exchange(url, partial(self._begin, method, url, body, headers, timeout), limit)
        exchange.start()
        exchange.join(timeout)
        return exchange.outcome()

    def download(self, url: str, headers: Mapping[str, str], timeout: float, sink: Callable[[bytes], None]) -> Reply:
        """Passes the body of a 200 on to `sink` as it comes; any other answer is given whole.

        `timeout` bounds each read. Raises `TransportFailed`, and what `sink` raises.
        """
        lifeline = Lifeline()
        before = _LIFELINE.set(lifeline)
        try:
            with self._begin("GET", url, None, headers, timeout) as response:
                if response.status_code != 200:
                    return _whole(response, MAX_ANSWER)
                for chunk in response.raw.stream(_CHUNK, decode_content=False):
                    sink(chunk)
                return Reply(200, b"")
        except (requests.RequestException, HTTPError) as error:
            raise _failed(error) from error
        finally:
            _LIFELINE.reset(before)
            lifeline.cut()

    def _begin(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> requests.Response:
        """The answer's head, its body still to be read; `timeout` bounds each read. Raises what requests raises."""
        # A server on this machine is never asked through a proxy.
        proxies = {"no_proxy": urlsplit(url).hostname or ""} if is_loopback(url) else None
        send = partial(self._session.request, method, url, data=body, headers=dict(headers), timeout=timeout)
        return send(proxies=proxies, verify=self._verify, allow_redirects=False, stream=True)

    def close(self) -> None:
        self._session.close()


class _Exchange(threading.Thread):
    """One request in a thread of its own. `outcome` gives what it came to, or cuts it."""

    def __init__(self, url: str, send: Callable[[], requests.Response], limit: int) -> None:
        super().__init__(name="license-client", daemon=True)
        self._url = url
        self._send = send
        self._limit = limit
        self._lifeline = Lifeline()
        self._reply: Reply | None = None
        self._failure: TransportFailed | None = None

    def run(self) -> None:
        _LIFELINE.set(self._lifeline)
        try:
            with self._send() as response:
                self._reply = _whole(response, self._limit)
        except TransportFailed as failure:
            self._failure = failure
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            self._failure = _failed(error)
            if self._failure.reason == "tls date" and urlsplit(self._url).scheme == "https":
                self._failure = TransportFailed("tls date", not_before=_not_before(self._url))

    def outcome(self) -> Reply:
        """Raises `TransportFailed`."""
        # As they are now: the cut makes a failure of its own.
        reply, failure = self._reply, self._failure
        self._lifeline.cut()
        if reply is not None:
            return reply
        raise failure or TransportFailed("timeout")


def _whole(response: requests.Response, limit: int) -> Reply:
    """The answer with its body read to the end. Raises `TransportFailed`, and what urllib3 raises."""
    received = response.raw.read(limit + 1, decode_content=False)
    if len(received) > limit:
        raise TransportFailed("body too large")
    declared = response.headers.get("Content-Length")
    if declared is not None and declared != str(len(received)):
        raise TransportFailed("short body")
    return Reply(response.status_code, received, {name.lower(): text for name, text in response.headers.items()})


_REASONS: tuple[tuple[type[BaseException], str], ...] = (
    (requests.exceptions.ProxyError, "proxy"),
    (ssl.SSLError, "tls"),
    (requests.exceptions.SSLError, "tls"),
    (socket.gaierror, "name"),
    (ConnectionRefusedError, "refused"),
    (TimeoutError, "timeout"),
    (requests.Timeout, "timeout"),
)

#: OpenSSL's words for a certificate that is not valid yet, and for one that is not valid any more.
_DATE_CODES = frozenset({9, 10})


def _failed(error: BaseException) -> TransportFailed:
    """What is at the bottom of it."""
    causes: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in causes:
        causes.append(following)
        following = following.__cause__ or following.__context__
    if any("IncompleteRead" in repr(cause) for cause in causes):
        return TransportFailed("short body")
    if any(_is_by_date(cause) for cause in causes):
        return TransportFailed("tls date")
    named = (word for kind, word in _REASONS if any(isinstance(cause, kind) for cause in causes))
    return TransportFailed(next(named, "broken"))


def _not_before(url: str) -> int | None:
    """From when the server's certificate is valid, where it can be had: it tells by how much a clock is behind.

    Nothing is sent over this connection, and nothing but a text follows from what the certificate says.
    """
    host, port = urlsplit(url).hostname or "", urlsplit(url).port or 443
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((host, port)) as connected:
            _LIFELINE.get().hold(connected)
            with context.wrap_socket(connected, server_hostname=host) as secured:
                certificate = x509.load_der_x509_certificate(secured.getpeercert(binary_form=True) or b"")
    except (OSError, ValueError):
        return None
    return int(certificate.not_valid_before_utc.timestamp())


def _is_by_date(error: BaseException) -> bool:
    return isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _DATE_CODES
