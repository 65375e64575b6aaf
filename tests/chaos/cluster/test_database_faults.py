"""The faults of the database do to the nodes' role what they say, for as long as they last, on a real Postgres."""

from __future__ import annotations

import contextlib
import random
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2 import errors

from tests.chaos.cluster.history import Fault, now
from tests.chaos.cluster.kinds import FAULTS, cannot_be_made
from tests.chaos.cluster.scene import Draw, Scene
from tests.chaos.cluster.site import Site, site
from tests.support.nodes import sell
from tests.support.processes import until
from tests.support.programs import PostgresUnavailable, find_programs

_INSERT = "INSERT INTO duty_marks (name, value) VALUES (%s, 1)"


@dataclass(slots=True)
class Observed(Scene):
    """A scene in which a look is taken, instead of waiting, while the fault lasts."""

    look: Callable[[], object] = lambda: None
    seen: list[object] = field(default_factory=list)

    def stay(self, low: float, high: float) -> None:
        self.seen.append(self.look())


@pytest.fixture(scope="module")
def cluster() -> Iterator[Site]:
    """Its nodes are not started."""
    try:
        find_programs()
    except PostgresUnavailable as error:
        pytest.skip(f"POSTGRES IS MISSING: {error}")
    # The database runs as a user of its own, to whom the folders of tests may be closed.
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        Path(folder).chmod(0o711)
        with site(Path(folder)) as made:
            yield made


def as_the_role(cluster: Site, rank: int = 1) -> psycopg2.extensions.connection:
    """A session as node `rank` has it."""
    connection = psycopg2.connect(cluster.node_url(cluster.hosts[rank - 1]), connect_timeout=5)
    connection.autocommit = True
    return connection


