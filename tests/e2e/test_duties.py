"""The leader's duties in real nodes on one Postgres: done by whoever leads, once, and not while pings may be held."""

from __future__ import annotations

import json
import signal
import time
import uuid

import pytest
import requests

from api.ledger import tables
from api.supervisor.duties import counting_since, unsent
from tests.support.cluster import Json, Member, Site, plays
from tests.support.nodes import Sold, rows, sell
from tests.support.processes import until

_HEARTBEAT_S = 2
_PATIENCE_S = 120.0


def call(member: Member, act: str, sold: Sold) -> str:
    """The code of the answer for the license's machine."""
    path, body = f"/v1/{act}", json.dumps({"key": sold.key, "nonce": uuid.uuid4().hex, "fingerprint": "pc"}).encode()
    response = requests.post(member.server.url + path, data=body, headers=member.headers(path, body), timeout=10)
    assert response.status_code == 200, response.text
    return str(response.json()["code"])


def begin_to_ping(member: Member, sold: Sold) -> None:
    assert call(member, "activate", sold) == "VALID"
    assert call(member, "ping", sold) == "VALID"


def said(site: Site, type: str) -> list[Json]:
    return [row for row in rows(site.database, tables.events) if row["type"] == type]


def culled(site: Site, times: int) -> list[Json]:
    """The culls, as soon as there were so many."""
    until(lambda: len(said(site, "machine.culled")) >= times, "a cull", _PATIENCE_S)
    return said(site, "machine.culled")


@pytest.mark.slow
def test_whoever_leads_does_the_duties_and_nothing_is_said_twice(site: Site) -> None:
    one, two = site.two()
    sold = sell(site.database, {"machine_heartbeat_s": _HEARTBEAT_S})
    expired = sell(site.database, expires_at=time.time() - 1)
    begin_to_ping(two, sold)
    (first,) = culled(site, 1)
    assert (first["license_id"], first["node"], first["epoch"], first["mode"]) == (sold.id, "node-1", 1, "normal")
    until(lambda: call(two, "validate", sold) == "NO_MACHINES", "the seat is free on the other node")
    until(lambda: said(site, "license.expired"), "the expiry is said", _PATIENCE_S)

    one.server.signal(signal.SIGTERM)
    plays((two, "backup", 2), deadline=60)
    begin_to_ping(two, sold)
    _, second = culled(site, 2)
    assert (second["license_id"], second["node"], second["epoch"], second["mode"]) == (sold.id, "node-2", 2, "backup")
    told = until(lambda: all_told(site), "the takeover is to be told", _PATIENCE_S)
    assert sorted(told or []) == ["failover.takeover", "license.expired", "machine.culled", "machine.culled"]
    (expiry,) = said(site, "license.expired")
    assert (expiry["license_id"], expiry["node"]) == (expired.id, "node-1")
    until(lambda: rows(site.database, tables.heartbeats, rank=1)[0]["state"] == "STOPPING", "the last beat says so")
    assert two.server.get("/readyz").json()["jobs"]["duties"]["last_success_s"] is not None


def all_told(site: Site) -> list[str] | None:
    with site.database.reading() as connection:
        kinds = [entry.kind for entry in unsent(connection)]
    return kinds if len(kinds) >= 4 else None


@pytest.mark.slow
def test_nobody_is_culled_while_a_killed_node_may_hold_pings(site: Site) -> None:
    one, two = site.two()
    sold = sell(site.database, {"machine_heartbeat_s": _HEARTBEAT_S})
    assert call(one, "activate", sold) == "VALID"
    one.server.kill_tree()
    plays((two, "backup", 2), deadline=60)
    assert call(two, "ping", sold) == "VALID"
    (machine,) = rows(site.database, tables.machines)
    dead_at = machine["heartbeat_at"] + _HEARTBEAT_S
    # The cull looks every 5 s: after two looks it would have come.
    until(lambda: last_trouble(site) > dead_at + 15, "trouble long after its silence", _PATIENCE_S)
    assert said(site, "machine.culled") == []
    assert call(two, "validate", sold) == "VALID"

    trouble_at = last_trouble(site)
    site.node(1).ready()
    (event,) = culled(site, 1)
    assert event["license_id"] == sold.id
    assert event["occurred_at"] > trouble_at + _HEARTBEAT_S


def last_trouble(site: Site) -> float:
    with site.database.reading() as connection:
        return counting_since(connection) or 0.0
