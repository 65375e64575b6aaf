"""One node's part in the election: look at the lease, decide, act. Each tick is one such round; no thread of its own.

Losing an election is an outcome, not an error; an error of the store is an outage of it, and nothing else stops.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from failover.config import Config
from failover.decide import decide
from failover.errors import StoreBusy
from failover.exchange import BeatAnswer
from failover.lease import LeaseStore, Trust
from failover.liveness import LeaseWatch
from failover.model import Action, Decision, Identity, Kind, Lease, Observation, Role, State, role_of

_log = logging.getLogger("protecao.failover")
#: After a moment that is to come, and no sooner than this.
_SOON_S = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What others find out for the elector between two ticks; the fields are those of `Observation`."""

    ready: bool = True
    stop_requested: bool = False
    primary: Identity | None = None
    primary_beat_age: float | None = None
    primary_healthy_since: float | None = None
    pending: int = 0
    own_pending: int = 0


def _closely() -> bool:
    return True


class Elector:
    """Steps one node through the states. `tick` is called by one thread; everything else by any."""

    def __init__(
        self,
        me: Identity,
        config: Config,
        store: LeaseStore,
        monotonic: Callable[[], float],
        surroundings: Callable[[], Surroundings] = Surroundings,
        epoch_seen: int = 0,
        is_close: Callable[[], bool] = _closely,
    ) -> None:
        """`is_close`: whether to read the lease at every poll, rather than only where there may be news of it."""
        self.me = me
        self.config = config
        self.state = State.STARTING
        self.trust = Trust(config.trust, monotonic)
        self.lease: Lease | None = None
        #: The highest epoch ever seen, so that a ledger restored from a backup cannot use one again.
        self.epoch_seen = epoch_seen
        self.ledger_since: float | None = None
        #: Since when (monotonic) the store has owed an answer to a plain question; None: it owes none.
        self.asking_since: float | None = None
        self.trouble: str | None = None
        self._lease_watch = LeaseWatch(config.margin / 2)
        self._lease_expires_at: float | None = None
        self._last_failback_at: float | None = None
        #: The epoch in which the last failback was asked for: while this node leads in it, there is no other.
        self._failback_asked_in: int | None = None
        self._led_since: float | None = None
        self._is_close = is_close
        self._piggybacked: BeatAnswer | None = None
        #: When (monotonic) the lease was last seen, and when this process last did something about it.
        self._seen_at, self._acted_at = float("-inf"), float("-inf")
        self._store = store
        self._monotonic = monotonic
        self._surroundings = surroundings

    def is_leader(self) -> bool:
        """Whether this node may act as the leader now, by its trust in the last renewal it sent."""
        return self.trust.holds()

    @property
    def role(self) -> Role:
        """The part this node plays at this moment."""
        return role_of(self.state, self.me.rank, self.is_leader())

    def receive(self, answer: BeatAnswer) -> None:
        """Takes the lease from the answer to a beat, so that the next round need not read it. For any thread."""
        self._piggybacked = answer

    def rest_s(self) -> float:
        """For how many seconds nothing can be due, unless a notification comes."""
        config, now, renewed_at = self.config, self._monotonic(), self.trust.renewed_at
        if self._is_close() or self.ledger_since is None:
            return config.poll
        if self.state is State.LEADING and renewed_at is not None:
            until = renewed_at + config.heartbeat_interval
        elif self.state is State.STANDBY and self._lease_expires_at is not None:
            # Where beats bring the lease no more, this thread reads it by itself.
            until = min(self._lease_expires_at, self._seen_at + config.heartbeat_interval + config.poll)
        else:
            return config.poll
        return max(_SOON_S, until - now)

    def tick(self, *, has_news: bool = False) -> Decision:
        """One round. Gives what was decided; `Action.REPLAY` in it is for the caller to do.

        `has_news`: a notification, or a beat, says that the lease has changed.
        """
        self._read_lease(has_news)
        decision = self._decide()
        for action in decision.actions:
            if step := _STEPS.get(action):
                self._reach(functools.partial(step, self))
                self._acted_at = self._monotonic()
        if decision.state is State.CANDIDATE and self.is_leader():
            self._enter(State.LEADING)
        return decision

    def observe(self) -> Observation:
        """All that this node knows now."""
        known = self._surroundings()
        return Observation(
            now=self._monotonic(),
            me=self.me,
            state=self.state,
            ledger_since=self.ledger_since,
            lease=self.lease,
            lease_expires_at=self._lease_expires_at,
            epoch_seen=self.epoch_seen,
            trusted_until=self.trust.until,
            renewed_at=self.trust.renewed_at,
            led_since=self._led_since,
            last_failback_at=self._last_failback_at,
            **{name: getattr(known, name) for name in Surroundings.__dataclass_fields__},
        )

    def _decide(self) -> Decision:
        decision = decide(self.observe(), self.config)
        self._enter(decision.state)
        return decision

    def _enter(self, state: State) -> None:
        if state is self.state:
            return
        fields = {"node": self.me.node, "before": self.state.value, "after": state.value, "epoch": self.epoch_seen}
        _log.info("the state changed", extra=fields)
        self.state = state

    def _reach(self, step: Callable[[], None]) -> None:
        """Does `step` at the store and keeps account of whether the store answers."""
        try:
            step()
        except StoreBusy:
            return  # it answers, and others hold the row: the next round tries again
        except Exception as error:
            if self.ledger_since is not None:
                _log.warning("the lease's store does not answer", extra={"reason": str(error)})
            self.ledger_since, self.trouble = None, f"{type(error).__name__}: {error}"
            return
        self.trouble = None
        if self.ledger_since is None:
            self.ledger_since = self._monotonic()

    def _read_lease(self, has_news: bool) -> None:
        """Reads the lease, or takes it from the last beat's answer where that is fresh enough."""
        piggybacked, self._piggybacked = self._piggybacked, None
        if not has_news and not self._is_close():
            if piggybacked is not None and piggybacked.asked > self._acted_at:
                self._reach(lambda: self._observe_lease(piggybacked.lease, piggybacked.asked, piggybacked.answered))
                return
            if (
                self.is_leader()
                and self._monotonic() - self._seen_at < self.config.heartbeat_interval + self.config.poll
            ):
                return  # a renewal finds out by itself whether it is still this process's
        self._reach(self._watch)

    def _watch(self) -> None:
        self.asking_since = asked = self._monotonic()
        try:
            lease = self._store.watch()
        finally:
            self.asking_since = None
        self._observe_lease(lease, asked, self._monotonic())

    def _observe_lease(self, lease: Lease | None, asked: float, answered: float) -> None:
        self.lease, self._seen_at = lease, asked
        self._lease_watch.observe(lease, asked, answered, self.config.heartbeat_timeout)
        self._lease_expires_at = self._lease_watch.free_at
        if lease is not None:
            self.epoch_seen = max(self.epoch_seen, lease.epoch)
        if self.trust.epoch is not None and not self._is_still_mine(lease):
            self._lose("the lease is another's")
        if self.me.rank != 1 and self.is_leader() and self._failback_asked_in != self.trust.epoch:
            self._ask_for_the_last_failback()

    def _ask_for_the_last_failback(self) -> None:
        """Once in each epoch: from then on its age is this process's own to count. One yet to come is of now."""
        age = self._store.last_failback_age()
        self._last_failback_at = None if age is None else self._monotonic() - max(0.0, age)
        self._failback_asked_in = self.trust.epoch

    def _is_still_mine(self, lease: Lease | None) -> bool:
        return lease is not None and lease.holder.instance == self.me.instance and lease.epoch == self.trust.epoch

    def _acquire(self) -> None:
        sent = self._monotonic()
        free = self._lease_watch.free(sent)
        epoch = self._store.acquire(self.me, self.config.heartbeat_timeout, self.epoch_seen, free)
        if epoch is None:
            _log.info("another took the lease first", extra={"node": self.me.node})
            return
        self._took(epoch, sent)

    def _renew(self) -> None:
        """Renews what this process holds; what was handed over to it becomes its own by its first renewal."""
        epoch = self.trust.epoch or (self.lease.epoch if self.lease else 0)
        sent = self._monotonic()
        if not self._store.renew(self.me, epoch, self.config.heartbeat_timeout):
            self._lose("the lease could not be renewed")
            return
        if self.trust.epoch is None:
            self._took(epoch, sent)
        self.trust.renewed(epoch, sent)

    def _resign(self) -> None:
        epoch = self.trust.epoch or (self.lease.epoch if self.lease else 0)
        self.trust.lost()
        if self._store.resign(self.me, epoch):
            _log.info("the lease is resigned", extra={"node": self.me.node, "epoch": epoch})

    def _hand_over(self) -> None:
        to = self._surroundings().primary
        if to is None or self.lease is None:
            return
        # Trust ends before the transaction begins: whatever becomes of it, two never lead.
        self.trust.lost()
        epoch = self._store.hand_over(self.lease, to, self.config.heartbeat_timeout, Kind.FAILBACK)
        if epoch is None:
            return
        self.epoch_seen = max(self.epoch_seen, epoch)
        self.lease = replace(self.lease, holder=to, epoch=epoch, expires_in=self.config.heartbeat_timeout)
        self._lease_expires_at = self._monotonic() + self.config.heartbeat_timeout
        _log.info("the lease is handed over", extra={"to": to.node, "epoch": epoch, "kind": Kind.FAILBACK.value})

    def _took(self, epoch: int, sent: float) -> None:
        self.epoch_seen = max(self.epoch_seen, epoch)
        self._led_since = sent
        self.trust.renewed(epoch, sent)
        _log.info("this node leads", extra={"node": self.me.node, "epoch": epoch, "role": self.role.value})

    def _lose(self, why: str) -> None:
        self.trust.lost()
        _log.warning("this node no longer leads", extra={"node": self.me.node, "reason": why})


_STEPS: dict[Action, Callable[[Elector], None]] = {
    Action.ACQUIRE: Elector._acquire,
    Action.RENEW: Elector._renew,
    Action.RESIGN: Elector._resign,
    Action.HAND_OVER: Elector._hand_over,
}
