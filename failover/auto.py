"""Failover for any loop of yours: a primary that beats, a backup that asks `should_activate_backup()` and takes over.

Both share a SQLite file on one machine, or a Postgres. What the backup does meanwhile waits in `sync_queue.db` and is
replayed, in order and each event once, when the primary returns.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from failover.database import Database
from failover.errors import FailoverError
from failover.heartbeat import HeartbeatStore, PrimaryHealth, Report, SqlHeartbeatStore
from failover.lease import LeaseStore, SqlLeaseStore, Trust
from failover.liveness import BeatWatch, LeaseWatch
from failover.model import Identity, Kind, Lease, State, role_of
from failover.queue import Event, EventQueue, Queued
from failover.replay import Replay

Say = Callable[[str], None]
#: Takes one event as it was queued, with its `event_id`; it may be given the same one again after a crash.
EventHandler = Callable[[Mapping[str, Any]], None]

_RULE = "=" * 60
_MARGIN_S = 0.5


class SyncManager:
    """The queue of what happened in backup mode, and its replay through `handler`."""

    def __init__(
        self,
        handler: EventHandler | None = None,
        path: str | Path = "sync_queue.db",
        *,
        say: Say = print,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._handler = handler
        self._say = say
        self._now = now
        self._queue = EventQueue(Path(path), now=now)
        # One event a batch: the handler takes one at a time, and what it took is acknowledged before the next.
        self._replay = Replay(self._queue, self._handle, batch=1)
        self._number = 0

    def queue_event(self, event: Mapping[str, Any]) -> str:
        """Saves `event` (what JSON can hold) on the disk; gives its `event_id`. Raises `QueueError`."""
        event_id = str(event.get("event_id") or uuid.uuid4())
        kind = str(event.get("kind", "event"))
        body = json.dumps({**event, "event_id": event_id})
        self._queue.append([Event(event_id, kind, body, self._now())])
        self._say(f"[SYNC] Event saved in the queue: {kind} - {event.get('text', event_id)}")
        return event_id

    def process_backup_events(self) -> int:
        """Replays what is pending; gives how many the handler took. Raises what the handler raised but `Refused`.

        That is the handler's word that an event is at fault; where it refuses all of several, no try counts.
        """
        waiting = self._queue.stats().pending
        if not waiting:
            return 0
        if self._handler is None:
            raise FailoverError("events wait, and this SyncManager has no handler for them")
        self._say(f"[SYNC] Replaying {waiting} events of the backup...")
        self._number = 0
        return self._replay.run().synced

    def get_sync_stats(self) -> dict[str, int]:
        """`total` events ever queued, those `pending`, and those `synced`."""
        stats = self._queue.stats()
        return {"total": stats.total, "pending": stats.pending, "synced": stats.synced}

    def close(self) -> None:
        """Closes the file."""
        self._queue.close()

    def _handle(self, _origin: str, batch: Sequence[Queued]) -> None:
        for queued in batch:
            event = json.loads(queued.event.body)
            if self._handler is not None:
                self._handler(event)
            self._number += 1
            text = event.get("text", queued.event.event_id)
            self._say(f"[SYNC] Event {self._number} ({queued.event.kind}): {text}")


class AutoFailover:
    """One loop's side of failover. The primary calls `send_primary_heartbeat`; the backup the other three.

    `timeout_seconds`: how long the primary may be silent. `check_every`: the backup's longest pause between two
    calls, in seconds. `failback_delay`: how long a returning primary must have been beating.
    """

    def __init__(
        self,
        handler: EventHandler | None = None,
        *,
        url: str = "sqlite:///failover.db",
        queue_path: str | Path = "sync_queue.db",
        node: str = "backup",
        rank: int = 2,
        timeout_seconds: float = 120.0,
        check_every: float = 300.0,
        failback_delay: float = 0.0,
        say: Say = print,
        monotonic: Callable[[], float] = time.monotonic,
        stores: tuple[LeaseStore, HeartbeatStore] | None = None,
    ) -> None:
        self.me = Identity.new(node, rank)
        self.timeout = timeout_seconds
        self._failback_delay = failback_delay
        self._queue_path = queue_path
        self._handler = handler
        self._say = say
        self._monotonic = monotonic
        self._leases, self._heartbeats = stores or _stores(url)
        # The backup's lease must outlast the pause of its own loop, the primary's must end with its heartbeat.
        self._backups_lease_s = timeout_seconds + 2 * check_every
        self._lease_s = self._lasts(rank)
        margin = min(_MARGIN_S, self._lease_s / 10)
        self._trust = Trust(self._lease_s - margin, monotonic)
        self._lease_watch, self._beat_watch = LeaseWatch(margin / 2), BeatWatch(timeout_seconds)
        self._health = PrimaryHealth(timeout_seconds)
        self._sync: SyncManager | None = None
        self._is_new = True

    @property
    def sync_manager(self) -> SyncManager:
        """The queue of this loop; its file is made with the first use."""
        if self._sync is None:
            self._sync = SyncManager(self._handler, self._queue_path, say=self._say)
        return self._sync

    @property
    def is_backup_mode(self) -> bool:
        """Whether this loop stands in for the primary at this moment."""
        return self.me.rank != 1 and self._trust.holds()

    def send_primary_heartbeat(self) -> bool:
        """The primary is alive. True: it is in charge; False: a backup still is, and hands over at its next check.

        Raises `StoreUnavailable` where the heartbeat cannot be written.
        """
        self._beat()
        if self._is_new:
            self._is_new = False
            self._succeed_myself()
        return self._keep_the_lease()

    def send_backup_heartbeat(self) -> bool:
        """The backup is alive; in backup mode it stays in charge. Gives whether it is in backup mode."""
        self._beat()
        if self._trust.epoch is not None:
            self._keep_the_lease()
        return self.is_backup_mode

    def should_activate_backup(self) -> bool:
        """Whether the backup is to do the primary's work now. Takes over and hands back by itself.

        Raises `StoreUnavailable` where the heartbeats cannot be read: then neither answer would be true. Raises what
        the handler raised, and stays in backup mode: the next check replays the rest.
        """
        beats, now = self._heartbeats.read(), self._monotonic()
        self._health.observe(self._beat_watch.observe(beats, now), now)
        alive = self._health.primary is not None
        self._read_lease()
        if self._trust.epoch is not None and not self._keep_the_lease():
            return False
        if not alive and not self.is_backup_mode:
            self._activate()
        elif alive and self.is_backup_mode and self._is_steady():
            self._hand_back()
        return self.is_backup_mode

    def queue_event_if_backup(self, event: Mapping[str, Any]) -> bool:
        """Saves `event` for the primary's return if this loop is in backup mode; gives whether it did.

        `event` is what JSON can hold, with `kind`, optionally `text` (for the log) and `event_id`: the same id is
        handled once. Raises `QueueError`.
        """
        if not self.is_backup_mode:
            return False
        self.sync_manager.queue_event(event)
        return True

    def _activate(self) -> None:
        if not self._take_the_lease():
            return
        self._announce(
            "[AUTO-FAILOVER] THE PRIMARY IS OFFLINE!", "[AUTO-FAILOVER] BACKUP MODE IS ON, nobody has to do anything."
        )

    def _hand_back(self) -> None:
        self._say(_RULE)
        self._say("[AUTO-FAILOVER] THE PRIMARY IS BACK!")
        self._say("[AUTO-FAILOVER] REPLAYING EVENTS...")
        synced = self.sync_manager.process_backup_events()
        self._say(f"[AUTO-FAILOVER] {synced} events replayed!")
        left = self.sync_manager.get_sync_stats()["pending"]
        if left:
            self._say(f"[AUTO-FAILOVER] {left} events still wait: backup mode stays on.")
        else:
            self._give_the_lease()
            self._say("[AUTO-FAILOVER] THE PRIMARY IS IN CHARGE AGAIN.")
        self._say(_RULE)

    def _is_steady(self) -> bool:
        since = self._health.healthy_since
        return since is not None and self._monotonic() - since >= self._failback_delay

    def _keep_the_lease(self) -> bool:
        """Renews what this process has or was handed; takes what is free. Gives whether it is in charge."""
        lease, sent = self._read_lease(), self._monotonic()
        if lease is None or lease.holder.instance != self.me.instance:
            self._trust.lost()
            return self.me.rank == 1 and self._take_the_lease()
        if not self._leases.renew(self.me, lease.epoch, self._lease_s):
            self._trust.lost()
            return False
        self._trust.renewed(lease.epoch, sent)
        return True

    def _succeed_myself(self) -> None:
        """A primary that was started again takes the lease from its own last process, without waiting for its end."""
        lease = self._leases.watch()
        if lease is not None and (lease.holder.node, lease.holder.rank) == (self.me.node, 1):
            self._leases.hand_over(lease, self.me, self._lease_s, Kind.TAKEOVER)

    def _read_lease(self) -> Lease | None:
        """Reads the lease: whether it is over depends on how long it was seen unchanged."""
        asked = self._monotonic()
        lease = self._leases.watch()
        lasts = self._lasts(lease.holder.rank) if lease else 0.0
        self._lease_watch.observe(lease, asked, self._monotonic(), lasts)
        return lease

    def _lasts(self, rank: int) -> float:
        return self.timeout if rank == 1 else self._backups_lease_s

    def _take_the_lease(self) -> bool:
        lease, sent = self._read_lease(), self._monotonic()
        free = self._lease_watch.free(sent)
        if lease is not None and free is None:
            return False
        epoch = self._leases.acquire(self.me, self._lease_s, free=free)
        if epoch is not None:
            self._trust.renewed(epoch, sent)
        return epoch is not None

    def _give_the_lease(self) -> None:
        lease, to = self._leases.watch(), self._health.primary
        self._trust.lost()
        if lease is not None and to is not None and lease.holder.instance == self.me.instance:
            self._leases.hand_over(lease, to, self.timeout, Kind.FAILBACK)

    def _beat(self) -> None:
        leading = self._trust.holds()
        state = State.LEADING if leading else State.STANDBY
        role = role_of(state, self.me.rank, leading)
        self._heartbeats.write(self.me, Report(role=role.value, state=state.value))

    def _announce(self, *lines: str) -> None:
        for line in (_RULE, *lines, _RULE):
            self._say(line)


def _stores(url: str) -> tuple[LeaseStore, HeartbeatStore]:
    database = Database(url)
    database.create_tables()
    return SqlLeaseStore(database), SqlHeartbeatStore(database)
