"""Who may call: API key and request signature for clients, compared in constant time. No I/O.

A shipped script shows both to everybody: they keep noise away, and no promise of the contract rests on them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence

from api.checks.request import ClientRequest
from api.checks.schemas import is_request_id
from api.config.settings import Settings
from api.problems import Malformed, Problem

_MAX_SKEW_S = 300


class Skewed(Problem):
    """401: `ts` is this node's time. `genuine`: the signature is right, only the caller's clock is wrong."""

    def __init__(self, ts: int, genuine: bool) -> None:
        super().__init__("TIMESTAMP_SKEWED", ts=ts)
        self.genuine = genuine


class ClientAuth:
    """Checks a client's credentials as the settings ask for."""

    def __init__(self, settings: Settings) -> None:
        self._api_keys = [key.encode() for key in settings.api_keys] if settings.require_api_key else None
        secrets = settings.shared_secrets if settings.require_signature else None
        # Begun once for each secret: a copy costs less than to begin anew.
        self._keyed = None if secrets is None else [_keyed(secret.encode()) for secret in secrets]

    def check(self, sent: ClientRequest, now: float) -> None:
        """Raises a `Problem`: `API_KEY_INVALID`, `TIMESTAMP_SKEWED`, `SIGNATURE_INVALID`.

        A wrong clock is found before a wrong signature, as the order of precedence has it.
        """
        if self._api_keys is not None and not _matches_any(sent.api_key or "", self._api_keys):
            raise Problem("API_KEY_INVALID")
        if self._keyed is not None:
            _check_signature(self._keyed, sent, now)
        if sent.request_id and not is_request_id(sent.request_id):
            raise Malformed("X-Request-Id", "must be 8 to 64 of A-Z a-z 0-9 _ -, and not of a license key's form")


def _check_signature(secrets: Sequence[hmac.HMAC], sent: ClientRequest, now: float) -> None:
    timestamp, signatures = sent.timestamp or "", (sent.signature or "").split()
    well_formed = timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12
    genuine = well_formed and bool(sent.request_id and signatures) and _is_signed(secrets, sent, signatures)
    if well_formed and abs(int(timestamp) - now) > _MAX_SKEW_S:
        raise Skewed(int(now), genuine)
    if not (sent.request_id and well_formed and signatures):
        raise Problem("SIGNATURE_INVALID", "X-Request-Id, X-Timestamp and X-Signature are needed")
    if not genuine:
        raise Problem("SIGNATURE_INVALID")


def _is_signed(secrets: Sequence[hmac.HMAC], sent: ClientRequest, signatures: Sequence[str]) -> bool:
    text = f"{sent.request_id}.{sent.timestamp}.{sent.method} {sent.path}.".encode() + sent.raw
    good = [_signed(secret, text) for secret in secrets]
    return any(_matches_any(one, good) for one in signatures)


def signature(secret: bytes, text: bytes) -> str:
    """`v1,` and the base64 of HMAC-SHA256(secret, text): what `X-Signature` holds."""
    return _signed(_keyed(secret), text).decode()


def _keyed(secret: bytes) -> hmac.HMAC:
    return hmac.new(secret, digestmod=hashlib.sha256)


def _signed(keyed: hmac.HMAC, text: bytes) -> bytes:
    begun = keyed.copy()
    begun.update(text)
    return b"v1," + base64.b64encode(begun.digest())


def _matches_any(sent: str, expected: Sequence[bytes]) -> bool:
    """Constant time: every candidate is compared in full, whichever matches."""
    given = sent.encode("utf-8", "surrogatepass")
    return sum([hmac.compare_digest(given, candidate) for candidate in expected]) > 0
