"""Faults of processes, networks and machines, and of the Postgres server: made, left for a while, and put right again.

Each is a function of a `Scene`; when it returns the cause is gone, and the cluster may still be coming round.
`kinds` has them by name.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.chaos.cluster.machine import SmallDisk
from tests.chaos.cluster.scene import Scene
from tests.chaos.cluster.site import Host
from tests.support.postgres import PostgresServer, StopMode
from tests.support.processes import freeze

_READY_S = 90.0
_SKEWS_S = (3_700, -3_700, 3 * 86_400)
_PAGE_TYPES_OF_INDEXES = (0x02, 0x0A)


# -- processes ----------------------------------------------------------------------------------------------------


def kill_primary(scene: Scene) -> None:
    """The primary's host dies, and comes back once another leads."""
    scene.made()
    scene.site.primary.kill()
    scene.until_taken_over()
    scene.stay(1.0, 4.0)
    scene.site.primary.start()


def freeze_primary(scene: Scene) -> None:
    """Every process of the primary stands still until another leads, and wakes believing that it leads."""
    scene.made()
    frozen = scene.site.primary.freeze()
    scene.until_taken_over()
    scene.stay(0.5, 3.0)
    for process in frozen:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()


def term_primary(scene: Scene) -> None:
    """A planned stop: the lease is resigned at once."""
    scene.made()
    scene.site.primary.term()
    scene.until_taken_over()
    scene.site.primary.member.server.wait()
    scene.site.keep_output(scene.site.primary.member)
    scene.stay(0.0, 2.0)
    scene.site.primary.start()


def kill_standby(scene: Scene) -> None:
    scene.made()
    scene.host.kill()
    scene.stay(1.0, 4.0)
    scene.host.start()


def kill_worker(scene: Scene) -> None:
    workers = scene.host.workers()
    scene.made()
    scene.rng.choice(workers).kill()
    scene.stay(1.0, 2.0)


def freeze_worker(scene: Scene) -> None:
    """One of the primary's workers stands still until the master replaces it."""
    frozen = scene.rng.choice(scene.site.primary.workers())
    scene.made()
    freeze(frozen)
    try:
        frozen.wait(_READY_S)
    except psutil.TimeoutExpired:
        frozen.resume()
        raise AssertionError("a worker that stands still was not replaced") from None


def kill_supervisor(scene: Scene) -> None:
    """The process that holds the lease; its successor has the same instance."""
    supervisor = scene.site.primary.member.supervisor()
    scene.made()
    supervisor.kill()
    scene.stay(1.0, 2.0)


def two_copies(scene: Scene) -> None:
    """A rolling deploy of the primary: the new copy runs beside the old one before that is told to end."""
    host = scene.site.primary
    old = host.member
    scene.made()
    new = host.start_copy().ready()
    scene.stay(1.0, 3.0)
    host.becomes(new)
    old.server.signal(signal.SIGTERM)
    old.server.wait()
    scene.site.keep_output(old)


# -- the database -------------------------------------------------------------------------------------------------


def stop_postgres(scene: Scene) -> None:
    modes: tuple[StopMode, ...] = ("fast", "immediate")
    scene.made()
    scene.site.server.stop(scene.rng.choice(modes))
    scene.stay_without_database(4.0, 9.0)
    scene.site.server.start()


def _own(scene: Scene) -> PostgresServer:
    """The server, which is this run's own: nobody else's is killed or frozen."""
    assert isinstance(scene.site.server, PostgresServer)
    return scene.site.server


def kill_postgres(scene: Scene) -> None:
    scene.made()
    _own(scene).kill()
    scene.stay_without_database(3.0, 9.0)
    scene.site.server.start()


def freeze_postgres(scene: Scene) -> None:
    """Its host still acknowledges, and nothing answers."""
    scene.made()
    _own(scene).freeze()
    scene.stay_without_database(4.0, 9.0)
    _own(scene).thaw()


def stop_postgres_and_kill_primary(scene: Scene) -> None:
    """The database first; the primary starts again without it, and what its queue holds is not lost."""
    scene.made()
    scene.site.server.stop("fast")
    scene.stay(2.0, 4.0)
    scene.site.primary.kill()
    scene.site.primary.start()
    scene.stay(5.0, 9.0)
    scene.site.server.start()


def kill_pooler(scene: Scene) -> None:
    """PgBouncer in front of the second node's database dies and is started again."""
    assert scene.site.pooler is not None
    scene.made()
    scene.site.pooler.kill()
    scene.stay(2.0, 5.0)
    scene.site.pooler.start()


