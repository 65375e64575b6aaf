"""What replay writes of events that change nothing but when somebody was seen, on each ledger."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from api.clock import Clock
from api.isolated import to_row
from api.ledger import tables
from api.ledger.store import Ledger
from api.replay import LedgerReplay
from failover.queue import Queued
from tests.support.ledger import event, machine, seat
from tests.support.nodes import license_row, opened_ledger, rows, sell


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    with opened_ledger(ledger_url) as ledger:
        yield ledger


def test_a_machine_is_seen_though_its_license_was_by_another_a_moment_ago(ledger: Ledger) -> None:
    """A seat may hang on it: `release_stale_days` gives the longest unseen away."""
    sold = sell(ledger.database)
    here, there = machine(sold, "here", active=True), machine(sold, "there", active=True)
    seat(ledger, sold, here, there)
    replay = LedgerReplay(ledger, "n", Clock())
    for position, (fingerprint, at) in enumerate((("here", 1_000.0), ("there", 2_000.0), ("here", 2_030.0)), start=1):
        data = {"call": {"act": "validate", "fingerprint": fingerprint}, "code": "VALID", "valid": True}
        row = to_row(event(sold, mode="isolated", occurred_at=at, data=data))
        replay("origin", [Queued(position, row, 0, at)])
    assert rows(ledger.database, tables.machines, id=here.id)[0]["last_seen_at"] == 2_030.0
    assert license_row(ledger.database, sold)["last_seen_at"] == 2_030.0
