"""The calls that are sent: signed validates of licenses that exist, each with a nonce and a request id of its own."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

import msgspec

from api.web.client_auth import signature

#: What every good answer has in it.
GOOD = (b'"code":"VALID"',)
#: What it has besides where its event is in the ledger, and where it is in this node's queue.
LEDGER = (*GOOD, b'"durability":"ledger"')
QUEUED = (*GOOD, b'"durability":"queue"')


@dataclass(frozen=True)
class Vendor:
    """A vendor's client credentials and licenses: `keys` with one active machine each, `FINGERPRINT` of the key."""

    keys: Sequence[str]
    product: str = "bench"
    api_key: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    shared_secret: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    def calls(self, path: str, count: int) -> list[bytes]:
        """So many whole HTTP requests, ready to be written to a socket. Good for 300 s."""
        secret, timestamp = self.shared_secret.encode(), str(int(time.time()))
        return [self._call(path, secret, timestamp, f"{secrets.token_hex(4)}-{i}") for i in range(count)]

    def _call(self, path: str, secret: bytes, timestamp: str, id: str) -> bytes:
        key = random.choice(self.keys)
        body = msgspec.json.encode(
            {"key": key, "nonce": f"nonce-{id}-{id}", "product": self.product, "fingerprint": fingerprint_of(key)}
        )
        request_id = f"request-{id}"
        signed = signature(secret, f"{request_id}.{timestamp}.POST {path}.".encode() + body)
        head = (
            f"POST {quote(path)} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"X-API-Key: {self.api_key}\r\nX-Request-Id: {request_id}\r\nX-Timestamp: {timestamp}\r\n"
            f"X-Signature: {signed}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


def new_key() -> str:
    return f"BENCH-{secrets.token_hex(16).upper()}"


def fingerprint_of(key: str) -> str:
    """The fingerprint of the one machine on which this key is active."""
    return f"machine-of-{key[-12:]}"
