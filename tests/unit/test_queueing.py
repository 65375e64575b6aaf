"""When a node leaves its ledger because that is silent, and when it goes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.config.settings import Settings
from api.ledger.database import Database
from api.ledger.migrate import upgrade
from api.node.clock import Clock
from api.node.shared_state import STATE_NAME, SharedState
from api.supervisor.queueing import Queueing
from tests.support.clock import FakeClock


@pytest.fixture
def state(tmp_path: Path, clock: FakeClock) -> SharedState:
    return SharedState(tmp_path / STATE_NAME, clock)


@pytest.fixture
def queueing(tmp_path: Path, clock: FakeClock, state: SharedState) -> Queueing:
    settings = Settings.from_env({"DATA_DIR": str(tmp_path), "LEDGER_BUDGET": "0.5"})
    database = Database(settings.database_url)
    upgrade(database)
    made = Queueing(settings, database, Clock(), clock)
    made._breaker = state.breaker  # on this test's clock
    return made


def test_an_answer_that_is_owed_for_longer_than_a_call_may_wait_cuts_the_node_off(
    queueing: Queueing, state: SharedState, clock: FakeClock
) -> None:
    for asking_since, isolated in ((None, False), (999.6, False), (999.4, True)):
        queueing.listen(asking_since)
        assert (state.breaker.isolated_since is not None) is isolated
    assert state.breaker.last_isolated == clock.time


def test_one_answer_that_never_comes_cuts_off_once(queueing: Queueing, state: SharedState, clock: FakeClock) -> None:
    queueing.listen(999.0)
    state.breaker.reconnected()
    clock.time += 5
    queueing.listen(999.0)
    assert state.breaker.isolated_since is None
    queueing.listen(1_004.0)
    assert state.breaker.isolated_since == clock.time


def test_a_look_that_comes_late_itself_proves_no_silence(
    queueing: Queueing, state: SharedState, clock: FakeClock
) -> None:
    queueing.listen(None)
    clock.time += 1
    queueing.listen(1_000.2)
    assert state.breaker.isolated_since is None
    clock.time += 0.2
    queueing.listen(1_000.2)
    assert state.breaker.isolated_since == clock.time


@pytest.mark.parametrize(
    ("polled_at", "goes_back"),
    [
        pytest.param(None, False, id="nothing was ever answered"),
        pytest.param(999.9, False, id="asked before"),
        pytest.param(1_000.9, False, id="asked right after"),
        pytest.param(1_001.1, True, id="asked a while after"),
        pytest.param(1_006.0, False, id="asked by another boot"),
    ],
)
def test_it_goes_back_when_the_ledger_has_answered_what_was_asked_since(
    queueing: Queueing, state: SharedState, clock: FakeClock, polled_at: float | None, goes_back: bool
) -> None:
    state.breaker.isolate()
    clock.time += 5
    queueing.go_back(polled_at)
    assert (state.breaker.isolated_since is None) is goes_back


def test_a_moment_to_come_is_no_cut_off_of_this_boot(state: SharedState, clock: FakeClock) -> None:
    state.breaker.isolate()
    clock.time -= 500
    assert state.breaker.last_isolated == 0.0
    assert state.breaker.isolated_since is None
    state.breaker.isolate()
    assert state.breaker.isolated_since == clock.time
