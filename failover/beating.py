"""One node's heartbeat: writes how this node is, reads how the others are, and what a failback has to wait for."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

from failover.config import Config
from failover.exchange import BeatAnswer, Exchange
from failover.heartbeat import Beat, HeartbeatStore, PrimaryHealth, Report, doubled
from failover.liveness import BeatWatch
from failover.model import Identity

_log = logging.getLogger("protecao.failover")
#: Rows younger than this do not hold up a failback: intake goes on meanwhile.
_QUEUE_GRACE_S = 2.0
_FORGET_AFTER_S = 7 * 86_400.0
#: How long a beat must have been seen unchanged before it is forgotten, whatever the database's clock makes of its age.
_FORGET_WATCHED_S = 3600.0


class Heartbeat:
    """This node's beats, and what it read of the others' at the last one."""

    def __init__(
        self,
        me: Identity,
        config: Config,
        store: HeartbeatStore,
        exchange: Exchange | None,
        monotonic: Callable[[], float],
        report: Callable[[], Report],
        head_seq: Callable[[], int],
    ) -> None:
        """`exchange`: beats in one message, in place of `store`; `head_seq`: where the log's head is."""
        self._me, self._config = me, config
        self._store, self._exchange = store, exchange
        self._monotonic, self._report, self._head_seq = monotonic, report, head_seq
        self._watch = BeatWatch(config.heartbeat_timeout)
        #: How the process of rank 1 has been.
        self.primary = PrimaryHealth(config.heartbeat_timeout)
        #: Those that were read last.
        self.beats: tuple[Beat, ...] = ()
        #: Nodes of which several processes have beaten for longer than a deploy takes, and how many.
        self.twins: dict[str, int] = {}
        #: What a failback waits for, see `pending`.
        self.pending = 0
        self._heads = deque((0, 0), maxlen=2)
        self._writing = threading.Lock()

    def beat(self, leaving: threading.Event, on_answer: Callable[[BeatAnswer], None]) -> None:
        """Writes this node's beat and reads the others'. Raises what the store raises.

        A node that leaves writes nothing until `write_last`: that it stops with an empty queue is to be its last word.
        `on_answer`: is given the answer of an exchange, which has the lease in it.
        """
        answer = self._write(unless=leaving)
        if leaving.is_set():
            return
        # The head as it was two beats ago: the primary's last beat is up to one old, and knew less than the log then.
        head = self._heads[0]
        self._heads.append(self._head_seq())
        if answer is None:
            self._take(self._store.read(), head)
        else:
            on_answer(answer)
            self._take(answer.beats, head)

    def write_last(self) -> None:
        """Writes a last beat, which says that this process ends, and with what in its queue: others wait no longer."""
        try:
            self._write()
        except Exception as error:
            _log.warning("the last beat was not taken", extra={"reason": str(error)})

    def forget(self) -> None:
        """Removes the beats of processes that have been gone for a week. Raises what the store raises."""
        gone = self._watch.long_gone(self.beats, self._monotonic(), _FORGET_AFTER_S, _FORGET_WATCHED_S)
        self._store.forget(gone)

    def _write(self, unless: threading.Event | None = None) -> BeatAnswer | None:
        # One at a time: a beat that was under way must not be the one after the last.
        with self._writing:
            report = self._report()
            # Asked after the report was made: this one is from before it left.
            if unless is not None and unless.is_set():
                return None
            if self._exchange is not None:
                return self._exchange.beat(self._me, report)
            self._store.write(self._me, report)
            return None

    def _take(self, read: Sequence[Beat], head: int) -> None:
        now, timeout = self._monotonic(), self._config.heartbeat_timeout
        beats = self._watch.observe(read, now)
        self.primary.observe(beats, now)
        before, after = doubled(self.beats, timeout), doubled(beats, timeout)
        self.beats, self.pending = beats, pending(beats, head, self.primary.primary, timeout)
        for rank in after.keys() - before.keys():
            _log.error("several live nodes have one rank", extra={"rank": rank, "nodes": after[rank]})
        self.twins = self._watch.twins(beats, now, self._config.deploy_overlap)


def pending(beats: Sequence[Beat], head: int, primary: Identity | None, timeout: float) -> int:
    """What a failback waits for: rows that fresh nodes have had queued for a while, and events rank 1 has not applied.

    A dead node's queue does not block.
    """
    fresh = [beat for beat in beats if beat.is_fresh(timeout)]
    queued = sum(b.report.queue for b in fresh if (b.report.queue_oldest_s or 0.0) > _QUEUE_GRACE_S)
    applied = max((beat.report.applied_seq for beat in fresh if beat.identity == primary), default=head)
    return queued + max(0, head - applied)
