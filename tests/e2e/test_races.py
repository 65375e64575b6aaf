"""Many at once, from several processes and nodes: seats, uses and retries come out exactly."""

from __future__ import annotations

import multiprocessing
import random
import uuid
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from api.ledger import tables
from api.ledger.database import Database
from tests.support.nodes import Sold, events_of, license_row, rows, running_node, sell, signing_key

_PROCESSES = 3
_THREADS = 17


class Told(NamedTuple):
    status: int
    code: str
    fields: dict[str, Any]


def race(url: str, folder: Path, sold: Sold, calls: Sequence[dict[str, Any]]) -> list[Told]:
    """Makes all `calls` (`act`, fields) at once: shared out among processes, each a node, and their threads."""
    context = multiprocessing.get_context("spawn")
    told, start = context.Queue(), context.Barrier(_PROCESSES)
    shares = [list(calls[number::_PROCESSES]) for number in range(_PROCESSES)]
    processes = []
    for number, share in enumerate(shares):
        # The processes of one SQLite file are the workers of one node; on Postgres they are nodes.
        mine = folder / ("node" if url.startswith("sqlite") else f"node-{number}")
        processes.append(context.Process(target=take_part, args=(url, mine, signing_key(), sold, share, start, told)))
        processes[-1].start()
    found = [told.get(timeout=180) for _ in processes]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    return [one for part in found for one in part]


def take_part(url: str, folder: Path, pem: str, sold: Sold, calls: list[dict[str, Any]], start: Any, told: Any) -> None:
    with running_node(url, folder, SIGNING_KEY=pem) as node, ThreadPoolExecutor(_THREADS) as pool:
        start.wait(120)

        def call(fields: dict[str, Any]) -> Told:
            answer = node.insist(key=sold.key, **{"request_id": uuid.uuid4().hex, **fields})
            return Told(answer.status, answer.code, fields)

        told.put(list(pool.map(call, calls)))


def active_machines(database: Database, sold: Sold) -> list[dict[str, Any]]:
    return [row for row in rows(database, tables.machines, license_id=sold.id) if row["active"]]


def test_50_activations_at_once_of_a_3_seat_license_take_exactly_3_seats(ledger_url: str, tmp_path: Path) -> None:
    database = Database(ledger_url)
    sold = sell(database, {"max_machines": 3})
    calls = [{"act": "activate", "fingerprint": f"machine-{number}"} for number in range(50)]
    told = race(ledger_url, tmp_path, sold, calls)
    assert Counter(one[:2] for one in told) == {(200, "VALID"): 3, (200, "MACHINE_LIMIT_EXCEEDED"): 47}
    seated = {row["fingerprint"] for row in active_machines(database, sold)}
    assert seated == {one.fields["fingerprint"] for one in told if one.code == "VALID"}
    assert license_row(database, sold)["seats"] == 3
    assert Counter(row["data"]["code"] for row in events_of(database, sold)) == {
        "VALID": 3,
        "MACHINE_LIMIT_EXCEEDED": 47,
    }
    database.close()


def test_uses_counted_at_once_sum_up_exactly_and_never_pass_the_limit(
    ledger_url: str, tmp_path: Path, seed: int
) -> None:
    chance, database = random.Random(seed), Database(ledger_url)
    sold = sell(database, {"max_uses": 300})
    calls = [{"act": "usage", "increment": chance.randint(1, 9)} for _ in range(120)]
    told = race(ledger_url, tmp_path, sold, calls)
    assert {one.status for one in told} == {200}
    assert {one.code for one in told} == {"VALID", "USES_EXHAUSTED"}
    uses = sum(one.fields["increment"] for one in told if one.code == "VALID")
    assert license_row(database, sold)["uses"] == uses
    assert 300 - 9 < uses <= 300
    assert len(events_of(database, sold)) == 120
    database.close()


def test_machines_that_come_and_go_at_once_leave_the_count_right(ledger_url: str, tmp_path: Path, seed: int) -> None:
    chance, database = random.Random(seed), Database(ledger_url)
    sold = sell(database, {"max_machines": 4})
    acts = ["activate", "deactivate", "ping", "validate"]
    calls = [{"act": chance.choice(acts), "fingerprint": f"machine-{chance.randint(1, 8)}"} for _ in range(150)]
    told = race(ledger_url, tmp_path, sold, calls)
    assert {one.status for one in told} == {200}
    assert license_row(database, sold)["seats"] == len(active_machines(database, sold)) <= 4
    events = rows(database, tables.events)
    # One that was told to come again may have been logged all the same: a ping and a validate have no request id.
    assert [row["seq"] for row in events] == list(range(1, len(events) + 1))
    assert len(events) >= 150
    database.close()


def test_200_retries_of_one_request_id_from_several_processes_are_one_event(ledger_url: str, tmp_path: Path) -> None:
    database = Database(ledger_url)
    sold = sell(database)
    calls = [{"act": "usage", "request_id": "the-same-request", "increment": 7}] * 200
    told = race(ledger_url, tmp_path, sold, calls)
    assert Counter(one[:2] for one in told) == {(200, "VALID"): 200}
    assert license_row(database, sold)["uses"] == 7
    assert len(events_of(database, sold)) == 1
    database.close()
