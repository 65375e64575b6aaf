"""The signing keys that the ledger permits: founded by the first node, followed by all, moved by `flask keys`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Column, Connection, Table, insert, select, update

from api.ledger import tables
from api.ledger.database import Database
from api.signing import KeyStatus, PermittedKeys, PublicJwk, SigningKey

#: Reads the columns of a table from a copy of the ledger.
Rows = Callable[[Table, Sequence[Column[Any]]], Iterable[Sequence[Any]]]

_table = tables.signing_keys
_COLUMNS = (_table.c.kid, _table.c.status, _table.c.jwk_json)


def load(connection: Connection) -> PermittedKeys:
    return _permitted(connection.execute(select(*_COLUMNS)).all())


def load_from_snapshot(rows: Rows) -> PermittedKeys:
    """Those that the node's own copy of the ledger has; `rows` reads it (`Snapshot.rows`). Raises `sqlite3.Error`."""
    return _permitted(rows(_table, _COLUMNS))


def decoded(rows: str) -> PermittedKeys:
    """Those of a JSON list of `[kid, status, jwk_json]`."""
    return _permitted(msgspec.json.decode(rows))


def _permitted(rows: Iterable[Sequence[Any]]) -> PermittedKeys:
    found = {kid: (status, msgspec.json.decode(jwk, type=PublicJwk)) for kid, status, jwk in rows}
    return PermittedKeys(
        {kid: status for kid, (status, _) in found.items()}, {kid: jwk for kid, (_, jwk) in found.items()}
    )


def found(database: Database, keys: Sequence[SigningKey], now: float) -> None:
    """On a ledger without keys: the first of `keys` becomes current, the others next. Raises `LedgerError`."""
    with database.writing() as connection:
        # The ledger's only row is the lock: of the nodes that start at once, one founds.
        connection.execute(select(tables.ledger.c.id).with_for_update())
        if connection.execute(select(_table.c.kid)).first() is not None:
            return
        for i, key in enumerate(keys):
            write(connection, key.kid, KeyStatus.NEXT if i else KeyStatus.CURRENT, now, key.public_jwk)


def write(connection: Connection, kid: str, status: KeyStatus, now: float, jwk: PublicJwk | None = None) -> None:
    """Sets the status of one key; a new one comes with its public `jwk`."""
    if jwk is None:
        connection.execute(update(_table).where(_table.c.kid == kid).values(status=status, changed_at=now))
        return
    row = {"kid": kid, "status": status, "jwk_json": msgspec.json.encode(jwk).decode()}
    connection.execute(insert(_table), row | {"created_at": now, "changed_at": now})
