"""Requests as bytes: well-formed ones that are answered, and those that must never be carried out."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass

from tests.support.nodes import signed

#: Every answer to one of these on a connection is known beforehand.
LAST = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Known:
    """What a client of the node knows: its secrets, the key of a license, and that of one which nobody may use."""

    api_key: str
    secret: str
    key: str
    untouched: str

    def headers(self, path: str, body: bytes) -> dict[str, str]:
        """Those of a call that is signed now."""
        return {**signed("POST", path, body, secrets=(self.secret,)), "X-API-Key": self.api_key}

    def check(self, nonce: str) -> tuple[bytes, bytes]:
        """The head and the body of a check that is granted."""
        body = json.dumps({"key": self.key, "nonce": nonce}).encode()
        return head("POST", "/v1/validate", self.headers("/v1/validate", body)), body

    def hidden(self, nonce: str) -> bytes:
        """A whole call that counts a use of the untouched license, to be put where no request may begin."""
        body = json.dumps({"key": self.untouched, "nonce": nonce}).encode()
        fields = {**self.headers("/v1/usage", body), "Content-Length": str(len(body))}
        return head("POST", "/v1/usage", fields) + b"\r\n" + body


def head(method: str, target: str, fields: Mapping[str, str]) -> bytes:
    """A request's first lines, without the empty one that ends them."""
    lines = [f"{method} {target} HTTP/1.1", "Host: x", *(f"{name}: {text}" for name, text in fields.items())]
    return "".join(f"{line}\r\n" for line in lines).encode()


def with_length(head: bytes, body: bytes) -> bytes:
    """The request whose body has its length declared."""
    return b"%sContent-Length: %d\r\n\r\n%s" % (head, len(body), body)


def in_chunks(rng: random.Random, body: bytes) -> bytes:
    """A body in chunks of any sizes, with its last one."""
    chunks, left = [], body
    while left:
        size = rng.randint(1, len(left))
        chunks.append(b"%x\r\n%s\r\n" % (size, left[:size]))
        left = left[size:]
    return b"".join(chunks) + b"0\r\n\r\n"


def nonce_of(rng: random.Random) -> str:
    return f"{rng.getrandbits(96):024x}"
