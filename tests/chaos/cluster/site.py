"""The cluster under test: three nodes with their disks, clocks and links, a Postgres, a pooler for one of them.

The first node's URL names two hosts, of which one takes writes; the second is behind the pooler; the third knows one
address, which moves with the database. Their role owns the ledger's tables and is no superuser.
"""

from __future__ import annotations

import contextlib
import signal
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import psutil
from sqlalchemy import select, text
from sqlalchemy.engine import URL, make_url

from api.config.secret_files import generate_secrets
from api.ledger import tables
from api.ledger.database import Database
from api.ledger.errors import LedgerError
from api.ledger.migrate import upgrade
from tests.chaos.cluster.links import Link, Network, network
from tests.chaos.cluster.machine import SmallDisk, WallClock, clock_library
from tests.chaos.cluster.pooler import PgBouncer
from tests.chaos.cluster.route import Route
from tests.chaos.cluster.superuser import Superuser
from tests.support.cluster import Member
from tests.support.postgres import PostgresServer, StopMode, free_port
from tests.support.processes import freeze, until

NODES = 3
_DOUBLE_RANK, _POOLED_RANK = 1, 2
#: The nodes' role in the database, which owns the ledger and has no other rights.
ROLE = "protecao"
_HEAL_S = 240.0
_FRESH_S = 3.0
#: No lease is given for longer: one that seems to last longer was written while the database's clock was ahead.
_LEASE_S = 60.0
#: Nothing that a test asserts on: what a node says, for the reader of a failed run.
_SETTINGS = {"RATE_LIMIT": "1000000/minute", "LOG_LEVEL": "INFO"}

_BEATS = text("SELECT node, rank, state, queue, extract(epoch FROM clock_timestamp()) - beat_at AS age FROM heartbeats")
_LEASE = text(
    "SELECT rank, epoch, expires_at - extract(epoch FROM clock_timestamp()) AS left FROM lease WHERE name = 'leader'"
)


