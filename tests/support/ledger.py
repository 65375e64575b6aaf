"""Events, machines and batches for tests of a ledger at its seam."""

from __future__ import annotations

import time
import uuid
from typing import Any

from msgspec.structs import replace

from api.ledger import tables
from api.ledger.records import Batch, Change, Event, LicenseQuery, LicenseRecord
from api.ledger.store import Ledger
from api.licensing import Holding, Machine
from tests.support.nodes import Sold, rows


def event(sold: Sold, **changes: Any) -> Event:
    made = Event(
        event_id=str(uuid.uuid4()),
        type="validate",
        license_id=sold.id,
        node="n",
        instance="i",
        epoch=3,
        mode="normal",
        occurred_at=1.5,
        data={"code": "VALID", "text": "é\U0001f600 ' \" \\ %s :now"},
    )
    return replace(made, **changes)


def batch(*events: Event, changes: Any = (), tallies: Any = (), touches: Any = ()) -> Batch:
    return Batch(list(events), list(changes), list(tallies), list(touches))


def machine(sold: Sold, fingerprint: str, **fields: Any) -> Machine:
    return Machine(id=str(uuid.uuid4()), license_id=sold.id, fingerprint=fingerprint, created_at=time.time(), **fields)


def with_machines(holding: Holding, *machines: Machine) -> Holding:
    seats = holding.seats + sum(one.active for one in machines)
    excess = holding.excess + sum(one.active and one.excess for one in machines)
    return replace(holding, machines={one.fingerprint: one for one in machines}, seats=seats, excess=excess)


def seat(ledger: Ledger, sold: Sold, *machines: Machine) -> None:
    """Puts machines into the ledger, as an activation does."""
    with ledger.transaction([LicenseQuery(sold.key_hash)]) as transaction:
        before = known(transaction.known[0])
        transaction.commit(batch(event(sold), changes=[Change(before, with_machines(before, *machines))]))


def known(answer: LicenseRecord) -> Holding:
    assert answer.holding is not None
    return answer.holding


def head(ledger: Ledger) -> int:
    return int(rows(ledger.database, tables.log_head)[0]["seq"])