def asked(connection: psycopg2.extensions.connection, query: str, *values: object) -> Any:
    """The first row's first column, or the kind of error that is raised instead."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(query, values)
            return (cursor.fetchone() or (None,))[0] if cursor.description else cursor.rowcount
    except psycopg2.Error as error:
        return type(error)


def anew(cluster: Site, query: str, *values: object, rank: int = 1) -> Any:
    """The same in a session of its own."""
    try:
        with contextlib.closing(as_the_role(cluster, rank)) as connection:
            return asked(connection, query, *values)
    except psycopg2.Error as error:
        return type(error)


def during(cluster: Site, kind: str, look: Callable[[], object], *tables: str, seed: int = 1) -> Fault:
    """Makes the fault; `look` is what must be so while it lasts (an assertion)."""
    if kind in cannot_be_made(cluster):
        pytest.skip(cannot_be_made(cluster)[kind])
    fault = Fault(kind=kind, began=now())
    scene = Observed(cluster, fault, Draw(FAULTS[kind], 1, tables), random.Random(seed), 0, True, look=look)
    scene.make()
    assert scene.seen, "it did not last"
    assert fault.began <= fault.made <= fault.healed
    return fault


def test_nodes_are_a_role_that_owns_the_ledger_and_is_no_superuser(cluster: Site) -> None:
    for rank in (1, 2, 3):
        assert anew(cluster, "SELECT current_user", rank=rank) == "protecao"
        assert anew(cluster, "SELECT usesuper FROM pg_user WHERE usename = current_user", rank=rank) is False
        owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'licenses'"
        assert anew(cluster, owner, rank=rank) == "protecao"


@pytest.mark.parametrize("table", ["licenses", "log_head"])
def test_a_locked_table_is_locked_and_no_other(cluster: Site, table: str) -> None:
    def look() -> None:
        assert anew(cluster, f"SET lock_timeout = 200; SELECT count(*) FROM {table}") is errors.LockNotAvailable
        assert anew(cluster, "SET lock_timeout = 200; SELECT count(*) FROM policies") is not errors.LockNotAvailable

    during(cluster, "lock_table", look, table)
    assert anew(cluster, f"SELECT count(*) FROM {table}") is not errors.LockNotAvailable


def test_a_locked_row_is_one_license_s(cluster: Site) -> None:
    sold = {sell(cluster.database).id for _ in range(2)}
    locked = set[str]()

    def look() -> None:
        for id in sold:
            if anew(cluster, "SELECT 1 FROM licenses WHERE id = %s FOR UPDATE NOWAIT", id) is errors.LockNotAvailable:
                locked.add(id)

    fault = during(cluster, "lock_row", look, "licenses")
    assert locked == {fault.license_id} & sold
    assert len(locked) == 1


def test_a_revoked_table_is_denied_to_its_owner(cluster: Site) -> None:
    during(
        cluster,
        "revoke_table",
        lambda: _assert(anew(cluster, "SELECT count(*) FROM machines"), errors.InsufficientPrivilege),
        "machines",
    )
    assert anew(cluster, "SELECT count(*) FROM machines") == 0
    assert anew(cluster, _INSERT, uuid.uuid4().hex) == 1


def test_a_renamed_table_is_not_there_and_comes_back_with_its_rows(cluster: Site) -> None:
    assert anew(cluster, _INSERT, "kept") == 1
    query = "SELECT count(*) FROM duty_marks WHERE name = 'kept'"
    during(cluster, "rename_table", lambda: _assert(anew(cluster, query), errors.UndefinedTable), "duty_marks")
    assert anew(cluster, query) == 1


def test_row_security_hides_every_row_from_the_owner_and_is_an_error_where_it_is_off(cluster: Site) -> None:
    sell(cluster.database)
    off = "SET row_security = off; SELECT count(*) FROM licenses"

    def look() -> None:
        assert anew(cluster, "SELECT count(*) FROM licenses") == 0
        assert anew(cluster, off) is errors.InsufficientPrivilege
        with cluster.database.reading() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM licenses").scalar() > 0  # type: ignore[operator]

    during(cluster, "row_security", look, "licenses", "machines")
    assert anew(cluster, off) > 0


@pytest.mark.parametrize("seed", range(3))
def test_read_only_meets_new_sessions_and_the_open_ones_or_ends_them(cluster: Site, seed: int) -> None:
    kinds = set[str]()
    with contextlib.closing(as_the_role(cluster, 3)) as before:

        def look() -> None:
            refused = (errors.ReadOnlySqlTransaction, errors.AdminShutdown, psycopg2.InterfaceError)
            assert anew(cluster, _INSERT, uuid.uuid4().hex, rank=3) is errors.ReadOnlySqlTransaction
            # The pooler may first have to notice that its sessions have ended.
            until(lambda: anew(cluster, _INSERT, uuid.uuid4().hex, rank=2) is errors.ReadOnlySqlTransaction, "it", 10)
            until(
                lambda: asked(before, _INSERT, uuid.uuid4().hex) in refused, "an open session that writes no more", 10
            )
            # Where both hosts are asked for one that takes writes there is none.
            assert anew(cluster, "SELECT 1", rank=1) is psycopg2.OperationalError

        kinds.add(during(cluster, "read_only", look, seed=seed).note)
    assert kinds <= {"the server", "the role"}
    all_write_again(cluster)


@pytest.mark.parametrize("kind", ["clock_back", "clock_forward"])
def test_the_database_s_clock_jumps_for_sessions_that_are_open_and_is_right_afterwards(
    cluster: Site, kind: str
) -> None:
    query = "SELECT extract(epoch FROM clock_timestamp())::float8"
    with contextlib.closing(as_the_role(cluster, 3)) as before:
        assert abs(asked(before, query) - time.time()) < 60

        def look() -> None:
            ahead = 600 if kind == "clock_forward" else -600
            for told in (asked(before, query), anew(cluster, query)):
                assert abs(told - time.time() - ahead) < 60

        fault = during(cluster, kind, look)
        assert abs(fault.skew_s) == 600
        assert abs(asked(before, query) - time.time()) < 60


def test_a_promoted_standby_has_every_commit_and_takes_the_writes_of_every_node_time_and_again(cluster: Site) -> None:
    notes, seed = set[str](), 0
    while len(notes) < 2:
        old, name, seed = cluster.server, uuid.uuid4().hex, seed + 1
        assert anew(cluster, _INSERT, name) == 1

        def look(old: Any = old, name: str = name) -> None:
            assert cluster.server is not old
            for rank in (1, 3):  # the pooler keeps the sessions that it has, until their server is gone
                assert anew(cluster, "SELECT pg_is_in_recovery()", rank=rank) is False
                assert anew(cluster, "SELECT count(*) FROM duty_marks WHERE name = %s", name, rank=rank) == 1
                assert anew(cluster, _INSERT, uuid.uuid4().hex, rank=rank) == 1

        with contextlib.closing(as_the_role(cluster, 3)) as before:
            notes.add(during(cluster, "promote_standby", look, seed=seed).note)
            assert isinstance(asked(before, _INSERT, uuid.uuid4().hex), type), "a session of the old server writes on"
        assert not old.running  # type: ignore[attr-defined]
        all_write_again(cluster)
    assert notes == {"planned", "the old one died"}


def all_write_again(cluster: Site) -> None:
    for rank in (1, 2, 3):
        until(lambda rank=rank: anew(cluster, _INSERT, uuid.uuid4().hex, rank=rank) == 1, f"{rank} writes again", 10)  # type: ignore[misc]


def _assert(found: object, expected: object) -> None:
    assert found == expected
