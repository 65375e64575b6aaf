"""Faults that operators and hosts make in the database: locks, rights, names, row security, clocks, promotions.

Each is a function of a `Scene`, as those of `faults`.
"""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
from psycopg2.extensions import cursor

from api.ledger import tables
from tests.chaos.cluster.scene import NEEDED, Scene
from tests.chaos.cluster.site import ROLE, Site
from tests.support.postgres import PostgresServer
from tests.support.processes import until
from tests.support.replication import Standby

#: A machine is dead after 30 s, a check-in due after 2 days: forward or back, by little and by much.
_CLOCK_STEPS_S = (300, 600, 3_700, 3 * 86_400)
_SHORT_STEP_S = 600
_READ_ONLY_S = 25.0
#: For a database that another fault keeps away.
_DATABASE_S = 120.0
_NAMES = tuple(tables.metadata.tables)
_NEEDED_SHARE = 0.6


def one_table(rng: random.Random) -> tuple[str, ...]:
    return (rng.choice(sorted(NEEDED) if rng.random() < _NEEDED_SHARE else _NAMES),)


def licenses(_rng: random.Random) -> tuple[str, ...]:
    return (tables.licenses.name,)


def one_or_all(rng: random.Random) -> tuple[str, ...]:
    """One table or, as a host's advice goes, every one."""
    return _NAMES if rng.random() < 0.3 else one_table(rng)


# -- locks --------------------------------------------------------------------------------------------------------


