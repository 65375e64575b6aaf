"""`Idempotency-Key`: one effect and one answer for an admin's call, whichever node its retries meet.

The answer is committed with the effect and kept for a day. It has no license key in it: a key that is made for such a
call is derived (HKDF) from the signing key, which every node holds and the ledger does not, and a salt that is kept
with the answer. Only effects are kept: what was refused, or ended in a 503 before its commit, is decided anew.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from sqlalchemy import select

from api.admin.license_rows import KEY_BYTES, OLD_KEY_BYTES, key_of, new_key, old_key_of
from api.admin.schemas import Body
from api.ledger.errors import LedgerRefused
from api.ledger.log import Journal
from api.ledger.records import IdempotencyRecord
from api.ledger.tables import idempotency_records
from api.problems import Problem
from api.signing import SigningKey
from api.signing.base64url import b64url

_PURPOSE = "license key of an idempotent call"
_TOKEN_PURPOSE = "admin token of an idempotent call"  # noqa: S105 - says what for, and is none
_SALT_BYTES = 16
#: What a record names a signing key by. A node of the first release, which makes other license keys of the same bytes,
#: holds no such kid: it asks for a reissue and gives no wrong license key.
_KID_LENGTH = 42
_TOKEN_BYTES = 32
#: Orders the members of `metadata` as well: two that differ in their order only are the same body.
_encode = msgspec.json.Encoder(order="sorted").encode

Answer = dict[str, Any]

#: What tells a token of ours from any other secret that turns up somewhere.
TOKEN_PREFIX = "admin_"  # noqa: S105 - begins all of them


class Effect(Protocol):
    """What a call's effect is bound to."""

    def license_key(self, number: int = 0) -> str:
        """The key of the license that is made, or gets a new one; of several, the one of this `number`."""

    def token(self) -> str:
        """The random part of the token that is made."""

    def record(self, answer: Mapping[str, Any], now: float) -> IdempotencyRecord | None:
        """What is to be committed with the effect; `answer` may have a license key, the record has none."""


class EveryTime:
    """A call without an `Idempotency-Key`: it has its effect as often as it is sent."""

    def license_key(self, number: int = 0) -> str:  # noqa: ARG002 - the protocol's signature
        return new_key()

    def token(self) -> str:
        return secrets.token_urlsafe(_TOKEN_BYTES)

    def record(self, answer: Mapping[str, Any], now: float) -> None:  # noqa: ARG002 - the protocol's signature
        return None


EVERY_TIME = EveryTime()


class Once:
    """A call with an `Idempotency-Key`. A new one for each request."""

    def __init__(self, key: str, caller: str, path: str, body: Body, held: Sequence[SigningKey], current: str) -> None:
        """`caller`: the hash of the token that sent `body` to `path`; the keys of two tokens never meet.

        `held`: the signing keys of this node; `current`: the kid of the one that signs, which every node holds.
        """
        self.id = _hash(_encode([caller, key]))
        self._request_hash = _hash(_encode([path, body]))
        self._own_key: str | None = getattr(body, "key", None) or None
        self._shown_once = body.SHOWN_ONCE
        self._held = {one.kid: one for one in held}
        self._kid = current
        self._salt = b64url(secrets.token_bytes(_SALT_BYTES))

    def license_key(self, number: int = 0) -> str:
        return self._derived_key(self._held[self._kid], self._salt, number)

    def token(self) -> str:
        return self._derived_token(self._held[self._kid], self._salt)

    def record(self, answer: Mapping[str, Any], now: float) -> IdempotencyRecord:
        kept = self._without_secret(answer)
        if "items" in answer:
            kept["items"] = [self._without_secret(item) for item in answer["items"]]
        kid = self._kid[:_KID_LENGTH] if kept != answer and self._own_key is None else None
        return IdempotencyRecord(self.id, self._request_hash, _encode(kept).decode(), kid, self._salt, now)

    def first_answer(self, record: IdempotencyRecord) -> Answer:
        """What `record` says was answered. Raises `IDEMPOTENCY_KEY_REUSED`, and `CONFLICT` for a lost license key."""
        if record.request_hash != self._request_hash:
            raise Problem("IDEMPOTENCY_KEY_REUSED")
        answer: Answer = msgspec.json.decode(record.answer_json)
        if record.kid is None:
            return answer if self._own_key is None else answer | {"key": self._own_key}
        key = next((key for kid, key in self._held.items() if kid.startswith(record.kid)), None)
        if key is None:
            raise self._lost(answer)
        salt = record.salt
        if "items" in answer:
            items = [item | {"key": self._derived_key(key, salt, at)} for at, item in enumerate(answer["items"])]
            return answer | {"items": items}
        if self._shown_once == "token":
            return answer | {"token": TOKEN_PREFIX + self._derived_token(key, salt)}
        return answer | {"key": self._derived_key(key, salt, is_old=len(record.kid) > _KID_LENGTH)}

    def _lost(self, answer: Answer) -> Problem:
        """What to say where the signing key that gave the secret of `answer` is not held here."""
        done = "this was done, and the signing key that gave its"
        if self._shown_once == "token":
            return Problem("CONFLICT", f"{done} token is not held here: revoke the token {answer['id']}, make another")
        if "items" in answer:
            return Problem("CONFLICT", f"{done} license keys is not held here: reissue the keys of the licenses")
        license = {"id": answer["id"]}
        return Problem("CONFLICT", f"{done} license key is not held here: reissue the key", license=license)

    def _without_secret(self, answer: Mapping[str, Any]) -> Answer:
        return {name: value for name, value in answer.items() if name != self._shown_once}

    def _derived_key(self, key: SigningKey, salt: str, number: int = 0, *, is_old: bool = False) -> str:
        """`is_old`: as the first release made it."""
        # The first has no number: so it was before there were several.
        purpose = f"{_PURPOSE} {self.id} {number}" if number else f"{_PURPOSE} {self.id}"
        made_of, size = (old_key_of, OLD_KEY_BYTES) if is_old else (key_of, KEY_BYTES)
        return made_of(key.derived(purpose, salt.encode(), size))

    def _derived_token(self, key: SigningKey, salt: str) -> str:
        return b64url(key.derived(f"{_TOKEN_PURPOSE} {self.id}", salt.encode(), _TOKEN_BYTES))


def done_once(journal: Journal, effect: Effect, do: Callable[[], Answer]) -> Answer:
    """What `do` gives, or what the first call under the same key was answered. Raises what both raise.

    Of two at once the ledger takes one record. The other is refused, for that or for what the first one changed, and
    is then answered as a retry.
    """
    first = _first_answer(journal, effect)
    if first is not None:
        return first
    try:
        return do()
    except (Problem, LedgerRefused):
        first = _first_answer(journal, effect)
        if first is None:
            raise
        return first


def _first_answer(journal: Journal, effect: Effect) -> Answer | None:
    if not isinstance(effect, Once):
        return None
    table = idempotency_records
    names = IdempotencyRecord.__struct_fields__
    query = select(*(table.c[name] for name in names)).where(table.c.id == effect.id)
    with journal.reading() as connection:
        found = connection.execute(query).first()
    return None if found is None else effect.first_answer(IdempotencyRecord(*found))


def _hash(text: bytes) -> str:
    return b64url(hashlib.sha256(text).digest())
