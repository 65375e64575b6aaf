"""Two real nodes on one Postgres: who leads when one dies, stops, runs twice, or an admin says so.

What is asserted is recorded history: the failovers and the lease in the ledger, and the modes of the events.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import threading
import time
import uuid
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import text

from api.ledger import tables
from api.ledger.database import Database
from tests.support.cli import Program
from tests.support.cluster import Asking, Json, Member, Site, Watching, plays
from tests.support.nodes import Sold, rows
from tests.support.postgres import PostgresServer
from tests.support.processes import is_running, until

_TIMEOUT_S = 6.0
#: What two noisy cores may add to a takeover before a test calls it late; 2 s are promised.
_NOISE_S = 6.0
_FIRST_S = 4.0
_START_S = 90.0


# -- starting ---------------------------------------------------------------------------------------------------------


def test_of_two_nodes_that_start_in_the_same_second_rank_1_leads_and_both_answer(site: Site) -> None:
    one, two = site.two()
    sold = site.sell()
    for _ in range(5):
        for member, role in ((one, "primary"), (two, "standby")):
            answer = member.validate(sold).json()
            assert (answer["code"], answer["node"]) == ("VALID", {"id": member.id, "role": role, "epoch": 1})
    assert site.modes() == {"normal": 10}
    assert site.failovers() == []
    for member in (one, two):
        stats = until(lambda m=member: s if len((s := m.stats())["nodes"]) == 2 else None, "both beat")  # type: ignore[misc]
        assert (stats["lease"]["holder"], stats["lease"]["epoch"]) == ("node-1", 1)
        assert [(node["id"], node["rank"], node["url"]) for node in stats["nodes"]] == [
            (each.id, each.rank, each.server.url) for each in (one, two)
        ]
        jobs = member.server.get("/readyz").json()["jobs"]
        assert {"beat", "ledger"} <= jobs.keys()
        assert all(job["last_success_s"] is not None for job in jobs.values()), jobs
        assert jobs["beat"]["last_success_s"] < _TIMEOUT_S


def test_where_one_worker_is_ready_none_says_that_it_is_starting(site: Site) -> None:
    for copy in "abc":
        node = site.node(1, copy=copy, WEB_CONCURRENCY="4")
        node.server.wait_until_answers("/readyz", _START_S)
        assert [node.server.get("/readyz").status_code for _ in range(40)] == [200] * 40
        node.server.kill_tree()


# -- the primary dies and comes back ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_primary_is_stood_in_for_and_gets_its_lease_back_with_all_that_happened(site: Site) -> None:
    one, two = site.two()
    sold = site.bought(one, two)
    with Asking(two, sold) as asking:
        until(lambda: asking.told["VALID"] > 5, "answers")
        one.server.kill_tree()
        until(lambda: ("backup", 2) in asking.parts, "the takeover", deadline=60)
    print("told", dict(asking.told), f"the longest answer took {asking.longest:.2f} s")
    assert set(asking.told) == {"VALID"}
    assert asking.parts == [("standby", 1), ("backup", 2)]
    (takeover,) = until(lambda: two.stats()["failovers"], "the takeover in /stats")
    change = {name: takeover[name] for name in ("from", "to", "kind", "epoch")}
    assert change == {"from": "node-1", "to": "node-2", "kind": "takeover", "epoch": 2}
    assert _TIMEOUT_S <= takeover["gap_s"] < _TIMEOUT_S + _NOISE_S
    print("gap_s", takeover["gap_s"])

    plays((two, "backup", 2))
    meanwhile = site.modes()["backup"]  # what came between the lease's end and the takeover
    for _ in range(15):
        assert two.validate(sold).json()["node"] == {"id": "node-2", "role": "backup", "epoch": 2}
    total = meanwhile + 15
    assert site.modes()["backup"] == total
    sync = until(lambda: s if (s := two.stats()["sync"])["total"] == total else None, "all counted")
    assert sync is not None
    assert (sync["pending"], sync["synced"]) == (total, 0)

    again = site.node(1).ready()
    plays((again, "primary", 3), (two, "standby", 3), deadline=60)
    stats = until(lambda: s if len((s := again.stats())["failovers"]) == 2 else None, "the failback in /stats")
    assert stats is not None
    assert {name: stats["sync"][name] for name in sync} == sync | {"pending": 0, "synced": total}
    failback, _ = stats["failovers"]
    assert (failback["from"], failback["to"], failback["kind"]) == ("node-2", "node-1", "failback")
    assert (failback["epoch"], failback["gap_s"]) == (3, 0.0)
    assert again.validate(sold).json()["node"] == {"id": "node-1", "role": "primary", "epoch": 3}
    assert site.modes()["backup"] == total


def test_a_leader_that_is_told_to_end_resigns_and_the_other_leads_at_once(site: Site) -> None:
    one, two = site.two(HEARTBEAT_TIMEOUT=f"{4 * _TIMEOUT_S:g}")
    # In its first seconds a node leaves a free lease to rank 1, as after an outage.
    until(lambda: two.stats()["node"]["uptime_s"] > _FIRST_S, "a node that has settled in")
    with Watching(site.database):
        one.server.signal(signal.SIGTERM)
        plays((two, "backup", 2))
        assert one.server.wait() == 0
    (takeover,) = site.failovers()
    assert takeover["epoch"] == 2
    print("gap_s", takeover["gap_s"])
    assert (takeover["to_node"], takeover["kind"]) == ("node-2", "takeover")
    assert takeover["gap_s"] < 2 * _TIMEOUT_S, "a planned end costs no time-out"


def test_a_killed_supervisor_comes_back_to_its_own_lease(site: Site) -> None:
    one = site.node(1).ready()
    plays((one, "primary", 1))
    sold, (before,) = site.sell(), rows(site.database, tables.lease)
    killed, workers = one.supervisor(), set(one.server.descendants())
    with Watching(site.database) as watching, Asking(one, sold) as asking:
        killed.kill()
        until(lambda: is_renewed(site, before), "renewals by another supervisor", deadline=60)
    assert not is_running(killed)
    assert watching.held == [(1, before["holder"])]
    # Where the next one takes seconds to start, nobody knows for a moment; nobody else leads, and all is answered.
    assert set(asking.parts) <= {("primary", 1), ("standby", 0)}
    plays((one, "primary", 1))
    assert set(asking.told) == {"VALID"}
    assert workers - set(one.server.descendants()) == {killed}
    assert [row["instance"] for row in rows(site.database, tables.heartbeats)] == [before["holder"]]
    assert site.failovers() == []


def is_renewed(site: Site, before: Json) -> bool:
    """Whether `before` has been renewed for longer than it would have lasted."""
    (now,) = rows(site.database, tables.lease)
    return bool(now["expires_at"] > before["expires_at"] + _TIMEOUT_S / 2)


# -- one node twice ---------------------------------------------------------------------------------------------------


def test_of_two_copies_of_one_node_one_leads_and_the_new_one_once_the_old_one_ends(site: Site) -> None:
    old = site.node(1, copy="-old").ready()
    plays((old, "primary", 1))
    sold = site.sell()
    with Watching(site.database) as watching, Asking(old, sold) as of_old:
        new = site.node(1, copy="-new").ready()
        plays((old, "primary", 1), (new, "standby", 1))
        with Asking(new, sold) as of_new:
            until(lambda: len(new.stats()["nodes"]) == 2, "both beat")
            until(lambda: of_old.told["VALID"] > 5 and of_new.told["VALID"] > 5, "answers of both")
            of_old.__exit__()
            old.server.signal(signal.SIGTERM)
            until(lambda: of_new.parts[-1] == ("primary", 2), "the new one leads")
    assert old.server.wait() == 0
    assert of_old.parts == [("primary", 1)]
    assert of_new.parts == [("standby", 1), ("primary", 2)]
    assert set(of_old.told) == set(of_new.told) == {"VALID"}
    assert len({holder for _, holder in watching.held}) == 2
    assert site.failovers() == [], "it is the same node that leads"


# -- an admin decides -------------------------------------------------------------------------------------------------


def test_an_admin_moves_the_lease_by_call_and_by_command(site: Site) -> None:
    one, two = site.two(FAILBACK_DELAY="600", HEARTBEAT_TIMEOUT=f"{4 * _TIMEOUT_S:g}")
    with Watching(site.database):
        assert one.command("switchover", "nobody")[1]["code"] == "RESOURCE_NOT_FOUND"
        until(lambda: len(one.stats()["nodes"]) == 2, "both beat")
        assert one.command("switchover", "node-1")[1]["code"] == "CONFLICT"
        assert one.moves("switchover", "node-2") == {"to": "node-2", "epoch": 2}
        plays((one, "standby", 2), (two, "backup", 2))
        assert two.moves("promote", "node-1") == {"to": "node-1", "epoch": 3}
        plays((one, "primary", 3), (two, "standby", 3))
        cli = Program(one.env)
        assert cli.json("node", "switchover", "node-2") == {"to": "node-2", "epoch": 4}
        plays((one, "standby", 4), (two, "backup", 4))
        assert cli.json("node", "promote", "node-1") == {"to": "node-1", "epoch": 5}
        plays((one, "primary", 5), (two, "standby", 5))
    assert [(row["epoch"], row["to_node"], row["kind"], row["gap_s"]) for row in site.failovers()] == [
        (epoch, f"node-{2 - epoch % 2}", "switchover", 0.0) for epoch in (2, 3, 4, 5)
    ]


# -- the database -----------------------------------------------------------------------------------------------------


def test_a_database_that_stops_is_said_and_the_same_node_goes_on_leading_when_it_is_back(
    server: PostgresServer, tmp_path: Path
) -> None:
    url = server.create_database("shared")
    with contextlib.closing(Site(url, tmp_path)) as site:
        one, two = site.two()
        sold = site.sell()
        (lease,) = rows(site.database, tables.lease)
        server.stop()
        plays((one, "isolated", 1), (two, "isolated", 1))
        for member in (one, two):
            until(lambda m=member: m.stats()["node"]["ledger"] == "unreachable", "its stats say so")  # type: ignore[misc]
            all_workers_say(member, 200, ledger="unreachable", role="isolated")
            assert member.server.get("/livez").status_code == 200
        time.sleep(1.0)  # beyond the margin: the lease is over by the database's clock as well
        server.start()
        plays((one, "primary", 1), (two, "standby", 1))
        for member in (one, two):
            all_workers_say(member, 200, ledger="reachable")
        site.database.close()  # what was open to the stopped server
        assert rows(site.database, tables.lease)[0]["holder"] == lease["holder"]
        assert site.failovers() == []
        assert one.validate(sold).json()["node"] == {"id": "node-1", "role": "primary", "epoch": 1}
        assert site.modes() == {"normal": 1}


def all_workers_say(member: Member, status: int, **fields: str) -> None:
    """Waits until `/readyz` answers so, many times in a row: each worker finds out by itself."""

    def says_so() -> bool:
        said = [member.server.get("/readyz") for _ in range(8)]
        return all(one.status_code == status and one.json() | fields == one.json() for one in said)

    until(says_so, f"{status} {fields}", deadline=60)


_CONNECTIONS = text(
    "SELECT application_name, pid FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
)


def test_a_node_under_load_has_at_most_five_connections_to_the_database(site: Site) -> None:
    one = site.node(1).ready()
    sold, seen, stop = site.sell(), list[Counter[str]](), threading.Event()
    site.database.close()
    own = Database(site.url, pool_size=1)
    clients = [threading.Thread(target=load, args=(one, sold, stop), daemon=True) for _ in range(64)]
    for client in clients:
        client.start()
    end = time.monotonic() + 4.0
    while time.monotonic() < end:
        with own.reading() as connection:
            seen.append(Counter(row.application_name for row in connection.execute(_CONNECTIONS)))
        one.server.get("/readyz")
    stop.set()
    for client in clients:
        client.join(30)
    own.close()
    print("connections by name at most", max(seen, key=Counter.total))
    assert max(map(Counter.total, seen)) <= 5
    assert {name for counted in seen for name in counted} == {"protecao", "failover"}
    assert sum(site.modes().values()) > 64


def load(member: Member, sold: Sold, stop: threading.Event) -> None:
    """Validates on one connection, one after the other."""
    connection = http.client.HTTPConnection("127.0.0.1", member.server.port, timeout=30)
    while not stop.is_set():
        path, body = "/v1/validate", json.dumps({"key": sold.key, "nonce": uuid.uuid4().hex}).encode()
        try:
            connection.request("POST", path, body, member.headers(path, body))
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            connection.close()
    connection.close()
