"""Admin tokens: random, scoped, shown once and kept as a hash."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from sqlalchemy import insert, select, update

from api.admin.idempotency import EVERY_TIME, TOKEN_PREFIX, Effect
from api.admin.rows import found, missing, plain
from api.admin.schemas import Body, Name
from api.ids import new_id
from api.ledger.log import Journal
from api.ledger.tables import tokens
from api.node.change_marks import ChangeMarks
from api.node.clock import timestamp
from api.problems import Malformed


class Scope(StrEnum):
    """What a token may do."""

    STATS_READ = "stats:read"
    LICENSES_READ = "licenses:read"
    LICENSES_WRITE = "licenses:write"
    NODES_WRITE = "nodes:write"
    TOKENS_WRITE = "tokens:write"
    KEYS_WRITE = "keys:write"


class TokenBody(Body, kw_only=True):
    """A new token: what or whom it is for, and what it may do."""

    REQUIRED = ("name", "scopes")
    SHOWN_ONCE = "token"

    name: Name
    scopes: Annotated[list[Scope], Meta(min_length=1)]


class TokenStore:
    """Every method raises `Problem` and `LedgerError`. A change is known to this node's workers at once."""

    def __init__(self, journal: Journal, changes: ChangeMarks) -> None:
        self._journal = journal
        self._changes = changes

    def create(self, name: str, scopes: Iterable[str], effect: Effect = EVERY_TIME) -> dict[str, Any]:
        row = {"id": new_id(), "name": _name(name), "scopes": _scopes(scopes), "created_at": self._journal.now()}
        token = TOKEN_PREFIX + effect.token()
        answer = _resource(row) | {"token": token}
        with self._journal.change() as change:
            change.connection.execute(insert(tokens), row | {"token_hash": secret_hash(token)})
            event = self._journal.event("token.created", id=row["id"], name=row["name"], scopes=row["scopes"])
            change.commit(event, {tokens: [str(row["id"])]}, effect.record(answer, self._journal.now()))
        self._changes.keys_changed()
        return answer

    def all(self) -> list[dict[str, Any]]:
        with self._journal.reading() as connection:
            rows = connection.execute(select(tokens).where(tokens.c.revoked_at.is_(None)).order_by(tokens.c.id))
            return [_resource(plain(row)) for row in rows.mappings()]

    def get(self, id: str) -> dict[str, Any]:
        with self._journal.reading() as connection:
            good = (tokens.c.id == id) & tokens.c.revoked_at.is_(None)
            row = connection.execute(select(tokens).where(good)).mappings().first()
        return _resource(found("token", row))

    def revoke(self, id: str) -> None:
        with self._journal.change() as change:
            still_good = (tokens.c.id == id) & tokens.c.revoked_at.is_(None)
            statement = update(tokens).where(still_good).values(revoked_at=self._journal.now())
            if not change.connection.execute(statement).rowcount:
                missing("token")
            change.commit(self._journal.event("token.revoked", id=id), {tokens: [id]})
        self._changes.keys_changed()


def _name(name: str) -> str:
    try:
        return msgspec.convert(name, Name)
    except msgspec.ValidationError as error:
        raise Malformed("name", "must be 1 to 200 characters, none of them a control character") from error


def _scopes(scopes: Iterable[str]) -> str:
    try:
        wanted = {Scope(scope) for scope in scopes}
    except ValueError:
        wanted = set()
    if not wanted:
        raise Malformed("scopes", f"must be some of {', '.join(Scope)}")
    return " ".join(scope for scope in Scope if scope in wanted)


def _resource(row: Mapping[str, Any]) -> dict[str, Any]:
    shown = {"id": row["id"], "name": row["name"], "scopes": row["scopes"].split()}
    return shown | {"created_at": timestamp(row["created_at"])}


def secret_hash(secret: str) -> str:
    """How tokens are stored and failures are counted: never as they were sent."""
    digest = hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
