"""What three real nodes say of themselves on their way through backup mode and isolation, held against the contract."""

from __future__ import annotations

import time

import msgspec
import pytest

from api.ledger import tables
from api.web.openapi.stats_view import StatsView
from tests.support.cluster import WORKERS_AGREE_S, Asking, Json, Member, Site, plays
from tests.support.nodes import Sold, rows
from tests.support.postgres import PostgresServer
from tests.support.processes import until

_PATIENCE_S = 90.0
_EVENTS = 15


def stats(member: Member) -> Json:
    """`/stats` with exactly the members of the contract, each of its type, and consistent in itself."""
    found = member.stats()
    assert msgspec.to_builtins(msgspec.convert(found, StatsView)) == found
    sync = found["sync"]
    if sync["total"] is not None:
        assert sync["total"] == sync["pending"] + sync["synced"] + sync["dead"]
    return found


def synced(member: Member, total: int, pending: int) -> bool:
    sync = stats(member)["sync"]
    return (sync["total"], sync["pending"], sync["synced"]) == (total, pending, total - pending)


def failovers(member: Member, *kinds: str) -> list[Json]:
    """All of them, oldest first, once they are of `kinds`: another worker may still say what was so a second ago."""

    def as_expected() -> list[Json] | None:
        found: list[Json] = stats(member)["failovers"][::-1]
        return found if [each["kind"] for each in found] == list(kinds) else None

    found = until(as_expected, f"{kinds} are told", _PATIENCE_S)
    assert found is not None
    return found


def counted(found: Json) -> Json:
    """The part that only the ledger counts."""
    return {name: found[name] for name in ("licenses", "machines", "failovers")} | {
        "checks": {name: found["checks"][name] for name in ("total", "valid", "denied", "by_code")}
    }


@pytest.mark.slow
def test_backup_mode_step_by_step_and_a_ledger_that_goes_away_are_told_truly_by_every_node(
    server: PostgresServer, own_site: Site
) -> None:
    one, two, three = (own_site.node(rank) for rank in (1, 2, 3))
    for member in (one, two, three):
        member.ready()
    plays((one, "primary", 1), (two, "standby", 1), (three, "standby", 1))
    sold = own_site.bought(two, one, three)
    for member in (one, two, three):
        assert member.validate(sold).json()["node"] == {"id": member.id, "role": member.part[0], "epoch": 1}
        until(lambda m=member: [node["id"] for node in stats(m)["nodes"]] == ["node-1", "node-2", "node-3"], "all beat")  # type: ignore[misc]
        until(lambda m=member: synced(m, 0, 0), "nothing was in backup mode")  # type: ignore[misc]

    one.server.kill_tree()
    plays((two, "backup", 2), (three, "standby", 2), deadline=_PATIENCE_S)
    for number in range(_EVENTS):
        answer = (two, three)[number % 2].validate(sold).json()
        assert answer["node"]["epoch"] == 2
    assert own_site.modes() == {"normal": 3, "backup": _EVENTS}
    for member in (two, three):
        until(lambda m=member: synced(m, _EVENTS, _EVENTS), "15 events, 15 pending")  # type: ignore[misc]
        (takeover,) = failovers(member, "takeover")
        assert (takeover["from"], takeover["to"], takeover["kind"]) == ("node-1", "node-2", "takeover")
        assert takeover["gap_s"] >= 6

    one = own_site.node(1).ready()
    plays((one, "primary", 3), (two, "standby", 3), (three, "standby", 3), deadline=_PATIENCE_S)
    for member in (one, two, three):
        until(lambda m=member: synced(m, _EVENTS, 0), "0 pending, 15 synced")  # type: ignore[misc]
        failback = failovers(member, "takeover", "failback")[1]
        assert (failback["from"], failback["to"], failback["kind"]) == ("node-2", "node-1", "failback")
        assert (failback["epoch"], failback["gap_s"]) == (3, 0.0)
    with Asking(three, sold) as asking:
        assert one.moves("switchover", "node-3")
        plays((one, "primary", 5), (two, "standby", 5), (three, "standby", 5), deadline=_PATIENCE_S)
    assert ("backup", 4) in asking.parts
    for member in (one, two, three):
        failovers(member, "takeover", "failback", "switchover", "failback")

    known = without_the_ledger(server, sold, own_site, (one, two, three))
    server.start()
    own_site.database.close()  # what was open to the stopped server
    until(lambda: one.part[0] == "primary", "rank 1 leads", _PATIENCE_S)
    until(lambda: "isolated" in own_site.modes(), "what was queued is in the log", _PATIENCE_S)
    until(lambda: stats(one)["sync"]["pending"] == 0, "all is synced", _PATIENCE_S)
    assert set(own_site.modes()) == {"normal", "backup", "isolated"}
    until(lambda: stats(one)["checks"]["total"] == own_site.modes().total(), "all is counted", _PATIENCE_S)
    assert stats(one)["checks"]["total"] > known["checks"]["total"]
    not_normal = sum(row["mode"] != "normal" for row in rows(own_site.database, tables.events))
    until(lambda: stats(one)["sync"]["total"] == not_normal, "all of backup mode and isolation", _PATIENCE_S)


def without_the_ledger(server: PostgresServer, sold: Sold, site: Site, members: tuple[Member, ...]) -> Json:
    """What all say while the ledger is away, one that was started without it too; gives what was counted before."""
    checks = site.modes().total()
    known = until(lambda: c if (c := counted(stats(members[0])))["checks"]["total"] == checks else None, "all counted")
    assert known is not None
    until(lambda: all(kept(member, known) for member in members), "what was counted is put by", _PATIENCE_S)
    server.stop()
    members[1].server.kill_tree()
    again = site.node(2)
    for member in (members[0], again, members[2]):
        until(
            lambda m=member: m.server.answers("/readyz") and m.validate(sold).json().get("durability") == "queue",
            "an answer",
            _PATIENCE_S,
        )  # type: ignore[misc]
    for member in (members[0], again, members[2]):
        # One that led is cut off at once, and leads no more when its lease is over.
        until(lambda m=member: m.part[0] == "isolated", "its part", _PATIENCE_S)  # type: ignore[misc]
        time.sleep(WORKERS_AGREE_S)
        found = until(lambda m=member: s if (s := stats(m))["sync"]["queue"]["pending"] else None, "queued")  # type: ignore[misc]
        assert found is not None
        node = found["node"]
        assert (node["role"], node["state"], node["ledger"]) == ("isolated", "ISOLATED", "unreachable")
        assert counted(found) == known
        assert found["node"]["snapshot"]["licenses"] == 1
        assert found["sync"]["pending"] >= found["sync"]["queue"]["pending"]
        until(lambda m=member: stats(m)["lease"]["holder"] is None, "a lease that nobody renews is over", _PATIENCE_S)  # type: ignore[misc]
        assert len(stats(member)["nodes"]) == 3
        assert member.server.get("/readyz").status_code == 200
    return known


def kept(member: Member, known: Json) -> bool:
    file = member.folder / "last-known.json"
    return file.exists() and counted(msgspec.json.decode(file.read_bytes())) == known
