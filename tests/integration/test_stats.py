"""`/stats` and `/metrics`: the contract's shape, numbers of the ledger, and honesty where it is away."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import insert, text

from api.ledger import tables
from api.ledger.database import Database
from api.ledger.errors import LedgerBusy, LedgerSlow, LedgerUnavailable, NoConnection
from api.ledger.log import brief_reading
from api.stats import cluster
from api.stats.counts import count, settle
from api.stats.last_known import UNKNOWN, Counts, aged, last_known_counts, save_last_known
from api.stats.nodes import nodes
from api.stats.report import Stats
from api.web.openapi.stats_view import StatsView
from tests.support.admin import Admin, admin_on
from tests.support.leading import add_events, beat
from tests.support.nodes import Sold, change_machine, ledger_of, node_on, opened_ledger, sell, starting_node
from tests.support.processes import free_port, until

DAY = 86_400.0
NOW = 1_800_000_000.0

#: Section 4 of the contract; `...` is a number, a text or null.
SHAPE: dict[str, Any] = {
    "node": {
        **dict.fromkeys(("id", "rank", "role", "state", "epoch", "uptime_s", "disk", "ledger"), ...),
        "snapshot": dict.fromkeys(("seq", "lag_s", "licenses"), ...),
    },
    "lease": dict.fromkeys(("holder", "epoch", "expires_in_s", "acquired_at"), ...),
    "nodes": [],
    "sync": {
        **dict.fromkeys(("total", "pending", "synced", "dead", "conflicts"), ...),
        "queue": dict.fromkeys(("pending", "bytes", "oldest_s"), ...),
    },
    "licenses": dict.fromkeys(("total", "active", "suspended", "banned", "expired", "expiring_7d"), ...),
    "machines": dict.fromkeys(("total", "alive"), ...),
    "checks": {
        **dict.fromkeys(("total", "valid", "denied", "last_hour"), ...),
        "by_code": {},
        "per_minute": [],
    },
    "failovers": [],
}


@pytest.fixture(params=["sqlite", "postgres"])
def admin(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Admin]:
    with admin_on(request.param, request, tmp_path) as admin:
        yield admin


@pytest.fixture
def database(ledger_url: str) -> Iterator[Database]:
    with opened_ledger(ledger_url) as ledger:
        yield ledger.database


def _get(admin: Admin, path: str = "/stats") -> Any:
    return admin.node.http.get(path, headers={"Authorization": f"Bearer {admin.token}"})


def _stats(admin: Admin) -> dict[str, Any]:
    return _documented(json.loads(_get(admin).data))


def _fresh(admin: Admin, ready: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first stats that are `ready`: they are counted once a second."""
    return until(lambda: found if ready(found := _stats(admin)) else None, "stats that are ready") or {}


def _leads(stats: dict[str, Any]) -> bool:
    """Whether the supervisor has said so, a moment after its lease was in the ledger, and both are in the counts."""
    return stats["node"]["epoch"] == stats["lease"]["epoch"] == 1 and stats["node"]["state"] == "LEADING"


def _documented(stats: dict[str, Any]) -> dict[str, Any]:
    """`stats`, which are as the OpenAPI document says: no member too many or too few, each of its type."""
    assert msgspec.to_builtins(msgspec.convert(stats, StatsView)) == stats
    return stats


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _shape(inner) for name, inner in value.items()}
    return [] if isinstance(value, list) else ...


def _counted(database: Database, now: float) -> Any:
    with database.reading() as connection:
        return count(connection, now, settle(connection, now))


# -- the calls --------------------------------------------------------------------------------------------------------


def test_the_shape_is_the_contracts_with_the_ledger_and_without(admin: Admin, tmp_path: Path) -> None:
    assert _shape(_stats(admin)) == SHAPE
    away = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    with starting_node(away, tmp_path / "away") as node:
        found = _stats(Admin(node))
    assert _shape(found) == SHAPE
    assert found["node"]["ledger"] == "unreachable"
    assert found["node"]["state"] == "STARTING"
    assert found["licenses"]["total"] is None
    assert found["checks"]["total"] is None


def test_the_numbers_are_those_of_what_was_done(admin: Admin) -> None:
    sold = sell(admin.node.database, {"max_machines": 3})
    admin.node.call("activate", sold.key, fingerprint="pc")
    admin.node.call("validate", sold.key, fingerprint="another")
    found = _fresh(admin, lambda stats: _leads(stats) and stats["checks"]["total"] == 2)
    assert found["licenses"] | {"total": 1, "active": 1} == found["licenses"]
    assert found["machines"] == {"total": 1, "alive": 1}
    assert found["checks"]["by_code"] == {"VALID": 1, "FINGERPRINT_SCOPE_MISMATCH": 1}
    assert (found["checks"]["valid"], found["checks"]["denied"], found["checks"]["last_hour"]) == (1, 1, 2)
    copied = _fresh(admin, lambda stats: stats["node"]["snapshot"]["seq"] == 2)["node"]["snapshot"]
    assert copied["licenses"] == 1
    assert copied["lag_s"] < 60
    assert found["node"]["ledger"] == "reachable"
    assert (found["lease"]["holder"], found["lease"]["epoch"]) == (admin.node.runtime.node.id, 1)
    assert 0 < found["lease"]["expires_in_s"] <= admin.node.runtime.settings.heartbeat_timeout
    assert (found["node"]["role"], found["node"]["state"]) == ("primary", "LEADING")