def lock_table(scene: Scene) -> None:
    """A migration by hand, or a backup tool: one table is locked, and everybody waits who needs it."""
    (table,) = scene.drawn.tables
    scene.fault.note = table
    with _held(scene.site, f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"):
        scene.made()
        scene.stay(4.0, 14.0)


def lock_row(scene: Scene) -> None:
    """Somebody has changed one license in an open session, and has gone for coffee."""
    license_id = until(lambda: _some_license(scene.site), "a license", _DATABASE_S)
    scene.fault.license_id = scene.fault.note = license_id
    with _held(scene.site, "SELECT 1 FROM licenses WHERE id = %s FOR UPDATE", license_id):
        scene.made()
        scene.stay(4.0, 14.0)


def _some_license(site: Site) -> str:
    """The id of one that is active, empty where the database does not answer."""
    try:
        return str(site.superuser.asks("SELECT id FROM licenses WHERE status = 'active' ORDER BY random() LIMIT 1"))
    except psycopg2.OperationalError:
        return ""


@contextlib.contextmanager
def _held(site: Site, statement: str, *values: str) -> Iterator[None]:
    """What `statement` locks, locked; a database that ends meanwhile lets go of it."""
    with contextlib.ExitStack() as stack:
        session = until(lambda: _locking(stack, site, statement, *values), f"{statement!r} done", _DATABASE_S)
        assert session is not None
        yield


def _locking(stack: contextlib.ExitStack, site: Site, statement: str, *values: str) -> cursor | None:
    """A session that holds the lock; None: it did not come soon, and is not waited for."""
    try:
        session = stack.enter_context(site.superuser.session())
        session.execute(statement, values)
    except psycopg2.OperationalError:
        stack.pop_all().close()
        return None
    return session


# -- what the role may do, and what is there ----------------------------------------------------------------------


def _for_a_while(
    wrong: Callable[[str], tuple[str, ...]], right: Callable[[str], tuple[str, ...]]
) -> Callable[[Scene], None]:
    """A fault that is one statement for each drawn table, and its opposite."""

    def fault(scene: Scene) -> None:
        names = scene.drawn.tables
        scene.fault.note = names[0] if len(names) == 1 else "every table"
        scene.site.superuser.does(*(each for name in names for each in wrong(name)))
        scene.made()
        scene.stay(4.0, 9.0)
        scene.site.superuser.does(*(each for name in names for each in right(name)))

    return fault


revoke_table = _for_a_while(
    lambda name: (f"REVOKE ALL ON {name} FROM {ROLE}",), lambda name: (f"GRANT ALL ON {name} TO {ROLE}",)
)
rename_table = _for_a_while(
    lambda name: (f"ALTER TABLE IF EXISTS {name} RENAME TO {name}_away",),
    lambda name: (f"ALTER TABLE IF EXISTS {name}_away RENAME TO {name}",),
)
#: Without a policy no row is to be seen, by the owner neither where it is forced.
row_security = _for_a_while(
    lambda name: (f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",),
    lambda name: (f"ALTER TABLE {name} DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY",),
)


# -- read-only ----------------------------------------------------------------------------------------------------


def read_only(scene: Scene) -> None:
    """As hosts do at a quota: on the whole server at once, or on the role, whose sessions they end."""
    scene.rng.choice((_server_read_only, _role_read_only))(scene)


def _server_read_only(scene: Scene) -> None:
    scene.fault.note = "the server"
    scene.site.superuser.does("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
    scene.made()
    scene.stay(_READ_ONLY_S if not scene.short else 6.0, _READ_ONLY_S)
    scene.site.superuser.does("ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")


def _role_read_only(scene: Scene) -> None:
    scene.fault.note = "the role"
    ended = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{ROLE}'"
    scene.site.superuser.does(f"ALTER ROLE {ROLE} SET default_transaction_read_only = on", ended)
    scene.made()
    scene.stay(_READ_ONLY_S if not scene.short else 6.0, _READ_ONLY_S)
    scene.site.superuser.does(f"ALTER ROLE {ROLE} RESET default_transaction_read_only", ended)


# -- the clock ----------------------------------------------------------------------------------------------------


def _clock_set(direction: int) -> Callable[[Scene], None]:
    def set_clock(scene: Scene) -> None:
        """Somebody sets the clock of the database's machine, and later right again."""
        clock = scene.site.clock
        assert clock is not None
        skew = direction * (_SHORT_STEP_S if scene.short else scene.rng.choice(_CLOCK_STEPS_S))
        scene.fault.note, scene.fault.skew_s = f"by {skew} s", skew
        scene.made()
        clock.shift(skew)
        scene.stay(5.0, 12.0)
        clock.shift(0)

    return set_clock


clock_forward, clock_back = _clock_set(1), _clock_set(-1)


# -- a promoted standby -------------------------------------------------------------------------------------------


def promote_standby(scene: Scene) -> None:
    """The database moves to its standby: planned, the old server being read-only for a while, or because it dies.

    The standby is copied before and acknowledges every commit, so that none is lost. What is promoted is the cluster's
    server from then on; the old one is gone.
    """
    site, old = scene.site, scene.site.server
    assert isinstance(old, PostgresServer)
    standby = _standby_of(old, site)
    planned = scene.rng.random() < 0.5
    scene.fault.note = "planned" if planned else "the old one died"
    # What is put right by a statement is put right on one server or on the other, not in between.
    with site.superuser.standing:
        scene.made()
        if planned:
            site.superuser.does("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
            until(standby.has_caught_up, "a standby that has caught up")
        else:
            old.kill()
            site.drops(old)
        standby.promote()
        site.moves_to(standby)
    scene.stay(3.0, 8.0)
    site.drops(old)
    old.stop("immediate")
    shutil.rmtree(old.data)


def _standby_of(server: PostgresServer, site: Site) -> Standby:
    """A standby that commits wait for."""
    standby = Standby(server, _new_folder(site.folder))
    standby.start()
    site.adds(standby)
    site.superuser.does("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
    is_waited_for = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
    until(lambda: site.superuser.asks(is_waited_for) == 1 and standby.has_caught_up(), "a standby that is waited for")
    return standby


def _new_folder(folder: Path) -> Path:
    return folder / f"postgres-{1 + sum(1 for _ in folder.glob('postgres-*'))}"