# -- the network --------------------------------------------------------------------------------------------------


def _partition(*ways: str) -> Callable[[Scene], None]:
    def held(scene: Scene) -> None:
        """The primary and the database no longer hear each other, or one of them the other, and nobody is told."""
        host = scene.site.primary
        scene.made()
        host.back.hold(*ways)
        scene.until_taken_over()
        scene.stay(0.5, 3.0)
        host.back.heal()

    return held


partition, partition_up, partition_down = _partition("up", "down"), _partition("up"), _partition("down")


def cut_standby(scene: Scene) -> None:
    """A standby's way to the database is gone, and its clients still ask it: theirs to the others are, too."""
    host = scene.site.hosts[-1]
    scene.made()
    host.back.refuse()
    for other in scene.site.hosts[:-1]:
        other.front.refuse()
    scene.stay(3.0, 6.0)
    for other in scene.site.hosts[:-1]:
        other.front.heal()
    host.back.heal()


def reset_connections(scene: Scene) -> None:
    """Every connection to the database is reset, those of a commit in flight as well."""
    scene.made()
    for _ in range(3):
        for host in scene.site.hosts:
            host.back.reset()
        scene.stay(0.3, 1.0)


def slow_network(scene: Scene) -> None:
    """The database is 60 ms away, each way."""
    scene.made()
    scene.site.primary.back.slow(0.06)
    scene.stay(3.0, 6.0)
    scene.site.primary.back.heal()


def clients_cut_off(scene: Scene) -> None:
    """Clients no longer hear the primary, or it them; it leads on."""
    way = scene.rng.choice(["up", "down"])
    scene.made()
    scene.site.primary.front.hold(way)
    scene.stay(3.0, 6.0)
    scene.site.primary.front.heal()


# -- the machine --------------------------------------------------------------------------------------------------


def shift_clock(scene: Scene) -> None:
    """Somebody sets a node's wall clock, by an hour or by days, and later back."""
    host = scene.host
    assert host.clock is not None
    skew = scene.rng.choice(_SKEWS_S)
    scene.fault.note = f"{host.id} by {skew} s"
    scene.made()
    host.clock.shift(skew)
    scene.stay(4.0, 8.0)
    host.clock.shift(0)


def full_disk(scene: Scene) -> None:
    """The primary's disk is full, first with the ledger in reach, then without: others must answer for it."""
    host = scene.site.primary
    home = host.folder
    disk = host.disk = SmallDisk(home.with_name("small-disk"))
    _move(scene, host, disk.folder / "data")
    host.start()
    scene.site.steady()
    scene.made()
    disk.fill()
    scene.stay(2.0, 4.0)
    host.back.refuse()
    scene.stay(3.0, 4.0)
    disk.empty()
    host.back.heal()
    scene.site.steady()
    _move(scene, host, home)
    disk.close()
    host.disk = None
    host.start()


def _move(scene: Scene, host: Host, to: Path) -> None:
    """Ends the node and takes its files elsewhere."""
    host.term()
    host.member.server.wait()
    scene.site.keep_output(host.member)
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(host.folder, to)
    host.folder = to


def damaged_queue(scene: Scene) -> None:
    """The primary dies while its queue holds events; before it is back, an index of the queue's file is rubbish."""
    host = scene.site.primary
    scene.made()
    scene.site.server.stop("fast")
    scene.stay(3.0, 5.0)
    host.kill()
    pages = _damage(host.queue_file, scene.rng)
    scene.fault.note = f"{pages} pages, {_pending(host.queue_file)} events on them or beside them"
    host.start()
    scene.stay(2.0, 4.0)
    scene.site.server.start()


def _damage(path: Path, rng: random.Random) -> int:
    """Overwrites the pages of indexes with noise: no event is on them, and none can be looked up without them."""
    if not path.exists():
        return 0
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    content = bytearray(path.read_bytes())
    size = int.from_bytes(content[16:18], "big")
    found = [at for at in range(size, len(content), size) if content[at] in _PAGE_TYPES_OF_INDEXES]
    for at in found:
        content[at + 16 : at + size] = rng.randbytes(size - 16)
    path.write_bytes(content)
    return len(found)


def _pending(path: Path) -> int:
    if not path.exists():
        return 0
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("SELECT pending FROM about").fetchone()[0])
    finally:
        connection.close()