def test_only_a_token_with_the_scope_is_told(admin: Admin) -> None:
    reader = admin.resources.create_token("reader", ["stats:read"])["token"]
    writer = admin.resources.create_token("writer", ["licenses:write"])["token"]
    for path in ("/stats", "/metrics"):
        assert _get(Admin(admin.node, reader), path).status_code == 200
        assert json.loads(_get(Admin(admin.node, writer), path).data)["code"] == "SCOPE_MISSING"
        assert json.loads(admin.node.http.get(path).data)["code"] == "TOKEN_INVALID"


def test_metrics_are_the_same_numbers_in_prometheus_text(admin: Admin) -> None:
    sold = sell(admin.node.database)
    admin.node.call("validate", sold.key)
    _fresh(admin, lambda stats: stats["checks"]["total"] == 1)
    response = _get(admin, "/metrics")
    assert response.content_type.startswith("text/plain")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }
    assert samples[("protecao_licenses", "active")] == 1
    assert samples[("protecao_checks_total", "valid")] == 1
    assert samples[("protecao_checks_by_code_total", "VALID")] == 1
    assert samples[("protecao_ledger_reachable",)] == 1


def test_metrics_leave_out_what_is_not_known(tmp_path: Path) -> None:
    with starting_node(f"postgresql://nobody@127.0.0.1:{free_port()}/nothing", tmp_path) as node:
        text = _get(Admin(node), "/metrics").text
    assert "protecao_ledger_reachable 0.0" in text
    assert "protecao_licenses{" not in text
    assert "protecao_log_head " not in text.replace("# HELP protecao_log_head ", "").replace(
        "# TYPE protecao_log_head ", ""
    )


# -- counting ---------------------------------------------------------------------------------------------------------


def test_an_empty_ledger_counts_nothing(database: Database) -> None:
    found = _counted(database, NOW)
    assert set(found.licenses.values()) | set(found.machines.values()) == {0}
    assert found.checks["total"] == found.checks["last_hour"] == 0


def test_licenses_are_counted_by_status_and_by_their_time(database: Database) -> None:
    licenses: tuple[dict[str, Any], ...] = (
        {},
        {"status": "suspended"},
        {"status": "banned", "expires_at": NOW + DAY},
        {"expires_at": NOW},
        {"expires_at": NOW + 1},
        {"expires_at": NOW + 7 * DAY},
        {"expires_at": NOW + 7 * DAY + 1},
    )
    for columns in licenses:
        sell(database, **columns)
    assert _counted(database, NOW).licenses == {
        "total": 7,
        "active": 5,
        "suspended": 1,
        "banned": 1,
        "expired": 1,
        "expiring_7d": 2,
    }


def _insist(admin: Admin, act: str, sold: Sold, fingerprint: str) -> str:
    return admin.node.insist(act, sold.key, request_id=uuid.uuid4().hex, fingerprint=fingerprint).code


def test_a_machine_is_alive_while_its_heartbeat_is_in_time_where_one_is_asked_for(admin: Admin) -> None:
    database, now = admin.node.database, float(admin.node.now())
    beats: dict[str, float | None] = {"never": None, "just in time": now - 60, "late": now - 61}
    # The leader of this ledger would soon take the late one's seat.
    asked, other = sell(database, {"machine_heartbeat_s": 60, "cull": "keep"}), sell(database)
    for name, at in beats.items():
        assert _insist(admin, "activate", asked, name) == "VALID"
        change_machine(database, asked, name, heartbeat_at=at)
    assert _insist(admin, "activate", other, "of a policy that asks for none") == "VALID"
    assert _insist(admin, "activate", asked, "gone") == "VALID"
    assert _insist(admin, "deactivate", asked, "gone") == "VALID"
    assert _counted(database, now).machines == {"total": 4, "alive": 2}


