"""Every row of the table, its precedence, and what holds whatever is observed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failover.config import Config
from failover.decide import TABLE, decide, leads, turn_at
from failover.model import Action, Decision, Identity, Lease, Observation, Role, State, role_of

CONFIG = Config()
NOW = 1_000.0
ONE, TWO, THREE = (Identity(f"i{rank}", f"n{rank}", rank) for rank in (1, 2, 3))


def seen(**given: object) -> Observation:
    """Rank 2 stands by; rank 1 holds a good lease, beats, and the database answers."""
    usual: dict[str, object] = {
        "now": NOW,
        "me": TWO,
        "state": State.STANDBY,
        "ledger_since": NOW - 100,
        "lease": Lease(ONE, 7, 0.0, 4.0),
        "lease_expires_at": NOW + 4,
        "primary": ONE,
        "primary_beat_age": 0.5,
        "primary_healthy_since": NOW - 100,
    }
    return Observation(**{**usual, **given})  # type: ignore[arg-type]


def leading(**given: object) -> Observation:
    """Rank 2 leads in backup mode and has just renewed; rank 1 does not beat."""
    usual: dict[str, object] = {
        "state": State.LEADING,
        "lease": Lease(TWO, 8, 0.0, 5.9),
        "trusted_until": NOW + 5.4,
        "renewed_at": NOW - 0.1,
        "led_since": NOW - 100,
        "primary": None,
        "primary_beat_age": None,
        "primary_healthy_since": None,
    }
    return seen(**{**usual, **given})


RETURNED = {"primary": ONE, "primary_beat_age": 0.2, "primary_healthy_since": NOW - 31}


@pytest.mark.parametrize(
    ("observation", "state", "actions"),
    [
        (seen(), State.STANDBY, ()),
        (seen(own_pending=3), State.STANDBY, (Action.REPLAY,)),
        (seen(state=State.STARTING, ready=False), State.STARTING, ()),
        (seen(state=State.STARTING, ready=False, lease_expires_at=NOW - 9), State.STARTING, ()),
        (seen(state=State.STARTING), State.STANDBY, ()),
        (seen(state=State.STANDBY, ready=False), State.STARTING, ()),
        (seen(state=State.STARTING, ready=False, own_pending=1), State.STARTING, (Action.REPLAY,)),
        (seen(state=State.STARTING, ready=False, ledger_since=None), State.ISOLATED, ()),
        # one that cannot work any more, or that was handed the lease before it can
        (leading(ready=False), State.STARTING, (Action.RESIGN,)),
        (leading(ready=False, trusted_until=None), State.STARTING, (Action.RESIGN,)),
        (leading(ready=False, **RETURNED), State.STARTING, (Action.RESIGN,)),
        (leading(ready=False, ledger_since=None), State.STARTING, (Action.RESIGN,)),
        # a lease that is free
        (seen(lease_expires_at=NOW), State.CANDIDATE, (Action.ACQUIRE,)),
        (seen(lease=None, lease_expires_at=None), State.CANDIDATE, (Action.ACQUIRE,)),
        (seen(lease_expires_at=NOW - 0.5, me=THREE), State.CANDIDATE, ()),
        (seen(lease_expires_at=NOW - 1.0, me=THREE), State.CANDIDATE, (Action.ACQUIRE,)),
        (seen(lease_expires_at=NOW - 9, ledger_since=NOW - 1), State.CANDIDATE, ()),
        (seen(lease_expires_at=NOW - 9, ledger_since=NOW - 2), State.CANDIDATE, (Action.ACQUIRE,)),
        (seen(lease_expires_at=NOW - 9, ledger_since=NOW, me=ONE), State.CANDIDATE, (Action.RENEW,)),
        (
            seen(lease=Lease(TWO, 8, 0.0, -9), lease_expires_at=NOW - 9, ledger_since=NOW, me=ONE),
            State.CANDIDATE,
            (Action.ACQUIRE,),
        ),
        (seen(state=State.CANDIDATE), State.STANDBY, ()),
        # a lease that is this process's, handed over or from before an outage
        (seen(lease=Lease(TWO, 8, 0.0, 5.9)), State.CANDIDATE, (Action.RENEW,)),
        # leading
        (leading(), State.LEADING, ()),
        (leading(renewed_at=NOW - 1.5), State.LEADING, (Action.RENEW,)),
        (leading(own_pending=1), State.LEADING, (Action.REPLAY,)),
        (leading(trusted_until=NOW, lease_expires_at=NOW + 0.5), State.CANDIDATE, (Action.RENEW,)),
        (leading(ledger_since=None), State.LEADING, ()),
        (leading(ledger_since=None, trusted_until=NOW), State.ISOLATED, ()),
        # failback
        (leading(**RETURNED), State.DRAINING, (Action.HAND_OVER,)),
        (leading(**RETURNED, pending=1), State.DRAINING, ()),
        (leading(**RETURNED, pending=1, renewed_at=NOW - 2), State.DRAINING, (Action.RENEW,)),
        (leading(**RETURNED, ledger_since=None), State.LEADING, ()),
        (leading(**{**RETURNED, "primary_beat_age": 3.1}), State.LEADING, ()),
        (leading(**RETURNED, led_since=NOW - 29), State.LEADING, ()),
        (leading(**{**RETURNED, "primary_beat_age": None}), State.LEADING, ()),
        (leading(**{**RETURNED, "primary_healthy_since": NOW - 29}), State.LEADING, ()),
        (leading(**{**RETURNED, "primary_healthy_since": None}), State.LEADING, ()),
        (leading(**RETURNED, last_failback_at=NOW - 29), State.LEADING, ()),
        (leading(**RETURNED, last_failback_at=NOW - 30), State.DRAINING, (Action.HAND_OVER,)),
        (leading(**RETURNED, me=ONE), State.LEADING, ()),
        (leading(**RETURNED, state=State.DRAINING, trusted_until=NOW - 1), State.CANDIDATE, (Action.RENEW,)),
        # the database away
        (seen(ledger_since=None), State.ISOLATED, ()),
        (seen(ledger_since=None, own_pending=1), State.ISOLATED, ()),
        (seen(ledger_since=None, lease_expires_at=NOW - 9), State.ISOLATED, ()),
        (seen(state=State.ISOLATED, own_pending=1), State.REPLAYING, (Action.REPLAY,)),
        (seen(state=State.REPLAYING, own_pending=1), State.REPLAYING, (Action.REPLAY,)),
        (seen(state=State.REPLAYING), State.STANDBY, ()),
        (seen(state=State.ISOLATED), State.STANDBY, ()),
        # stopping
        (leading(stop_requested=True), State.STOPPING, (Action.RESIGN,)),
        (leading(stop_requested=True, trusted_until=NOW - 1), State.STOPPING, (Action.RESIGN,)),
        (leading(stop_requested=True, own_pending=4), State.STOPPING, (Action.RESIGN, Action.REPLAY)),
        (seen(state=State.STOPPING, own_pending=1), State.STOPPING, (Action.REPLAY,)),
        (seen(state=State.STOPPING, own_pending=1, ledger_since=None), State.STOPPING, ()),
        # handed over a moment ago, and not renewed yet: nobody else would lead until it ran out
        (leading(stop_requested=True, trusted_until=None), State.STOPPING, (Action.RESIGN,)),
        (seen(stop_requested=True), State.STOPPING, ()),
        (seen(stop_requested=True, lease_expires_at=NOW - 1), State.STOPPING, ()),
        (seen(state=State.STOPPING), State.STOPPING, ()),
    ],
)
def test_each_observation_has_its_decision(observation: Observation, state: State, actions: tuple[Action, ...]) -> None:
    assert decide(observation, CONFIG) == Decision(state, actions)


def test_every_row_of_the_table_is_reached() -> None:
    cases = test_each_observation_has_its_decision.pytestmark[0].args[1]  # type: ignore[attr-defined]
    reached = set()
    for observation, _state, _actions in cases:
        rule = next(rule for rule in TABLE if observation.state in rule.states and rule.when(observation, CONFIG))
        reached.add(TABLE.index(rule))
    assert reached == set(range(len(TABLE)))


def test_a_resigned_leader_does_not_elect_itself_again() -> None:
    resigned = leading(
        stop_requested=True, state=State.STOPPING, trusted_until=None, lease_expires_at=NOW - 0.1, renewed_at=None
    )
    assert decide(resigned, CONFIG) == Decision(State.STOPPING)
    assert decide(replace(resigned, stop_requested=False), CONFIG) == Decision(State.STOPPING)


def test_without_knowing_since_when_the_database_answers_the_turn_is_counted_from_now() -> None:
    assert turn_at(seen(ledger_since=None, lease_expires_at=None), CONFIG) == NOW + CONFIG.probe_interval


@pytest.mark.parametrize(
    ("state", "rank", "leader", "role"),
    [
        (State.LEADING, 1, True, Role.PRIMARY),
        (State.DRAINING, 2, True, Role.BACKUP),
        (State.STANDBY, 1, False, Role.STANDBY),
        (State.LEADING, 1, False, Role.STANDBY),
        (State.ISOLATED, 1, False, Role.ISOLATED),
    ],
)
def test_the_role_follows_from_leading_and_reach(state: State, rank: int, leader: bool, role: Role) -> None:
    assert role_of(state, rank, leader) is role


#: The diagram at the head of the package: from where to where. Staying is always allowed, stopping too.
DIAGRAM = {
    State.STARTING: {State.STANDBY, State.CANDIDATE, State.ISOLATED, State.REPLAYING},
    State.STANDBY: {State.STARTING, State.CANDIDATE, State.ISOLATED, State.LEADING},
    State.CANDIDATE: {State.STARTING, State.STANDBY, State.LEADING, State.ISOLATED},
    State.LEADING: {State.STARTING, State.DRAINING, State.STANDBY, State.CANDIDATE, State.ISOLATED},
    State.DRAINING: {State.STARTING, State.LEADING, State.STANDBY, State.CANDIDATE, State.ISOLATED},
    State.ISOLATED: {State.STARTING, State.REPLAYING, State.STANDBY, State.CANDIDATE},
    State.REPLAYING: {State.STARTING, State.STANDBY, State.CANDIDATE, State.ISOLATED},
    State.STOPPING: set(),
}
MOMENTS = st.one_of(st.none(), st.floats(NOW - 60, NOW + 10))
PROCESSES = st.sampled_from([ONE, TWO, THREE])
OBSERVATIONS = st.builds(
    Observation,
    now=st.just(NOW),
    me=PROCESSES,
    state=st.sampled_from(State),
    ready=st.booleans(),
    stop_requested=st.booleans(),
    ledger_since=st.one_of(st.none(), st.floats(NOW - 60, NOW)),
    lease=st.one_of(st.none(), st.builds(Lease, PROCESSES, st.integers(1, 9), st.just(0.0), st.just(1.0))),
    lease_expires_at=MOMENTS,
    trusted_until=MOMENTS,
    renewed_at=MOMENTS,
    led_since=MOMENTS,
    primary=st.one_of(st.none(), st.just(ONE)),
    primary_beat_age=st.one_of(st.none(), st.floats(0, 20)),
    primary_healthy_since=MOMENTS,
    last_failback_at=MOMENTS,
    pending=st.integers(0, 2),
    own_pending=st.integers(0, 2),
)


@given(OBSERVATIONS)
def test_whatever_is_observed_the_rules_hold(o: Observation) -> None:
    decision = decide(o, CONFIG)
    actions = decision.actions
    if not leads(o):
        moved = decision.state not in (o.state, State.STOPPING)
        assert not moved or decision.state in DIAGRAM[o.state]
        assert decision.state not in (State.LEADING, State.DRAINING)
        assert Action.HAND_OVER not in actions
    if o.stop_requested or o.state is State.STOPPING:
        assert decision.state is State.STOPPING
        assert set(actions) <= {Action.RESIGN, Action.REPLAY}
    if not o.ready:
        assert decision.state in (State.STARTING, State.ISOLATED, State.STOPPING)
        assert not {Action.ACQUIRE, Action.RENEW, Action.HAND_OVER} & set(actions)
    if o.ledger_since is None:
        assert not {Action.ACQUIRE, Action.REPLAY, Action.HAND_OVER} & set(actions)
    if Action.ACQUIRE in actions:
        assert not leads(o)
        assert o.lease_expires_at is None or o.lease_expires_at <= NOW
    if Action.HAND_OVER in actions:
        assert o.pending == 0
        assert o.me.rank != 1
        assert o.primary is ONE
