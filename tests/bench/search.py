"""`python -m tests.bench.search`: how long an admin's searches take among a million licenses on Postgres.

`--licenses 100000` makes fewer. The licenses are written by one statement with the trigger off, as they are after an
upgrade; the index is then filled as a leader fills it. Each search is the list that an admin's call gives.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import text

from api.admin.kinds import Kind
from api.admin.store import Resources
from api.ledger import migrate
from api.ledger.database import Database
from api.node.clock import Clock
from api.node.identity import Node
from api.node.shared_state import open_shared_state
from tests.support.postgres import PostgresServer

_ROUNDS = 15
_POLICY = (
    "INSERT INTO products (id, code, name, created_at) VALUES ('product', 'app', 'App', 0)",
    "INSERT INTO policies (id, product, name, rules_json, created_at) VALUES ('policy', 'app', 'Pro', '{}', 0)",
)
#: First names and surnames as customers have them: a few that many have, and a number that only one has.
_LICENSES = """
INSERT INTO licenses (id, policy, key_hash, key_hint, status, name, email, external_ref, created_at)
SELECT lpad(to_hex(i), 36, '0'), 'policy', encode(sha256(i::text::bytea), 'hex')::varchar(43),
    upper(substr(md5(i::text), 1, 4)), 'active',
    (ARRAY['José', 'Ana', 'Müller', 'Ann', 'Zoë', 'Søren', 'Maria', 'João'])[1 + i % 8] || ' '
        || (ARRAY['Silva', 'Meier', 'Smith', 'Núñez', 'Costa'])[1 + i % 5] || ' ' || i,
    'customer' || i || '@' || (ARRAY['example.org', 'gmail.com', 'firma.de'])[1 + i % 3], 'order-' || i, i
FROM generate_series(1, :count) AS i
"""
#: What is searched for: a text of one license, of a handful, of a thousandth, of half of them.
_SEARCHES = (
    ("email", "Customer{one}@{host}", "the e-mail address of one"),
    ("q", "customer{one}@{host}", "the e-mail address of one"),
    ("q", "order-{one}", "the reference of one"),
    ("q", "JOSE {few}", "a name and the beginning of a number"),
    ("q", "{hint}", "a hint"),
    ("q", "customer12", "the beginning of a hundredth"),
    ("q", "nunez zoe", "two names that a fortieth has"),
    ("q", "silva", "a name that a fifth has"),
    ("q", "a", "a letter that begins a word of most"),
    ("q", "nobody-at-all", "nothing"),
    ("find", "customer{one}@{host}", "one, found by its address"),
    ("find", "Zoë Núñez {last}", "one, found by its name"),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.search", description=__doc__)
    parser.add_argument("--licenses", type=int, default=1_000_000, help="how many there are")
    count = parser.parse_args().licenses
    with tempfile.TemporaryDirectory() as folder, PostgresServer(Path(folder) / "server", fsync=False) as server:
        database = Database(server.create_database("search"))
        migrate.upgrade(database)
        print(f"{count} licenses written in {_timed(lambda: _write(database, count)):.0f} s")
        print(f"index filled in {_timed(lambda: migrate.fill_search_index(database, 3_600.0, anew=True)):.0f} s")
        with database.reading() as connection:
            connection.exec_driver_sql("ANALYZE licenses, license_search")
            size = connection.exec_driver_sql("SELECT pg_total_relation_size('license_search')").scalar_one()
        print(f"it takes {size / 1e6:.0f} MB")
        _search(database, Path(folder), count)
        database.close()
    return 0


def _write(database: Database, count: int) -> None:
    from failover.session import Limits

    with database.writing(Limits(0, 0, 0)) as connection:
        for statement in _POLICY:
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql("ALTER TABLE licenses DISABLE TRIGGER license_search_inserted")
        connection.execute(text(_LICENSES), {"count": count})
        connection.exec_driver_sql("ALTER TABLE licenses ENABLE TRIGGER license_search_inserted")


def _search(database: Database, folder: Path, count: int) -> None:
    resources = Resources(database, Node("bench", 1), Clock(), open_shared_state(folder).changes)
    one = count // 3
    last = next(i for i in range(one, one + 40) if i % 8 == 4 and i % 5 == 3)
    hint = resources.page(Kind.LICENSE, {"external_ref": f"order-{one}"})["items"][0]["key_hint"].lower()
    host = ("example.org", "gmail.com", "firma.de")[one % 3]
    for name, pattern, about in _SEARCHES:
        searched = pattern.format(one=one, few=one // 10, host=host, hint=hint, last=last)
        took, found = [], 0
        for _ in range(_ROUNDS):
            began = time.perf_counter()
            found = len(resources.page(Kind.LICENSE, {name: searched})["items"])
            took.append(1000 * (time.perf_counter() - began))
        median, most = statistics.median(took), max(took)
        print(f"{name:<6} {about:<42} {found:>3} found  median {median:7.1f} ms  most {most:7.1f} ms", flush=True)


def _timed(do: Callable[[], object]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began


if __name__ == "__main__":
    raise SystemExit(main())
