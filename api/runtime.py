"""One process's share of a node: what it opens at start, what it holds, and what it says while it waits.

A ledger that is down at start is waited for in the background: calls are answered `STARTING` meanwhile.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from sqlalchemy import select

from api import logs
from api.checks.isolated import Isolated
from api.checks.recorder import Recorder
from api.checks.unknown_keys import UnknownKeys
from api.config.settings import Settings
from api.ids import new_id
from api.ledger import migrate, permitted_keys, tables
from api.ledger.database import AcquirePolicy, Database
from api.ledger.errors import LedgerBusy, LedgerContradicts, LedgerError
from api.ledger.records import LicenseQuery
from api.ledger.store import ledger_on
from api.licensing import UNWATCHED
from api.node.clock import Clock
from api.node.identity import Node
from api.node.shared_state import STATE_NAME, open_shared_state
from api.node.siblings import Siblings
from api.node.troubles import Trouble
from api.problems import Problem
from api.signing import KeyNotPermitted, Keyring, PermittedKeys, Signer, jwks
from api.snapshot import SNAPSHOT_NAME, Reader, require_leave, source_of
from api.snapshot.evidence import Evidence
from api.snapshot.timekeeping import Timekeeping
from api.supervisor import LedgerState, Published
from api.supervisor.troubles import trouble_of
from failover.config import deploy_overlap
from failover.jobs import Jobs

_log = logs.get("runtime")

_FOLLOW_EVERY_S = 1.0
#: No worker asks what the supervisor has asked so short a time ago; it does so at every beat, idle or not.
_TOLD_FOR_S = 3.0
#: The ledger counts as out of reach when it has answered nobody for so many seconds.
_REACHABLE_FOR_S = 5.0
#: The same while polls only wait for a connection: longer than an admin's longest statement.
_BUSY_FOR_S = 15.0
_SUPERVISOR_PATIENCE_S = 3.0
#: How long one that supervises and ends waits for the others of its node to end as well, and then for itself.
_SIBLINGS_S, _LEAVE_S = 0.7, 10.0
_SETTLE_S, _SETTLE_LOOK_S = 5.0, 0.02
#: What a node opens in all, and what of it the supervisor and admins have.
_CONNECTIONS, _SUPERVISORS, _ADMINS = 5, 2, 1
_NOBODY = LicenseQuery(key_hash="")


class Runtime:
    """Made once per process, after any fork: it owns the connections, the lanes and the background jobs."""

    def __init__(self, settings: Settings, instance: str | None = None) -> None:
        """`instance`: the node's, where a supervisor of that name runs beside the workers; else one is run here."""
        self.settings = settings
        self.clock = Clock()
        self.started = self.clock.monotonic()
        self.node_state = Published(settings.data_dir)
        self._siblings = Siblings(settings.data_dir, settings.node_id) if instance is None else None
        own = instance or (self._siblings.instance if self._siblings else new_id())
        self.node = Node(settings.node_id, settings.node_rank, own, self.node_state.read, instance is not None)
        self._supervisor: threading.Thread | None = None
        self._supervises, self._lease_left_to_sibling = threading.Event(), threading.Event()
        self._settled = False
        self._stop = threading.Event()
        self.state = open_shared_state(settings.data_dir)
        url = settings.database_url
        database = Database(url, pool_size=_pool_size(settings))
        budget_s, writer = settings.ledger_budget, new_id()
        terms = AcquirePolicy(budget_s, budget_s, self._is_isolated, lambda: self.state.breaker.last_isolated)
        self.ledger = ledger_on(database, writer, self.clock, budget_s=budget_s, terms=terms)
        #: For what admins ask: nothing that they do takes a connection from the customers.
        self.admins = database if database.is_sqlite else Database(url, pool_size=1, shared=_admins_lock(settings))
        # Nobody waits for the poll of a node that is cut off: it brings the connections for when that is over.
        self._probe = ledger_on(database, new_id(), self.clock, terms=AcquirePolicy(not_before=terms.not_before))
        self._source = source_of(url)
        self.reader = Reader(
            settings.data_dir / SNAPSHOT_NAME,
            self.state.changes,
            self.clock.monotonic,
            source=self._source,
            longest_s=settings.isolated_max_age,
        )
        # Alone it would not be told that the ledger is back: without a place to share, no going on without it.
        isolated = self._isolated() if self.state.is_shared else None
        self.evidence = Evidence(self.reader, database, self.state.breaker)
        self.recorder = Recorder(
            self.ledger,
            self.node,
            self.clock,
            reader=self.reader,
            state=self.state,
            isolated=isolated,
            evidence=self.evidence,
            hurried=ledger_on(database, writer, self.clock, budget_s=budget_s, terms=terms, hurried=True),
            budget_s=budget_s,
        )
        self.unknown_keys = UnknownKeys(
            self.state.changes, settings.workers, self.clock.monotonic, is_known=self.reader.has_key
        )
        self.timekeeping = Timekeeping(self.clock, database, self.state.breaker, self.reader.position)
        self.jobs = Jobs()
        self.published: dict[str, Any] = {"keys": []}
        self._prepared = False
        self._poll_failed = False
        #: When (monotonic) this process last asked the ledger itself, and when that last answered the supervisor.
        self._asked_at, self._told_at = float("-inf"), float("-inf")
        self._waiting_for = "the ledger"
        #: Why nothing may be founded in the ledger, at the last try.
        self._objection: str | None = None
        self._signer: Signer | None = None
        #: Which ledger this node answers from: known as soon as there is a signer.
        self.ledger_id = ""
        self._polling = threading.Lock()
        self._has_polled = threading.Event()

    def start(self) -> None:
        """Starts the background jobs, unless it was stopped before; the first poll of the ledger runs at once."""
        if self._stop.is_set():
            return
        threading.Thread(target=self._first_poll, name="first-poll", daemon=True).start()
        self.jobs.every(_FOLLOW_EVERY_S, "ledger", self.poll)
        self.jobs.start()
        if self._siblings is not None:
            self._supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
            self._supervisor.start()

    def settle(self) -> None:
        """Waits until this process gives verdicts, or knows that it will not soon; some seconds at most.

        For a worker that is yet to take connections: another one, or the next server, can answer at once.
        """
        end = self.started + _SETTLE_S
        self._has_polled.wait(end - self.clock.monotonic())
        while self._signer is not None and not self._knows_its_part() and self.clock.monotonic() < end:
            time.sleep(_SETTLE_LOOK_S)

    def stop(self) -> None:
        self._stop.set()
        self.jobs.stop()
        self.ledger.database.close()
        self.admins.close()
        self.reader.close()
        if self._siblings is not None:
            self._siblings.leave()

    def give_up(self) -> None:
        """`stop`, with the supervisor at its end: nothing of this process has a part in the node any more."""
        self.stop()
        if self._supervisor is not None:
            self._supervisor.join(_LEAVE_S)

    def leave(self) -> None:
        """To be called when the process ends: the last of the node's resigns, any other leaves the lease to them."""
        if self._siblings is None or self._stop.is_set():
            return
        self.jobs.stop()
        supervises = self._supervises.is_set()
        is_last = self._siblings.leave(_SIBLINGS_S if supervises else 0.0)
        if not is_last:
            self._lease_left_to_sibling.set()
        self._stop.set()
        if self._supervisor is not None:
            self._supervisor.join(_LEAVE_S)
        if is_last and not supervises:
            self._resign()

    @property
    def supervises(self) -> bool:
        """Whether this process has its node's part in the cluster, as one does under a server other than ours."""
        return self._supervises.is_set()

    @property
    def signer(self) -> Signer:
        """The key that signs now. Raises the problem `STARTING`, which says what this node waits for."""
        ready = self._signer is not None and self._knows_its_part() and self._withheld_reason is None
        if self._signer is None or not ready:
            raise Problem("STARTING", f"waiting for {self.waiting_for}")
        return self._signer

    @property
    def waiting_for(self) -> str | None:
        """What keeps this node from giving verdicts, None when nothing does."""
        if self._signer is None:
            return self._withheld_reason or self._waiting_for
        if not self._knows_its_part():
            return "the supervisor"
        if self._withheld_reason is not None:
            return self._withheld_reason
        if self.ledger_reachable:
            return None
        reason = self.reader.unusable_reason(self.clock.now())
        return f"the ledger: {reason}" if reason else None

    @property
    def _withheld_reason(self) -> str | None:
        """What keeps this node from giving verdicts though it has a key: its supervisor found it, or this process."""
        said = self.node_state.read()
        if said is not None and said.waits_for is not None:
            return said.waits_for
        dispute = self.clock.dispute
        return None if dispute is None or self.clock.is_trusted else trouble_of(dispute)

    @property
    def troubles(self) -> list[str]:
        """What an operator has to see to, each as a sentence."""
        said = self.node_state.read()
        own = [] if self.state.is_shared else [Trouble.DISK()]
        if said is not None and not self.node.is_own(said) and self._outlasts_a_deploy():
            own.append(Trouble.FOLDER_SHARED(node=said.node))
        for reason in (self._objection, self._withheld_reason):
            if reason is not None and (said is None or reason not in said.troubles):
                own.append(reason)
        return own + ([] if said is None else list(said.troubles))

    def _outlasts_a_deploy(self) -> bool:
        overlap = deploy_overlap(self.settings.failback_delay, self.settings.heartbeat_timeout)
        return self.clock.monotonic() - self.started > overlap

    @property
    def ledger_reachable(self) -> bool:
        """Whether it answered lately. A poll for which this process had no connection free says nothing of it."""
        if self.state.breaker.isolated_since is not None:
            return False
        answered_at = max(self.ledger.database.answered_at or float("-inf"), self._told_at)
        patience_s = _REACHABLE_FOR_S if self._poll_failed else _BUSY_FOR_S
        return self.clock.monotonic() - answered_at < patience_s

    def _knows_its_part(self) -> bool:
        """Whether the supervisor has spoken. Serving does not depend on it, so it is waited for only at the start."""
        if self._settled:
            return True
        said = self.node_state.read()
        heard = said is not None and said.at > self.started
        if said is not None:
            # What it is to find out first: whether silence counts, or that there is nobody to ask.
            heard = heard and (said.watch != UNWATCHED if said.ledger_reachable else self._is_isolated())
        self._settled = heard or self.clock.monotonic() - self.started > _SUPERVISOR_PATIENCE_S
        return self._settled

    def require_started(self) -> None:
        """Raises the problem `STARTING` until the ledger has been opened."""
        _ = self.signer

    def poll(self) -> None:
        """Prepares the ledger where that is still to be done, and follows the permitted keys. Raises `LedgerError`.

        The ledger is asked only for what the supervisor has not been told by it a moment ago.
        """
        with self._polling:
            self._share()
            self.timekeeping.heed()
            told = self._told()
            if told is not None and told.keys is not None:
                self._take(told, told.keys)
                return
            try:
                self._ask()
            except LedgerContradicts as error:
                self._say_waiting(str(error))
                raise
            except LedgerError as error:
                self._poll_failed = self._poll_failed or not isinstance(error, LedgerBusy)
                if self._signer is None or not self.clock.is_trusted:
                    self._start_isolated(error)
                raise

    def _told(self) -> LedgerState | None:
        """What the ledger last told the supervisor, where that is worth as much as if this process had asked."""
        said = self.node_state.read()
        # A node that is cut off opens the connections that it needs when that is over.
        if said is None or said.ledger is None or said.source != self._source or self._is_isolated():
            return None
        is_fresh = 0.0 <= self.clock.monotonic() - said.ledger.received < _TOLD_FOR_S
        # A clock that is not decided yet is held against more than samples.
        return said.ledger if self._prepared and is_fresh and self.clock.is_decided and self.clock.is_trusted else None

    def _take(self, told: LedgerState, permitted: PermittedKeys) -> None:
        """Nothing but that it answered, where this process has asked since: it may have founded the keys itself."""
        self._told_at, self._poll_failed = told.received, False
        if told.sent <= self._asked_at:
            return
        self.timekeeping.look()  # of one that is decided it asks nobody
        if told.clock is not None:
            self.clock.sample(told.clock, told.sent, told.received)
        self.ledger_id = told.ledger_id or self.ledger_id
        self._adopt(permitted)

    def _ask(self) -> None:
        if not self._prepared:
            self._prepare()
        self._asked_at = self.clock.monotonic()
        self.timekeeping.look()
        (self._probe if self._is_isolated() else self.ledger).look_up([_NOBODY])  # samples the ledger's clock
        permitted, ledger_id = self._permitted()
        self._poll_failed = False
        self.ledger_id = ledger_id or self.ledger_id
        self._adopt(permitted)

    def _isolated(self) -> Isolated:
        return Isolated(self.settings.queue_path, self.reader, self.state.breaker, self.node, self.clock)

    def _share(self) -> None:
        """Once the disk takes something: what this process shares with the others of its node."""
        if self.state.is_shared:
            return
        try:
            self.settings.data_dir.mkdir(parents=True, exist_ok=True)
            self.state.move_to(self.settings.data_dir / STATE_NAME)
        except OSError:
            return  # said at the start, and on /readyz until it is over
        self.recorder.attach_isolated(self._isolated())
        _log.info("DATA_DIR takes something: this node keeps a copy of its ledger and a queue")

    def _is_isolated(self) -> bool:
        return self.state.breaker.isolated_since is not None

    def _permitted(self) -> tuple[PermittedKeys, str | None]:
        """The keys that the ledger permits, and which ledger it is: another may have taken its place."""
        database = self.ledger.database
        with database.reading() as connection, database.guarded(connection, self.settings.ledger_budget):
            return permitted_keys.load(connection), connection.scalar(select(tables.ledger.c.ledger_id))

    def _start_isolated(self, error: LedgerError) -> None:
        """Without the ledger from the start: this node's own copy of it says which key signs, if it is young enough."""
        copy = self.reader.reading() if self.state.is_shared else None
        position = None if copy is None else copy.position()
        if position is not None:
            self.clock.start_from(position.wall_skew, position.as_of)
        reason = self.reader.unusable_reason(self.clock.now()) if copy else "there is no copy of it here"
        if reason or copy is None:
            self._say_waiting(f"the ledger ({error}): {reason}")
            return
        self.state.breaker.isolate()
        self.ledger_id = "" if position is None else position.ledger_id
        self._adopt(permitted_keys.load_from_snapshot(copy.rows))

    def _prepare(self) -> None:
        database = self.ledger.database
        self._require_leave(database)
        if migrate.upgrade(database):
            _log.info("schema migrated", extra={"revision": migrate.HEAD})
        permitted_keys.found(database, self.settings.signing_keys, self.clock.now())
        self.ledger_id = migrate.ledger_id(database)
        self._prepared = True

    def _require_leave(self, database: Database) -> None:
        """Raises `LedgerContradicts` where this node's copy says that the ledger is not the one that is meant."""
        self._objection = None
        try:
            require_leave(self.reader.reading(), database)
        except LedgerContradicts as error:
            self._objection = str(error)
            raise

    def _adopt(self, permitted: PermittedKeys) -> None:
        keyring = Keyring(self.settings.signing_keys, permitted.statuses)
        public = [permitted.jwks[kid] for kid in keyring.published()]
        self.published = dict(jwks(public[0], public[1:])) if public else {"keys": []}
        try:
            key = keyring.signing_key()
        except KeyNotPermitted as error:
            self._signer = None
            self._say_waiting(str(error))
            return
        if self._signer is None or self._signer.kid != key.kid:
            _log.info("serving", extra={"kid": key.kid, "node": self.node.id})
            self._signer = Signer(key)

    def _say_waiting(self, reason: str) -> None:
        if self._signer is None and reason != self._waiting_for:
            _log.warning("waiting", extra={"for": reason})
        self._waiting_for = reason

    def _resign(self) -> None:
        from api.supervisor.supervise import resign

        resign(self.settings, self.node.instance)

    def _supervise(self) -> None:
        from api.supervisor.supervise import supervise

        supervise(
            self.settings,
            self.node.instance,
            self._stop,
            begun=self._supervises,
            lease_left_to_sibling=self._lease_left_to_sibling,
        )

    def _first_poll(self) -> None:
        try:
            self.poll()
        except LedgerError:  # said by poll; the job tries again, and meanwhile every call needs the queue
            self.recorder.open_queue()
        finally:
            self._has_polled.set()
        self.recorder.open_queue()


def _pool_size(settings: Settings) -> int:
    return max(1, (_CONNECTIONS - _SUPERVISORS - _ADMINS) // settings.workers)


def _admins_lock(settings: Settings) -> Path:
    return settings.data_dir / "admins-connection.lock"