class Host:
    """One node's machine. `front` is the way of the clients to it, `back` its way to the database."""

    def __init__(self, site: Site, rank: int, folder: Path, back: Route, front: Link, clock: WallClock | None) -> None:
        self.rank, self.folder, self.back, self.front, self.clock = rank, folder, back, front, clock
        self.id = f"node-{rank}"
        self.disk: SmallDisk | None = None
        self._site = site
        self._copies = 0
        self.member: Member

    @property
    def queue_file(self) -> Path:
        return self.folder / "sync_queue.db"

    def start(self) -> Member:
        """The node anew, on the same disk. It is not waited for."""
        self.member = self._site.start_node(self, self.folder)
        self.front.target = self.member.server.port
        return self.member

    def start_copy(self) -> Member:
        """The same node a second time, on a disk of its own, as a rolling deploy does; clients do not know it yet."""
        self._copies += 1
        return self._site.start_node(self, self.folder.with_name(f"{self.folder.name}-copy-{self._copies}"))

    def becomes(self, copy: Member) -> None:
        """From now on clients that ask for this node are sent to `copy`."""
        self.member, self.folder = copy, copy.folder
        self.front.target = copy.server.port

    def processes(self) -> list[psutil.Process]:
        """All that runs, the first process before those it made."""
        return [self.member.server.process, *self.member.server.descendants()]

    def workers(self) -> list[psutil.Process]:
        """The processes that answer: the children of the one child that has some."""
        return [each for child in self.member.server.process.children() for each in child.children()]

    def freeze(self) -> list[psutil.Process]:
        """SIGSTOP to the whole node; gives what to thaw."""
        frozen = self.processes()
        for process in frozen:
            with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                freeze(process)
        return frozen

    def kill(self) -> None:
        """SIGKILL to the whole node at once, as when its host dies."""
        self._site.keep_output(self.member)
        self.member.server.kill_tree()

    def term(self) -> None:
        self.member.server.signal(signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Beat:
    node: str
    rank: int
    state: str
    queue: int
    age: float


class Server(Protocol):
    """What a cluster needs of its Postgres; faults of the database itself need a `PostgresServer`."""

    port: int

    def create_database(self, name: str) -> str: ...

    def stop(self, mode: StopMode = "fast") -> None: ...

    def start(self) -> object: ...

    def close(self) -> None: ...


class Site:
    """All of it. `database` is the test's own way to the ledger, as its superuser, which no fault of the network meets.

    `address`: a link that leads to whichever server takes writes, for the pooler and for `database`; where there is
    none the server stays the same, and the nodes are what its URL says.
    """

    def __init__(
        self,
        folder: Path,
        net: Network,
        server: Server,
        pooler: PgBouncer | None = None,
        address: Link | None = None,
        clock: WallClock | None = None,
        **more: str,
    ) -> None:
        """`clock`: the server's own."""
        self.folder, self.server, self.pooler, self.address, self.clock = folder, server, pooler, address, clock
        url = make_url(server.create_database(f"chaos_{uuid.uuid4().hex[:12]}"))
        if address is not None:
            url = url.set(port=address.port)
        own_url = url.render_as_string(hide_password=False)
        self.superuser, self.database = Superuser(own_url), Database(own_url)
        self._url = url if address is None else self._given_to_the_role(url)
        with contextlib.closing(Database(self._url.render_as_string(hide_password=False))) as database:
            upgrade(database)
        self.secrets = generate_secrets().settings()
        self._more = more
        self._members: list[Member] = []
        #: So many queued events are as good as none: those of a license that is under attack.
        self.tolerated = 0
        self._library = clock_library(folder)
        self.hosts: list[Host] = []
        for rank in range(1, NODES + 1):
            behind = pooler.port if pooler is not None and rank == _POOLED_RANK else server.port
            links = [net.link(free_port(), behind)]
            if address is not None and rank == _DOUBLE_RANK:
                links.append(net.link(free_port(), behind))
            back, front = Route(*links), net.link(free_port(), 1)
            machine = folder / f"machine-{rank}"
            machine.mkdir()
            clock = None if self._library is None else WallClock(machine, self._library)
            self.hosts.append(Host(self, rank, machine / "data", back, front, clock))

    @property
    def urls(self) -> tuple[str, ...]:
        """The list that clients walk, in its order."""
        return tuple(f"http://127.0.0.1:{host.front.port}" for host in self.hosts)

    @property
    def primary(self) -> Host:
        return self.hosts[0]

    def node_url(self, host: Host) -> str:
        """Its `DATABASE_URL`."""
        url = f"postgresql://{self._login}@{host.back.hosts}/{self._url.database}"
        return f"{url}?target_session_attrs=read-write" if host.back.is_double else url

    def start_node(self, host: Host, folder: Path) -> Member:
        clock = {} if host.clock is None else host.clock.env
        own = {**_SETTINGS, **clock, **self._more, "NODE_URL": f"http://127.0.0.1:{host.front.port}"}
        self._members.append(Member(self.node_url(host), folder, self.secrets, host.rank, **own))
        return self._members[-1]

    def start(self) -> None:
        """All nodes; what they are to know of licenses is in the ledger by now."""
        for host in self.hosts:
            host.start()
        self.steady()

    def adds(self, standby: PostgresServer) -> None:
        """From now on the second host of the URLs that name two is there."""
        for host in self._direct():
            host.back.add(standby.port)

    def moves_to(self, server: PostgresServer) -> None:
        """From now on `server` takes the writes; the one before it is still there."""
        assert self.address is not None
        self.address.target = server.port
        self.database.close()
        for host in self._direct():
            host.back.move(server.port)
        self.server = server

    def drops(self, server: PostgresServer) -> None:
        """From now on there is nobody where `server` was."""
        for host in self._direct():
            host.back.drop(server.port)

    def beats(self) -> list[Beat]:
        with self.database.reading() as connection:
            rows = connection.execute(_BEATS)
            return [Beat(row.node, row.rank, row.state, row.queue, float(row.age)) for row in rows]

    def lease(self) -> tuple[int, int]:
        """The rank that leads, 0 where none does, and the epoch."""
        with self.database.reading() as connection:
            row = connection.execute(_LEASE).first()
            return (0, 0) if row is None else (row.rank if 0 < row.left < _LEASE_S else 0, row.epoch)

    def takeover_after(self, epoch: int) -> float | None:
        """When another node took the lease after `epoch`; None: not yet, or the database does not say."""
        table = tables.failovers
        query = select(table.c.at).where(table.c.epoch > epoch).order_by(table.c.epoch).limit(1)
        try:
            with self.database.reading() as connection:
                found = connection.scalar(query)
        except LedgerError:
            return None
        return None if found is None else float(found)

    def steady(self) -> None:
        """Waits until rank 1 leads, all nodes beat and answer, and every queue is empty. AssertionError: not so."""
        try:
            until(self._is_steady, "the primary leads, every node answers, every queue is empty", _HEAL_S)
        except AssertionError as error:
            raise AssertionError(f"{error}\nbeats: {self.beats()}\nlease (rank, epoch): {self.lease()}") from None

    def _is_steady(self) -> bool:
        try:
            fresh = [beat for beat in self.beats() if abs(beat.age) < _FRESH_S]
            leader, _ = self.lease()
        except LedgerError:  # a connection from before the outage
            return False
        ranks = {beat.rank for beat in fresh if beat.state in ("LEADING", "STANDBY")}
        return (
            leader == 1
            and ranks == set(range(1, NODES + 1))
            and len(fresh) == NODES
            and all(beat.queue <= self.tolerated for beat in fresh)
            and all(host.member.server.answers("/readyz") for host in self.hosts)
        )

    def keep_output(self, member: Member) -> None:
        """A node's log, before it is gone."""
        if not member.server._output.closed:
            with (self.folder / f"{member.id}.log").open("a", encoding="utf-8") as file:
                file.write(member.server.output())

    def _given_to_the_role(self, url: URL) -> URL:
        """`url` for the nodes' role, which owns that database from now on."""
        self.superuser.does(f"CREATE ROLE {ROLE} LOGIN", f"ALTER DATABASE {url.database} OWNER TO {ROLE}")
        return url.set(username=ROLE)

    @property
    def _login(self) -> str:
        user, password = self._url.username or "", self._url.password
        return quote(user) if password is None else f"{quote(user)}:{quote(str(password))}"

    def _direct(self) -> list[Host]:
        """The nodes that no pooler is in front of."""
        return [host for host in self.hosts if self.pooler is None or host.rank != _POOLED_RANK]

    def close(self) -> None:
        for member in self._members:
            self.keep_output(member)
            member.server.kill_tree()
        for host in self.hosts:
            if host.disk is not None:
                host.disk.close()
        self.database.close()


@contextlib.contextmanager
def site(folder: Path, **more: str) -> Iterator[Site]:
    """A cluster on a Postgres of its own, to be started; all of it ends afterwards. `more`: settings of every node."""
    with contextlib.ExitStack() as stack:
        net = stack.enter_context(network())
        clock = clock_of_the_server(folder)
        server = stack.enter_context(PostgresServer(folder / "postgres", env=None if clock is None else clock.env))
        address = net.link(free_port(), server.port)
        pooler = None
        if PgBouncer.is_installed():
            pooler = PgBouncer(address, folder / "pgbouncer", user=ROLE).start()
            stack.callback(pooler.kill)
        made = Site(folder, net, server, pooler, address, clock, **more)
        # Another one by then, where a standby was promoted.
        stack.callback(lambda: made.server.close())
        yield stack.enter_context(contextlib.closing(made))


def clock_of_the_server(folder: Path) -> WallClock | None:
    """A clock for Postgres alone; None where there is no C compiler."""
    library = clock_library(folder)
    if library is None:
        return None
    (folder / "server").mkdir()
    return WallClock(folder / "server", library)
