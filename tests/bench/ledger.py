"""The data of a run: a migrated database with licenses that are active on one machine each, and the naive tables."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Table, create_engine, func, insert, select
from sqlalchemy.orm import Session

from api.ledger import tables
from api.ledger.database import Database
from api.ledger.migrate import upgrade
from api.licensing.model import machine_id
from api.signing import key_claim
from tests.bench.calls import Vendor, fingerprint_of
from tests.bench.naive import Base, NaiveLicense

#: To make statements of all rows at once would take longer than a transaction may stand still.
_AT_ONCE = 5_000
_POLICY = str(uuid.uuid4())


def fill(url: str, vendor: Vendor) -> None:
    """Makes the tables in the empty database `url`, and in them what belongs to `vendor`."""
    database = Database(url)
    upgrade(database)
    now = time.time()
    # Before the transaction, which the database ends where it stands still for two seconds.
    licenses = [_license(key, now) for key in vendor.keys]
    machines = [_machine(license["id"], key, now) for license, key in zip(licenses, vendor.keys, strict=True)]
    with database.writing() as connection:
        product = {"id": str(uuid.uuid4()), "code": vendor.product, "name": "Bench", "created_at": now}
        policy = {"id": _POLICY, "product": vendor.product, "name": "Floating", "created_at": now}
        connection.execute(insert(tables.products), product)
        connection.execute(insert(tables.policies), policy | {"rules_json": '{"floating":true,"max_machines":3}'})
        _put(connection, tables.licenses, licenses)
        _put(connection, tables.machines, machines)
    database.close()
    _fill_naive(url, vendor.keys)


def _put(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    for start in range(0, len(rows), _AT_ONCE):
        connection.execute(insert(table), rows[start : start + _AT_ONCE])


def events(url: str) -> int:
    """How many events the log has."""
    database = Database(url)
    with database.reading() as connection:
        count = connection.execute(select(func.count()).select_from(tables.events)).scalar_one()
    database.close()
    return count


def replayed(url: str, origin: str) -> list[float]:
    """When (Unix seconds) each event of the queue `origin` was recorded, in order."""
    database = Database(url)
    query = select(tables.events.c.recorded_at).where(tables.events.c.origin == origin)
    with database.reading() as connection:
        moments = list(connection.execute(query).scalars())
    database.close()
    return sorted(moments)


def _license(key: str, now: float) -> dict[str, object]:
    return {
        "id": str(uuid.uuid4()),
        "policy": _POLICY,
        "key_hash": key_claim(key),
        "key_hint": key[-4:],
        "status": "active",
        "seats": 1,
        "created_at": now,
    }


def _machine(license_id: object, key: str, now: float) -> dict[str, object]:
    fingerprint = fingerprint_of(key)
    return {
        "id": machine_id(str(license_id), fingerprint),
        "license_id": license_id,
        "fingerprint": fingerprint,
        "active": True,
        "created_at": now,
    }


def _fill_naive(url: str, keys: Sequence[str]) -> None:
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg2://"))
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.execute(insert(NaiveLicense), [{"key": key, "status": "active"} for key in keys])
        session.commit()
    engine.dispose()
