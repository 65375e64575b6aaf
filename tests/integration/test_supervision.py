"""One supervisor per node: the lock that makes it so, what it publishes in every state, and who may move the lease."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from api.admin.token_store import Scope
from api.config.settings import Settings
from api.ids import new_id
from api.ledger import permitted_keys, tables
from api.ledger.database import Database
from api.ledger.migrate import upgrade
from api.node.troubles import Trouble
from api.problems import Problem
from api.signing import KeyStatus, generate
from api.stats.cluster import hand_to
from api.supervisor import NodeState, Published
from api.supervisor.failover_setup import config_of
from api.supervisor.supervise import supervise
from failover import Identity, SqlLeaseStore
from failover.heartbeat import Report, SqlHeartbeatStore
from tests.support.admin import Admin, admin_on
from tests.support.nodes import environment, events_of, rows, running_node, sell, starting_node
from tests.support.processes import free_port, until

#: Quick enough for a test, and slow enough for two noisy cores.
QUICK = {"HEARTBEAT_INTERVAL": "0.5", "HEARTBEAT_TIMEOUT": "6"}


@pytest.fixture
def database(ledger_url: str) -> Iterator[Database]:
    with contextlib.closing(Database(ledger_url)) as database:
        yield database


def settings_of(url: str, folder: Path, **more: str) -> Settings:
    return Settings.from_env(environment(url, folder, **{**QUICK, **more}))


@contextlib.contextmanager
def supervised(settings: Settings, instance: str | None = None) -> Iterator[str]:
    """A supervisor on a thread of this process; gives its instance."""
    instance, stop = instance or new_id(), threading.Event()
    thread = threading.Thread(target=supervise, args=(settings, instance, stop))
    thread.start()
    try:
        yield instance
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


def said(folder: Path) -> NodeState | None:
    return Published(folder).read()


def says(folder: Path, **fields: object) -> NodeState:
    """What is published in `folder`, as soon as it has all these fields."""

    def as_expected() -> NodeState | None:
        state = said(folder)
        return state if state and all(getattr(state, name) == value for name, value in fields.items()) else None

    state = until(as_expected, f"{fields}", deadline=60)
    assert state is not None
    return state


def lease(database: Database) -> dict[str, Any]:
    (row,) = rows(database, tables.lease)
    return row


# -- what it publishes ------------------------------------------------------------------------------------------------


def test_a_node_alone_leads_and_says_when_each_of_its_jobs_last_succeeded(
    ledger_url: str, database: Database, tmp_path: Path
) -> None:
    with supervised(settings_of(ledger_url, tmp_path)) as instance:
        state = says(tmp_path, role="primary")
        assert (state.instance, state.epoch, state.lease_rank, state.ledger_reachable) == (instance, 1, 1, True)
        assert (state.state, state.mode) == ("LEADING", "normal")
        until(lambda: (s := said(tmp_path)) and s.jobs and None not in s.jobs.values(), "every job has succeeded")
        assert {"beat", "forget"} <= (said(tmp_path) or state).jobs.keys()
        (beat,) = rows(database, tables.heartbeats)
        assert (beat["instance"], beat["rank"]) == (instance, 1)
    assert says(tmp_path, role="standby").state == "STOPPING"
    assert lease(database)["expires_at"] < lease(database)["acquired_at"], "it has resigned"


def test_another_rank_leads_in_backup_mode(ledger_url: str, tmp_path: Path) -> None:
    with supervised(settings_of(ledger_url, tmp_path, NODE_ID="n2", NODE_RANK="2")):
        state = says(tmp_path, role="backup")
        assert (state.epoch, state.lease_rank, state.mode) == (1, 2, "backup")


def test_a_supervisor_that_is_started_again_finds_its_own_lease(
    ledger_url: str, database: Database, tmp_path: Path
) -> None:
    instance = new_id()
    settings = settings_of(ledger_url, tmp_path)
    assert SqlLeaseStore(database).acquire(Identity(instance, settings.node_id, 1), 60.0) == 1
    with supervised(settings, instance):
        assert says(tmp_path, role="primary").epoch == 1
        assert lease(database)["holder"] == instance
    assert rows(database, tables.failovers) == []


def test_an_epoch_that_this_node_has_seen_is_not_used_again_by_a_ledger_that_is_older(
    ledger_url: str, database: Database, tmp_path: Path
) -> None:
    settings = settings_of(ledger_url, tmp_path)
    for epoch in (1, 2):
        with supervised(settings):
            says(tmp_path, role="primary", epoch=epoch)
    with database.writing() as connection:
        connection.execute(tables.lease.update().values(epoch=1))
    with supervised(settings):
        assert says(tmp_path, role="primary").epoch == 3
    assert lease(database)["epoch"] == 3


def test_an_epoch_of_another_ledger_is_nothing_to_this_one(ledger_url: str, tmp_path: Path) -> None:
    published = Published(tmp_path)
    elsewhere = {"at": 0.0, "instance": "i", "role": "primary", "state": "LEADING", "lease_rank": 1}
    published.write(NodeState(**elsewhere, epoch=70, ledger_reachable=True, source="another"))
    with supervised(settings_of(ledger_url, tmp_path)):
        assert says(tmp_path, role="primary").epoch == 1


def test_a_ledger_that_is_away_from_the_start_makes_the_node_isolated(tmp_path: Path) -> None:
    settings = settings_of(f"postgresql://postgres@127.0.0.1:{free_port()}/none", tmp_path)
    with supervised(settings):
        state = says(tmp_path, role="isolated")
        assert (state.state, state.epoch, state.lease_rank, state.ledger_reachable) == ("ISOLATED", 0, None, False)


def test_a_queue_that_the_workers_are_looking_over_is_waited_for(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("failover.queue._LOCK_TIMEOUT_S", 0.1)
    upgrade(Database(sqlite_url))
    settings = settings_of(sqlite_url, tmp_path)
    with FileLock(f"{settings.queue_path}.lock") as looked_over, supervised(settings):
        until(lambda: "looked over by others" in caplog.text, "it has found the queue taken")
        assert said(tmp_path) is None
        looked_over.release()
        assert says(tmp_path, role="primary").troubles == ()


def test_a_database_without_tables_is_waited_for(empty_postgres_url: str, tmp_path: Path) -> None:
    with supervised(settings_of(empty_postgres_url, tmp_path)):
        assert said(tmp_path) is None
        with contextlib.closing(Database(empty_postgres_url)) as database:
            upgrade(database)
        assert says(tmp_path, role="primary").epoch == 1


# -- the only one -----------------------------------------------------------------------------------------------------


def test_a_second_supervisor_of_a_node_waits_and_takes_over_when_the_first_ends(
    ledger_url: str, database: Database, tmp_path: Path
) -> None:
    settings = settings_of(ledger_url, tmp_path)
    with contextlib.ExitStack() as first:
        one = first.enter_context(supervised(settings))
        says(tmp_path, role="primary", instance=one)
        with supervised(settings) as two:
            until(lambda: beats_on(database, one), "a few beats of the first")
            assert [row["instance"] for row in rows(database, tables.heartbeats)] == [one]
            first.close()
            assert says(tmp_path, role="primary", instance=two).epoch == 2
            assert lease(database)["holder"] == two


def beats_on(database: Database, instance: str) -> bool:
    """Whether `instance` has been beating for as long as another would need to be seen."""
    (beat,) = rows(database, tables.heartbeats, instance=instance)
    return bool(beat["beat_at"] > beat["started_at"] + 2.0)


def test_one_that_waits_for_the_lock_ends_when_it_is_told_to(sqlite_url: str, tmp_path: Path) -> None:
    with FileLock(tmp_path / "supervisor.lock"):
        with supervised(settings_of(sqlite_url, tmp_path)):
            pass
        assert said(tmp_path) is None


def test_under_any_server_one_worker_supervises_and_all_say_the_same(
    ledger_url: str, database: Database, tmp_path: Path
) -> None:
    sold = sell(database)
    with running_node(ledger_url, tmp_path, **QUICK) as one, running_node(ledger_url, tmp_path, **QUICK) as two:
        until(lambda: {node.runtime.node.role for node in (one, two)} == {"primary"}, "both say primary")
        until(lambda: rows(database, tables.heartbeats), "it beats")
        for node in (one, two):
            told = node.call("validate", sold.key).body["node"]
            assert (told["role"], told["epoch"]) == ("primary", 1)
        assert len(rows(database, tables.heartbeats)) == 1
        assert one.runtime.node.instance == two.runtime.node.instance == lease(database)["holder"]
        first, second = (one, two) if one.runtime.supervises else (two, one)
        assert not second.runtime.supervises
        first.runtime.leave()
        until(lambda: second.runtime.supervises, "the other goes on", deadline=60)
        before = lease(database)["expires_at"]
        until(lambda: lease(database)["expires_at"] > before, "it renews", deadline=60)
        assert (lease(database)["epoch"], second.runtime.node.epoch) == (1, 1)
        assert second.call("validate", sold.key).body["node"]["role"] == "primary"
    assert {event["mode"] for event in events_of(database, sold)} == {"normal"}


def test_a_worker_whose_supervisor_is_silent_serves_after_a_while(ledger_url: str, tmp_path: Path) -> None:
    with FileLock(tmp_path / "supervisor.lock"), starting_node(ledger_url, tmp_path, **QUICK) as node:
        node.ready()
        assert (node.runtime.node.role, node.runtime.node.epoch) == ("standby", 0)


# -- an admin decides -------------------------------------------------------------------------------------------------

ELSEWHERE = Identity("instance-elsewhere", "elsewhere", 2)


@pytest.fixture
def admin(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Admin]:
    """Of a node `here` that leads, and does not take back a lease that is moved while a test looks at it."""
    slow = {"FAILBACK_DELAY": "600", "HEARTBEAT_TIMEOUT": "60"}
    with admin_on("postgres", request, tmp_path, NODE_ID="here", **slow) as admin:
        until(lambda: admin.node.runtime.node.role == "primary", "it leads")
        until(lambda: rows(admin.node.database, tables.heartbeats), "it beats")
        yield admin


def beat_elsewhere(admin: Admin, ago: float = 0.0) -> None:
    SqlHeartbeatStore(admin.node.database).write(ELSEWHERE, Report(role="standby", state="STANDBY"))
    with admin.node.database.writing() as connection:
        mine = tables.heartbeats.c.instance == ELSEWHERE.instance
        aged = {"beat_at": tables.heartbeats.c.beat_at - ago}
        connection.execute(tables.heartbeats.update().where(mine).values(aged))


@pytest.mark.parametrize("action", ["switchover", "promote"])
def test_a_call_that_cannot_move_the_lease_says_why_and_moves_nothing(admin: Admin, action: str) -> None:
    beat_elsewhere(admin, ago=600)
    for node, status, code in (
        ("nobody", 404, "RESOURCE_NOT_FOUND"),
        ("elsewhere", 409, "CONFLICT"),
        ("here", 409, "CONFLICT"),
    ):
        problem = admin.problem("POST", f"/nodes/actions/{action}", {"to": node})
        assert (problem["status"], problem["code"]) == (status, code)
        assert node in problem["detail"]
    scopes = [scope for scope in Scope if scope is not Scope.NODES_WRITE]
    made = admin.resources.create_token("no nodes", scopes)
    refused = Admin(admin.node, made["token"]).problem("POST", f"/nodes/actions/{action}", {"to": "elsewhere"})
    assert (refused["status"], refused["code"], refused["scope"]) == (403, "SCOPE_MISSING", "nodes:write")
    assert (lease(admin.node.database)["node"], lease(admin.node.database)["epoch"]) == ("here", 1)
    assert rows(admin.node.database, tables.failovers) == []


@pytest.mark.parametrize("action", ["switchover", "promote"])
def test_a_leader_whose_lease_is_moved_stands_by(admin: Admin, action: str) -> None:
    beat_elsewhere(admin)
    assert admin.ok("POST", f"/nodes/actions/{action}", {"to": "elsewhere"}) == {"to": "elsewhere", "epoch": 2}
    node = admin.node.runtime.node
    until(lambda: (node.role, node.epoch, node.mode) == ("standby", 2, "backup"), "it stands by")
    assert lease(admin.node.database)["holder"] == ELSEWHERE.instance
    (failover,) = rows(admin.node.database, tables.failovers)
    assert (failover["from_node"], failover["to_node"], failover["kind"]) == ("here", "elsewhere", "switchover")


def test_a_node_that_may_not_sign_has_no_part_in_who_leads_until_it_may(
    ledger_url: str, database: Database, tmp_path: Path
) -> None:
    current, next = generate(), generate()
    permitted_keys.found(database, [current, next], 0.0)
    quick = {"FAILBACK_DELAY": "1"}
    one = settings_of(ledger_url, tmp_path / "1", NODE_ID="n1", SIGNING_KEY=next.pem(), **quick)
    two = settings_of(ledger_url, tmp_path / "2", NODE_ID="n2", NODE_RANK="2", SIGNING_KEY=current.pem(), **quick)
    with supervised(one):
        assert says(tmp_path / "1", state="STARTING").role == "standby"
        with supervised(two):
            assert says(tmp_path / "2", role="backup").epoch == 1
            until(lambda: beaten_for(database, "n1") > 4, "it beats longer than a failback takes")
            with pytest.raises(Problem, match="n1 is STARTING"):
                hand_to(database, "n1", 6.0, promote=True)
            assert (lease(database)["node"], rows(database, tables.failovers)) == ("n2", [])
            with database.writing() as connection:
                permitted_keys.write(connection, current.kid, KeyStatus.PREVIOUS, 1.0)
                permitted_keys.write(connection, next.kid, KeyStatus.CURRENT, 1.0)
            assert says(tmp_path / "1", role="primary").epoch == 2
            assert says(tmp_path / "2", state="STARTING").role == "standby"
        with pytest.raises(Problem, match="n2 is STOPPING"):
            hand_to(database, "n2", 6.0, promote=True)


def test_secrets_that_differ_between_nodes_are_a_trouble_on_each_of_them(ledger_url: str, tmp_path: Path) -> None:
    """A node of the release before says nothing of its secrets, and is left out."""
    one = settings_of(ledger_url, tmp_path / "1", NODE_ID="n1")
    two = settings_of(ledger_url, tmp_path / "2", NODE_ID="n2", NODE_RANK="2", SHARED_SECRET="another-of-the-two")
    trouble = Trouble.SETTING_DIFFERS(setting="SHARED_SECRET", values="n1 has one, n2 has another")
    with contextlib.closing(Database(ledger_url)) as database:
        old = Report(role="standby", state="STANDBY")
        SqlHeartbeatStore(database).write(Identity.new("old", 3), old)
    with supervised(one):
        with supervised(two):
            for folder in (one.data_dir, two.data_dir):
                until(lambda folder=folder: trouble in _troubles(folder), f"{folder.name} tells of it", 60)
        until(lambda: trouble not in _troubles(one.data_dir), "it is over with the node that differed", 60)


def _troubles(folder: Path) -> tuple[str, ...]:
    state = said(folder)
    return () if state is None else state.troubles


def beaten_for(database: Database, node: str) -> float:
    """For how long, in seconds."""
    return max((row["beat_at"] - row["started_at"] for row in rows(database, tables.heartbeats, node=node)), default=0)


# -- what the settings give -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "timeout"), [("1.5", "6"), ("0.05", "1.5"), ("0.15", "0.55"), ("2", "6"), ("1", "3"), ("60", "3600")]
)
def test_every_beat_that_the_settings_take_is_one_that_failover_takes(
    tmp_path: Path, interval: str, timeout: str
) -> None:
    env = {"DATA_DIR": str(tmp_path), "HEARTBEAT_INTERVAL": interval, "HEARTBEAT_TIMEOUT": timeout}
    config = config_of(Settings.from_env(env))
    assert (config.heartbeat_interval, config.heartbeat_timeout) == (float(interval), float(timeout))
    assert config.failback_delay == 30.0
