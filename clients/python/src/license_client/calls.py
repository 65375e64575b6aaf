"""What is sent: the body of a call, its nonce, and the headers that sign it (contract, sections 1 and 2)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from license_client.errors import ConfigurationError

_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{8,64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One logical call, the same on whichever server it is tried. `fields`: its own members of the body."""

    act: str
    key: str = field(repr=False)
    fields: Mapping[str, Any]
    request_id: str

    @property
    def path(self) -> str:
        return f"/v1/{self.act}"

    @property
    def fingerprint(self) -> str | None:
        """The one that is sent, if any."""
        return self.fields.get("fingerprint")

    def body(self, nonce: str) -> bytes:
        """The JSON to send, in UTF-8; members that are None are left out."""
        members = {name: value for name, value in self.fields.items() if value is not None}
        return json.dumps({"key": self.key, "nonce": nonce, **members}, separators=(",", ":")).encode()


def new_nonce() -> str:
    """16 random bytes: each try has its own, so that no answer fits another try."""
    return secrets.token_urlsafe(16)


def request_id_of(given: str | None) -> str:
    """The caller's, or a new one. Raises `ConfigurationError`."""
    if given is None:
        return secrets.token_hex(16)
    if _REQUEST_ID.fullmatch(given) is None:
        raise ConfigurationError("request_id: must be 8 to 64 of A-Z a-z 0-9 _ -")
    return given


@dataclass(frozen=True, slots=True)
class Credentials:
    """What shows that a call comes from the vendor's program; None where the servers do not ask for it."""

    api_key: str | None = field(default=None, repr=False)
    shared_secret: str | None = field(default=None, repr=False)

    def headers(self, call: Call, body: bytes, timestamp: int) -> dict[str, str]:
        """`timestamp`: Unix seconds."""
        sent = {"Content-Type": "application/json", "X-Request-Id": call.request_id}
        if self.api_key is not None:
            sent["X-API-Key"] = self.api_key
        if self.shared_secret is not None:
            text = f"{call.request_id}.{timestamp}.POST {call.path}.".encode() + body
            sent |= {"X-Timestamp": str(timestamp), "X-Signature": signature(self.shared_secret, text)}
        return sent


def signature(secret: str, text: bytes) -> str:
    """`v1,` and the base64 of HMAC-SHA256 under the secret's UTF-8 bytes."""
    return "v1," + base64.b64encode(hmac.digest(secret.encode(), text, hashlib.sha256)).decode("ascii")
