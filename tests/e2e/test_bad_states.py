"""States that nobody wants, in real nodes: each is said clearly, and survived."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from sqlalchemy import delete

from api.ledger import tables
from tests.chaos.cluster.machine import SmallDisk, WallClock, clock_library
from tests.chaos.cluster.pooler import PgBouncer
from tests.support.cluster import Asking, Json, Member, Site, Watching, plays
from tests.support.nodes import Sold, change_license, rows
from tests.support.postgres import PostgresServer
from tests.support.processes import until

_HOUR_S = 3600.0
#: Longer than workers believe a supervisor that says nothing.
_LONG_S = 7.0
_PATIENCE_S = 90.0


def missing(what: str) -> None:
    """Skips the test, loudly; in CI that is a failure."""
    if os.environ.get("CI"):
        raise AssertionError(f"{what}: CI has all that is needed")
    pytest.skip(what)


def readiness(member: Member) -> Json:
    return dict(member.server.get("/readyz").json())


def has_trouble(member: Member, words: str) -> bool:
    return any(words in trouble for trouble in readiness(member)["troubles"])


def say(members: tuple[Member, ...], words: str) -> None:
    """Waits until all of them say so, on /readyz and in their logs."""
    for member in members:
        until(lambda m=member: has_trouble(m, words), f"{member.id} says: {words}", _PATIENCE_S)  # type: ignore[misc]
        until(lambda m=member: words in m.server.output(), f"{member.id} logs: {words}", _PATIENCE_S)  # type: ignore[misc]


def say_no_more(members: tuple[Member, ...], words: str) -> None:
    for member in members:
        until(lambda m=member: not has_trouble(m, words), f"{member.id} says no more: {words}", _PATIENCE_S)  # type: ignore[misc]


def told(member: Member, sold: Sold, act: str = "validate", **fields: str) -> tuple[int, str, str | None]:
    """Status, code and durability of one answer."""
    path, body = f"/v1/{act}", json.dumps({"key": sold.key, "nonce": uuid.uuid4().hex, **fields}).encode()
    response = requests.post(member.server.url + path, data=body, headers=member.headers(path, body), timeout=15)
    answer = response.json()
    return response.status_code, answer["code"], answer.get("durability")


FROM_THE_LEDGER, QUEUED = (200, "VALID", "ledger"), (200, "VALID", "queue")
AWAY = (503, "LEDGER_UNAVAILABLE", None)


# -- who and when -----------------------------------------------------------------------------------------------------


def of_rank_one(member: Member) -> set[str]:
    return {node["id"] for node in member.stats()["nodes"] if node["rank"] == 1}


def test_two_nodes_of_one_rank_are_said_loudly_by_both_and_one_of_them_leads(own_site: Site) -> None:
    one = own_site.node(1).ready()
    plays((one, "primary", 1))
    sold = own_site.sell()
    with Watching(own_site.database) as watching:
        twin = own_site.node(1, copy="-twin", NODE_ID="twin").ready()
        say((one, twin), "node-1 and twin all say that they have rank 1")
        until(lambda: of_rank_one(one) == {"node-1", "twin"}, "/stats, which is counted now and then, shows both")
        plays((one, "primary", 1), (twin, "standby", 1))
        assert told(one, sold) == told(twin, sold) == FROM_THE_LEDGER
        twin.server.kill_tree()
        say_no_more((one,), "have rank 1")
    assert len(watching.held) == 1, "the one that led goes on"


def test_one_node_on_two_hosts_is_said_loudly_by_both_once_it_outlasts_a_deploy(own_site: Site) -> None:
    one = own_site.node(1).ready()
    plays((one, "primary", 1))
    sold = own_site.sell()
    with Watching(own_site.database) as watching:
        twin = own_site.node(1, copy="-twin").ready()
        assert not has_trouble(one, "node-1"), "a deploy looks like this too, and ends"
        say((one, twin), "2 processes say that they are node node-1")
        assert sorted(member.part for member in (one, twin)) == [("primary", 1), ("standby", 1)]
        assert told(one, sold) == told(twin, sold) == FROM_THE_LEDGER
        twin.server.kill_tree()
        say_no_more((one,), "node-1")
    assert len(watching.held) == 1, "the one that led goes on"


@pytest.mark.parametrize("name", ["node-2", "node-1"])
def test_a_second_server_in_ones_data_dir_answers_and_says_so_and_calls_itself_nothing_that_it_is_not(
    own_site: Site, name: str
) -> None:
    one = own_site.node(1).ready()
    plays((one, "primary", 1))
    sold = own_site.bought(one)
    second = own_site.node(2, DATA_DIR=str(one.folder), NODE_ID=name).ready()
    assert told(second, sold) == FROM_THE_LEDGER
    for _ in range(40):
        assert (second.part[0], readiness(second)["state"]) == ("standby", "STARTING")
        answer = second.validate(sold).json()
        assert (answer["code"], answer["node"]["role"]) == ("VALID", "standby")
    assert one.part == ("primary", 1)
    say((second,), "another node's process (node-1) has this node's DATA_DIR")
    assert readiness(one)["troubles"] == []
    one.server.kill_tree()
    plays((second, "backup", 2))
    say_no_more((second,), "DATA_DIR")
    assert told(second, sold) == FROM_THE_LEDGER


@pytest.mark.parametrize("skew", [3_700, -3_700])
def test_a_clock_an_hour_off_is_said_and_gives_right_answers(own_site: Site, tmp_path: Path, skew: int) -> None:
    library = clock_library(tmp_path)
    if library is None:
        missing("THERE IS NO C COMPILER: no clock can be set")
    assert library is not None
    (tmp_path / "clock").mkdir()
    clock = WallClock(tmp_path / "clock", library)
    clock.shift(skew)
    right, wrong = own_site.node(1), own_site.node(2, **clock.env)
    right.ready(), wrong.ready()
    plays((right, "primary", 1), (wrong, "standby", 1))
    running, over = own_site.sell(), own_site.sell()
    now = time.time()
    change_license(own_site.database, running, expires_at=now + _HOUR_S / 2)
    change_license(own_site.database, over, expires_at=now - _HOUR_S / 2)
    say((wrong,), "s ahead of the ledger's" if skew > 0 else "s behind the ledger's")
    assert abs(readiness(wrong)["wall_clock_skew_s"] - skew) < 60
    assert abs(readiness(right)["wall_clock_skew_s"]) < 60
    assert readiness(right)["troubles"] == []
    for member in (right, wrong):
        answer = member.validate(running).json()
        assert answer["code"] == "VALID"
        assert abs(answer["ts"] - time.time()) < 60
        assert abs(answer["as_of"] - time.time()) < 60
        assert member.validate(over).json()["code"] == "EXPIRED"
    recorded = [row for row in rows(own_site.database, tables.events) if row["node"] == "node-2"]
    assert all(abs(row["occurred_at"] - row["recorded_at"]) < 60 for row in recorded)
    clock.shift(0)
    say_no_more((wrong,), "wall clock")
    plays((right, "primary", 1), (wrong, "standby", 1))
    assert wrong.validate(running).json()["code"] == "VALID"


def test_a_heartbeat_table_that_someone_empties_is_filled_again_and_moves_nothing(own_site: Site) -> None:
    one, two = own_site.two()
    sold = own_site.bought(one, two)
    (before,) = rows(own_site.database, tables.lease)
    with Watching(own_site.database) as watching, Asking(one, sold) as asking, Asking(two, sold) as asking_two:
        for _ in range(3):
            with own_site.database.writing() as connection:
                connection.execute(delete(tables.heartbeats))
            until(lambda: len(rows(own_site.database, tables.heartbeats)) == 2, "both beat again")
        time.sleep(_LONG_S)  # a takeover would have come
    assert watching.held == [(1, before["holder"])]
    assert set(asking.told) == set(asking_two.told) == {"VALID"}
    assert {node["id"] for node in two.stats()["nodes"]} == {"node-1", "node-2"}
    assert own_site.failovers() == []


# -- a disk that takes nothing ----------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    if not SmallDisk.can_be_made():
        missing("NO SMALL DISK CAN BE MADE: only root may")
    disk = SmallDisk(tmp_path / "disk")
    yield disk
    disk.close()


def on(disk: SmallDisk, site: Site, rank: int = 1) -> Member:
    """A node with its files on `disk`."""
    return site.node(rank, DATA_DIR=str(disk.folder / "data"))


@pytest.mark.slow
def test_a_disk_that_fills_up_costs_the_copy_and_the_queue_and_no_answer_of_the_ledger(
    server: PostgresServer, own_site: Site, disk: SmallDisk
) -> None:
    one = on(disk, own_site).ready()
    plays((one, "primary", 1))
    sold = own_site.bought(one)
    workers = set(one.server.descendants())
    disk.fill()
    until(lambda: stops_following(one, own_site), "a copy that cannot follow", _PATIENCE_S)
    say((one,), "copy of the ledger cannot be written")
    until(lambda: readiness(one)["snapshot_age_s"] > _LONG_S, "an old copy")
    assert told(one, sold, "activate", fingerprint="pc") == FROM_THE_LEDGER
    assert told(one, sold, fingerprint="pc") == FROM_THE_LEDGER
    assert one.part == ("primary", 1), "what workers say of the node is still true"
    assert one.stats()["node"]["state"] == "LEADING"

    server.stop()
    until(lambda: told(one, sold) == AWAY, "neither takes anything")
    assert readiness(one)["ledger"] == "unreachable"
    server.start()
    until(lambda: told(one, sold) == FROM_THE_LEDGER, "back at its ledger, the disk still full", _PATIENCE_S)
    assert set(one.server.descendants()) == workers, "nobody died of it"

    disk.empty()
    say_no_more((one,), "copy of the ledger")
    until(lambda: readiness(one)["snapshot_age_s"] < 2, "a copy that follows")
    server.stop()
    until(lambda: told(one, sold, fingerprint="pc") == QUEUED, "the queue takes it")
    server.start()
    until(lambda: told(one, sold) == FROM_THE_LEDGER, "back at its ledger", _PATIENCE_S)


def stops_following(member: Member, site: Site) -> bool:
    """Whether its copy cannot take what comes in, once more of it has come."""
    assert told(member, site.sell(), "activate", fingerprint="pc")[:2] == (200, "VALID")
    return has_trouble(member, "copy of the ledger")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["full", "read only"])
def test_a_node_that_starts_on_a_disk_that_takes_nothing_answers_from_the_ledger_and_leads_once_it_can(
    server: PostgresServer, own_site: Site, disk: SmallDisk, how: str
) -> None:
    spoil: Callable[[], None] = disk.fill if how == "full" else lambda: disk.read_only(True)
    mend: Callable[[], None] = disk.empty if how == "full" else lambda: disk.read_only(False)
    (disk.folder / "data").mkdir()
    spoil()
    one, two = on(disk, own_site), own_site.node(2)
    one.ready(), two.ready()
    sold = own_site.bought(two)
    assert told(one, sold) == told(two, sold) == FROM_THE_LEDGER
    assert has_trouble(one, "DATA_DIR takes nothing")
    until(lambda: "this node's disk takes nothing" in one.server.output(), "its log says so")
    plays((two, "backup", 1), deadline=60)
    assert [node["id"] for node in two.stats()["nodes"]] == ["node-2"], "it has no part in who leads"
    server.stop()
    until(lambda: told(one, sold) == AWAY, "it has nothing but the ledger")
    until(lambda: told(two, sold) == QUEUED, "the other goes on")
    server.start()
    until(lambda: told(one, sold) == FROM_THE_LEDGER, "the ledger is back", _PATIENCE_S)
    mend()
    plays((one, "primary", 2), (two, "standby", 2), deadline=_PATIENCE_S)
    assert told(one, sold) == FROM_THE_LEDGER
    say_no_more((one,), "DATA_DIR")
    server.stop()
    until(lambda: told(one, sold) == QUEUED, "its workers have a copy and a queue by now, and need no restart")
    server.start()
    until(lambda: told(one, sold) == FROM_THE_LEDGER, "back at its ledger", _PATIENCE_S)


# -- the ledger -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_behind_a_pooler_in_transaction_mode_all_goes_as_without(server: PostgresServer, tmp_path: Path) -> None:
    if not PgBouncer.is_installed():
        missing("PGBOUNCER IS MISSING")
    url, pooler = server.create_database("shared"), PgBouncer(server, tmp_path / "pooler").start()
    pooled = url.replace(f":{server.port}/", f":{pooler.port}/")
    assert pooled != url
    with contextlib.closing(Site(pooled, tmp_path)) as site:
        try:
            one, two = site.two()
            sold = site.bought(one, two)
            for act in ("activate", "ping", "validate", "usage", "deactivate"):
                assert told(one, sold, act, **({} if act == "usage" else {"fingerprint": "pc"})) == FROM_THE_LEDGER
            with Watching(site.database):
                assert one.moves("switchover", "node-2")
                plays((one, "standby", 2), (two, "backup", 2))
                plays((one, "primary", 3), (two, "standby", 3), deadline=60)
                one.server.kill_tree()
                plays((two, "backup", 4), deadline=60)
            assert [row["kind"] for row in site.failovers()] == ["switchover", "failback", "takeover"]
            pooler.kill()
            until(lambda: told(two, sold) == QUEUED, "the pooler is gone")
            pooler.start()
            until(lambda: told(two, sold) == FROM_THE_LEDGER, "and back", _PATIENCE_S)
            until(lambda: two.stats()["sync"]["queue"]["pending"] == 0, "all replayed", _PATIENCE_S)
        finally:
            pooler.kill()


@pytest.mark.slow
def test_a_ledger_restored_from_yesterdays_backup_is_copied_anew_and_no_epoch_is_used_again(
    server: PostgresServer, own_site: Site, tmp_path: Path
) -> None:
    one, two = own_site.two(FAILBACK_DELAY="600")
    old = own_site.bought(one, two)
    assert told(one, old, "activate", fingerprint="yesterday") == FROM_THE_LEDGER
    server.stop()
    shutil.copytree(server.data, tmp_path / "backup")
    _keep_owner(server.data, tmp_path / "backup")
    server.start()
    own_site.database.close()  # what was open to the stopped server
    plays((one, "primary", 1), (two, "standby", 1), deadline=60)
    until(lambda: told(one, old) == FROM_THE_LEDGER, "the ledger is back")

    new = own_site.bought(one, two)
    with Watching(own_site.database) as today:
        for epoch, member, other in ((2, two, one), (3, one, two)):
            assert other.moves("switchover", member.id)
            # That it leads again says nothing: it may not have noticed yet that another did.
            until(lambda m=member, e=epoch: m.part[1] == e, "it leads, and knows the epoch")  # type: ignore[misc]
        assert told(one, new, "activate", fingerprint="today") == FROM_THE_LEDGER
        for member in (one, two):
            until(lambda m=member: m.stats()["node"]["snapshot"]["licenses"] == 2, "its copy has both")  # type: ignore[misc]
    used = {1} | {epoch for epoch, _ in today.held}
    assert used == {1, 2, 3}

    server.stop()
    until(lambda: told(two, old, fingerprint="yesterday") == QUEUED, "an answer without the ledger")
    shutil.rmtree(server.data)
    shutil.copytree(tmp_path / "backup", server.data)
    _keep_owner(tmp_path / "backup", server.data)
    server.start()
    own_site.database.close()
    assert used.isdisjoint(row["epoch"] for row in own_site.failovers()), "today's are not in it"
    until(lambda: rows(own_site.database, tables.lease)[0]["epoch"] > max(used), "a new epoch", _PATIENCE_S)
    for member in (one, two):
        until(lambda m=member: m.stats()["node"]["snapshot"]["licenses"] == 1, "copied anew", _PATIENCE_S)  # type: ignore[misc]
        until(lambda m=member: told(m, old, fingerprint="yesterday") == FROM_THE_LEDGER, "an answer", _PATIENCE_S)  # type: ignore[misc]
        assert told(member, new)[:2] == (200, "NOT_FOUND")
    (lease,) = rows(own_site.database, tables.lease)
    assert lease["epoch"] not in used
    assert told(two, old, "activate", fingerprint="after") == FROM_THE_LEDGER
    until(
        lambda: own_site.modes()["isolated"] > 0,
        "what was queued before goes to it: it is the same ledger",
        _PATIENCE_S,
    )


def _keep_owner(source: Path, copy: Path) -> None:
    """Postgres starts on files of its own user only."""
    owner = source.stat()
    for path in (copy, *copy.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