def test_a_beat_of_a_moment_to_come_does_not_stand_for_a_node_that_beats(database: Database) -> None:
    """The database's clock was ten minutes ahead while a process that is gone beat for the last time."""
    beat(database, instance="gone", age=-600, applied_seq=3, queue=70)
    beat(database, instance="here", age=1, applied_seq=8, queue=2)
    add_events(database, *[{"mode": "backup"}] * 9)
    [found] = nodes(database, time.time())
    assert (found["applied_seq"], found["queue"]) == (8, 2)
    assert 1 <= found["beat_age_s"] < 60
    with database.reading() as connection:
        counted = cluster.sync(connection, "node-2", time.time())
    assert (counted["total"], counted["pending"]) == (9 + 2, 1 + 2)


def test_the_last_hour_has_sixty_minutes_with_its_gaps_as_zeros(database: Database) -> None:
    minute = int(NOW // 60)
    counted = [
        {"minute": minute, "code": "VALID", "valid": True, "writer": "a", "count": 3},
        {"minute": minute, "code": "VALID", "valid": True, "writer": "b", "count": 4},
        {"minute": minute - 59, "code": "EXPIRED", "valid": False, "writer": "a", "count": 5},
        {"minute": minute - 60, "code": "EXPIRED", "valid": True, "writer": "a", "count": 6},
    ]
    with database.writing() as connection:
        connection.execute(insert(tables.check_minutes), counted)
    checks = _counted(database, NOW).checks
    assert (checks["total"], checks["valid"], checks["denied"], checks["last_hour"]) == (18, 13, 5, 12)
    assert checks["by_code"] == {"VALID": 7, "EXPIRED": 11}
    assert len(checks["per_minute"]) == 60
    assert checks["per_minute"][0] == {"at": _rfc3339((minute - 59) * 60), "valid": 0, "denied": 5}
    assert checks["per_minute"][-1] == {"at": _rfc3339(minute * 60), "valid": 7, "denied": 0}
    assert all(one["valid"] == one["denied"] == 0 for one in checks["per_minute"][1:-1])


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


# -- the cache --------------------------------------------------------------------------------------------------------


def test_a_second_is_answered_from_one_count_and_an_outage_from_the_last(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[float] = []
    clock = [time.monotonic()]
    stats = Stats(admin.node.runtime)
    monkeypatch.setattr(admin.node.runtime.clock, "monotonic", lambda: clock[0])
    monkeypatch.setattr(type(admin.node.runtime), "ledger_reachable", property(lambda _: True))
    real = count

    def counting(connection: Any, now: float, *rest: Any) -> Any:
        counted.append(now)
        return real(connection, now, *rest)

    monkeypatch.setattr("api.stats.counts.count", counting)
    assert stats.report()["licenses"]["total"] == 0
    sell(admin.node.database)
    clock[0] += 0.9
    assert stats.report()["licenses"]["total"] == 0
    assert len(counted) == 1

    def total_a_while_later() -> int:
        clock[0] += 1.2
        return int(stats.report()["licenses"]["total"])

    # A count that takes too long, on a machine that is busy, leaves the one before: the next may be in time.
    until(lambda: total_a_while_later() == 1, "the new count")

    def away(*_: Any) -> Any:
        raise LedgerUnavailable("gone")

    monkeypatch.setattr("api.stats.counts.count", away)
    clock[0] += 2
    found = stats.report()
    assert (found["node"]["ledger"], found["licenses"]["total"]) == ("unreachable", 1)


def test_counts_do_not_go_back_where_a_worker_has_not_counted_for_long_and_the_ledger_is_busy(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    stats, clock = Stats(admin.node.runtime), [time.monotonic()]
    monkeypatch.setattr(admin.node.runtime.clock, "monotonic", lambda: clock[0])
    monkeypatch.setattr(type(admin.node.runtime), "ledger_reachable", property(lambda _: True))
    until(lambda: stats.report()["licenses"]["total"] == 0, "the first count")

    def busy(*_: Any) -> Any:
        raise LedgerBusy("others hold what this needs")

    monkeypatch.setattr("api.stats.counts.count", busy)
    newer = replace(UNKNOWN, at=time.time() + 5, licenses={**UNKNOWN.licenses, "total": 7})
    save_last_known(admin.node.runtime.settings.data_dir, newer)  # as the supervisor does
    clock[0] += 2
    found = stats.report()
    assert (found["node"]["ledger"], found["licenses"]["total"]) == ("reachable", 7)


def test_checks_that_come_late_are_counted_when_the_old_minutes_are_read_again(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    stats, clock, monotonic = Stats(admin.node.runtime), [NOW], [0.0]
    monkeypatch.setattr(admin.node.runtime.clock, "now", lambda: clock[0])
    monkeypatch.setattr(admin.node.runtime.clock, "monotonic", lambda: monotonic[0])
    monkeypatch.setattr(type(admin.node.runtime), "ledger_reachable", property(lambda _: True))

    def total_after(seconds: float) -> int:
        clock[0] += seconds
        monotonic[0] += seconds
        return int(stats.report()["checks"]["total"])

    def add(minute: int) -> None:
        row = {"minute": minute, "code": "VALID", "valid": True, "writer": str(minute), "count": 1}
        with admin.node.database.writing() as connection:
            connection.execute(insert(tables.check_minutes), row)

    minute = int(NOW // 60)
    add(minute - 300)
    assert total_after(0) == 1
    add(minute)
    add(minute - 59)
    assert total_after(60) == 3
    add(minute - 200)
    assert total_after(8 * 60) == 3
    assert total_after(60) == 4


def test_a_hundred_thousand_licenses_are_counted_quickly(database: Database) -> None:
    sold = sell(database, {"machine_heartbeat_s": 60})
    many = """
        INSERT INTO licenses (id, policy, key_hash, key_hint, status, created_at, expires_at)
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
        SELECT 'license-' || i, policy, 'hash-' || i, '0000', 'active', 0, i FROM n, licenses WHERE licenses.id = :id
    """
    with database.writing() as connection:
        connection.execute(text(many), {"id": sold.id})
    began = time.monotonic()
    found = _counted(database, 50_000.0)
    took = time.monotonic() - began
    assert (found.licenses["total"], found.licenses["expired"]) == (100_001, 50_000)
    # Some tens of milliseconds where nothing else runs; this only tells a scan from something quadratic.
    assert took < 5.0


def test_a_slow_read_is_ended_and_its_limit_does_not_outlive_it(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    with ledger_of("postgres", request, tmp_path) as url, opened_ledger(url, pool_size=1) as ledger:
        with pytest.raises(LedgerSlow), brief_reading(ledger.database, 0.2) as connection:
            connection.execute(text("SELECT pg_sleep(60)"))
        with brief_reading(ledger.database) as connection:
            assert connection.execute(text("SELECT 1")).scalar() == 1
        with ledger.database.reading() as connection:
            assert connection.execute(text("SHOW statement_timeout")).scalar() == "1min", "every statement has its own"


def test_a_busy_connection_is_no_ledger_that_is_away(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with node_on("postgres", request, tmp_path, WEB_CONCURRENCY="3") as node:
        runtime = node.runtime
        runtime.jobs.stop()
        # Its supervisor has never said anything: this process asks the ledger itself.
        monkeypatch.setattr(runtime.node_state, "read", lambda: None)
        monkeypatch.setattr(runtime.polling, "supervisor_answered_at", float("-inf"))
        with node.database.reading(), pytest.raises(NoConnection):
            runtime.polling.poll()
        monkeypatch.setattr(node.database, "answered_at", runtime.clock.monotonic() - 8)
        assert runtime.ledger_reachable
        monkeypatch.setattr(node.database, "answered_at", runtime.clock.monotonic() - 16)
        assert not runtime.ledger_reachable


# -- what is kept for the time without the ledger ----------------------------------------------------------------------

_AT = 1_800_000_030.0


def _of_a_while_ago() -> Counts:
    minutes = [{"at": _rfc3339(at), "valid": 2, "denied": 1} for at in (1_799_996_400, 1_799_997_000, 1_800_000_000)]
    return Counts(
        at=_AT,
        seq=7,
        licenses=UNKNOWN.licenses | {"total": 3},  # type: ignore[operator]
        machines={"total": 1, "alive": 1},
        checks={"total": 9, "valid": 6, "denied": 3, "by_code": {}, "last_hour": 9, "per_minute": minutes},
        nodes=[{"id": "n", "beat_age_s": 0.5}],
        failovers=[],
        lease={"holder": "n", "epoch": 3, "expires_in_s": 4.0, "acquired_at": "then"},
    )


def test_what_was_last_known_is_read_again_and_a_damaged_file_is_nothing_known(tmp_path: Path) -> None:
    assert last_known_counts(tmp_path) == UNKNOWN
    save_last_known(tmp_path, _of_a_while_ago())
    assert last_known_counts(tmp_path) == _of_a_while_ago()
    (tmp_path / "last-known.json").write_bytes(b"{")
    assert last_known_counts(tmp_path) == UNKNOWN
    assert aged(UNKNOWN, NOW) == UNKNOWN


def test_time_goes_on_in_what_was_last_known() -> None:
    counts = _of_a_while_ago()
    soon = aged(counts, _AT + 3)
    assert (soon.lease["holder"], soon.lease["expires_in_s"], soon.nodes[0]["beat_age_s"]) == ("n", 1.0, 3.5)
    assert soon.checks["last_hour"] == 6, "the minute an hour ago is over"
    later = aged(counts, _AT + 600)
    assert later.lease == {"holder": None, "epoch": 3, "expires_in_s": None, "acquired_at": "then"}
    assert later.checks["last_hour"] == 3
    assert aged(counts, _AT + 7200).checks["last_hour"] == 0
    assert (later.licenses, later.machines, later.checks["total"]) == (counts.licenses, counts.machines, 9)
