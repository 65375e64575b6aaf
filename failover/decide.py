"""What a node does next: a table of transitions, read from the top, and nothing else. No I/O and no clock.

The first row whose states and condition fit says the next state and what to do; `_chores` are done in any state.
"""

# ruff: noqa: ARG001 - every condition is asked in the same way

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from failover.config import Config
from failover.model import Action, Decision, Observation, State

Condition = Callable[[Observation, Config], bool]

_ANY = frozenset(State)
_AWAY = frozenset({State.STARTING, State.ISOLATED, State.REPLAYING})


@dataclass(frozen=True, slots=True)
class Rule:
    """In one of `states`, when `when` holds: go `to` that state and do `actions`."""

    states: frozenset[State]
    when: Condition
    to: State
    actions: tuple[Action, ...] = ()


def decide(observation: Observation, config: Config) -> Decision:
    """The next state and what to do now. Pure: the same observation always gives the same decision."""
    rule = next(r for r in TABLE if observation.state in r.states and r.when(observation, config))
    return Decision(rule.to, rule.actions + _chores(observation, config, rule))


def leads(o: Observation) -> bool:
    """Whether this node may trust its lease at `o.now`. Computed, never kept."""
    return o.trusted_until is not None and o.now < o.trusted_until


def turn_at(o: Observation, c: Config) -> float:
    """When a free lease is this node's to try for. Rank 1 does not wait; the others leave it time after an outage."""
    since = o.ledger_since if o.ledger_since is not None else o.now
    free_at = o.lease_expires_at if o.lease_expires_at is not None else since
    if o.me.rank == 1:
        return free_at
    return max(free_at, since + c.probe_interval) + (o.me.rank - 2) * c.stagger


def _chores(o: Observation, c: Config, rule: Rule) -> tuple[Action, ...]:
    chores: list[Action] = []
    keeps = rule.to in (State.LEADING, State.DRAINING) and Action.HAND_OVER not in rule.actions
    if keeps and (o.renewed_at is None or o.now - o.renewed_at >= c.heartbeat_interval):
        chores.append(Action.RENEW)
    if o.own_pending and _ledger_answers(o, c):
        chores.append(Action.REPLAY)
    return tuple(chores)


def _always(o: Observation, c: Config) -> bool:
    return True


def _stopping(o: Observation, c: Config) -> bool:
    return o.stop_requested


def _stopping_with_the_lease(o: Observation, c: Config) -> bool:
    return o.stop_requested and _has_the_lease(o, c)


def _has_the_lease(o: Observation, c: Config) -> bool:
    # One that was handed over a moment ago counts: no other process could lead until it has run out.
    return o.trusted_until is not None or (_is_mine(o, c) and not _is_free(o, c))


def _not_ready_with_the_lease(o: Observation, c: Config) -> bool:
    return not o.ready and _has_the_lease(o, c)


def _not_ready(o: Observation, c: Config) -> bool:
    return not o.ready and _ledger_answers(o, c)


def _ledger_answers(o: Observation, c: Config) -> bool:
    return o.ledger_since is not None


def _ledger_is_away(o: Observation, c: Config) -> bool:
    return o.ledger_since is None


def _leads(o: Observation, c: Config) -> bool:
    return leads(o)


def _may_fail_back(o: Observation, c: Config) -> bool:
    if o.me.rank == 1 or not leads(o) or not _ledger_answers(o, c):
        return False
    # A primary that has just stopped still has a fresh beat and a long health: it must have beaten while this one led.
    if o.primary is None or o.primary_beat_age is None or o.primary_beat_age > 2 * c.heartbeat_interval:
        return False
    if not _long_ago(o.led_since, o, c):
        return False
    return _long_ago(o.primary_healthy_since, o, c) and (
        o.last_failback_at is None or _long_ago(o.last_failback_at, o, c)
    )


def _long_ago(moment: float | None, o: Observation, c: Config) -> bool:
    return moment is not None and o.now - moment >= c.failback_delay


def _may_fail_back_now(o: Observation, c: Config) -> bool:
    return o.pending == 0 and _may_fail_back(o, c)


def _is_mine(o: Observation, c: Config) -> bool:
    """Handed over to this process, or left over from before an outage in which no other process took it.

    One that a restore brought back is no process's: its epoch has been used since.
    """
    return o.lease is not None and o.lease.holder.instance == o.me.instance and o.lease.epoch >= o.epoch_seen


def _is_free(o: Observation, c: Config) -> bool:
    return o.lease_expires_at is None or o.now >= o.lease_expires_at


def _is_free_for_me(o: Observation, c: Config) -> bool:
    return _is_free(o, c) and o.now >= turn_at(o, c)


def _has_rows_to_replay(o: Observation, c: Config) -> bool:
    return o.own_pending > 0


TABLE: tuple[Rule, ...] = (
    Rule(_ANY, _stopping_with_the_lease, State.STOPPING, (Action.RESIGN,)),
    Rule(_ANY, _stopping, State.STOPPING),
    Rule(frozenset({State.STOPPING}), _always, State.STOPPING),
    Rule(_ANY, _not_ready_with_the_lease, State.STARTING, (Action.RESIGN,)),
    Rule(_ANY, _not_ready, State.STARTING),
    Rule(_ANY, _may_fail_back_now, State.DRAINING, (Action.HAND_OVER,)),
    Rule(_ANY, _may_fail_back, State.DRAINING),
    Rule(_ANY, _leads, State.LEADING),
    Rule(_ANY, _ledger_is_away, State.ISOLATED),
    Rule(_ANY, _is_mine, State.CANDIDATE, (Action.RENEW,)),
    Rule(_ANY, _is_free_for_me, State.CANDIDATE, (Action.ACQUIRE,)),
    Rule(_ANY, _is_free, State.CANDIDATE),
    Rule(_AWAY, _has_rows_to_replay, State.REPLAYING),
    Rule(_ANY, _always, State.STANDBY),
)
