"""Replay: in order, each event once, whatever happens in between."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from failover.errors import Doubted, FailoverError, NotTaken, Refused, Unreadable
from failover.queue import Event, EventQueue, Queued
from failover.replay import Held, Replay, Replayed
from tests.support.clock import FakeClock


class Ledger:
    """An idempotent handler in memory: a batch is applied as a whole or not at all."""

    def __init__(self) -> None:
        self.events: dict[str, None] = {}
        self.calls = 0
        self.bad: set[str] = set()
        self.lose_answers = 0
        self.down = False
        #: What is raised for a batch in which one of these is: by event's id, by key, by kind, or of everything ("").
        self.faults: dict[str, Exception] = {}
        self.batches: list[int] = []
        self.failed = 0

    def __call__(self, origin: str, batch: Sequence[Queued]) -> None:
        self.calls += 1
        self.batches.append(len(batch))
        for queued in batch:
            for name in ("", queued.event.event_id, queued.event.key, queued.event.kind):
                if name in self.faults:
                    self.failed += 1
                    raise self.faults[name]
        if self.down:
            raise ConnectionError("down")
        ids = [queued.event.event_id for queued in batch]
        if bad := self.bad & set(ids):
            raise Refused(f"{sorted(bad)[0]} is not valid")
        self.events.update(dict.fromkeys(ids))
        if self.lose_answers:
            self.lose_answers -= 1
            raise ConnectionError("the commit is in doubt")

    @property
    def order(self) -> list[str]:
        return list(self.events)


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[EventQueue]:
    made = EventQueue(tmp_path / "sync_queue.db")
    made.append([Event(f"e{number}", "check", "{}", 1.0, f"lic{number % 3}") for number in range(10)])
    yield made
    made.close()


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


ALL = [f"e{number}" for number in range(10)]


def test_everything_goes_in_order_and_in_batches(queue: EventQueue, ledger: Ledger) -> None:
    assert Replay(queue, ledger, batch=4).run() == Replayed(synced=10)
    assert (ledger.order, ledger.calls) == (ALL, 3)
    assert (queue.stats().pending, queue.stats().synced) == (0, 10)
    assert Replay(queue, ledger).run() == Replayed()


def test_a_batch_in_doubt_is_sent_again_and_counts_no_try(queue: EventQueue, ledger: Ledger) -> None:
    ledger.lose_answers = 7
    replay = Replay(queue, ledger, batch=4)
    for _ in range(7):
        with pytest.raises(ConnectionError):
            replay.run()
    assert replay.run() == Replayed(synced=10)
    assert ledger.order == ALL
    assert queue.stats().dead == 0


def test_an_outage_is_waited_for_as_long_as_it_takes(queue: EventQueue, ledger: Ledger) -> None:
    ledger.down = True
    for _ in range(20):
        with pytest.raises(ConnectionError):
            Replay(queue, ledger).run()
    ledger.down = False
    assert Replay(queue, ledger).run() == Replayed(synced=10)


def test_a_refused_event_is_set_aside_after_5_tries_and_the_others_go_on(queue: EventQueue, ledger: Ledger) -> None:
    ledger.bad = {"e1"}
    replay = Replay(queue, ledger, batch=4)
    assert replay.run() == Replayed(synced=7, refused=1)
    assert ledger.order == ["e0", "e3", "e2", "e5", "e6", "e8", "e9"], "e4 and e7 are of the same license"
    for _ in range(3):
        assert replay.run() == Replayed(refused=1)
    assert replay.run() == Replayed(synced=2, dead=1)
    assert ledger.order[-2:] == ["e4", "e7"]
    [dead] = queue.dead()
    assert (dead.event.event_id, dead.tries) == ("e1", 5)


def test_a_fault_that_passes_sets_nothing_aside(queue: EventQueue, ledger: Ledger) -> None:
    ledger.bad = {"e0"}
    replay = Replay(queue, ledger)
    replay.run()
    ledger.bad = set()
    assert replay.run() == Replayed(synced=4)
    assert sorted(ledger.order) == ALL


# -- what is not taken ---------------------------------------------------------------------------------------------


def many(path: Path, count: int = 500, *, keys: int = 100, kinds: Sequence[str] = ("check",)) -> EventQueue:
    queue = EventQueue(path / "many.db")
    events = [Event(f"n{n}", kinds[n % len(kinds)], "{}", 1.0, f"k{n % keys}") for n in range(count)]
    queue.append(events)
    return queue


@pytest.mark.parametrize("place", [0, 1, 249, 250, 255, 256, 498, 499])
@pytest.mark.parametrize("error", [NotTaken("held"), Doubted("SQLSTATE 22021"), Refused("no such player")])
def test_one_event_of_many_is_found_by_halving_and_only_its_key_waits(
    tmp_path: Path, ledger: Ledger, place: int, error: FailoverError
) -> None:
    queue = many(tmp_path)
    ledger.faults = {f"n{place}": error}
    replay = Replay(queue, ledger)
    behind = len([n for n in range(500) if n >= place and n % 100 == place % 100])
    done = replay.run()
    assert (done.synced, done.held + done.refused) == (500 - behind, 1)
    assert ledger.calls <= 40, "and not 500"
    assert {queued.event.key for queued in queue.pending(500)} == {f"k{place % 100}"}
    again = ledger.calls
    replay.run()
    assert ledger.calls == again + 1, "what waits is asked for by itself"
    ledger.faults = {}
    assert replay.run().synced == behind
    ordered = [event for event in ledger.order if int(event[1:]) % 100 == place % 100]
    assert ordered == [f"n{n}" for n in range(500) if n % 100 == place % 100], "in the order of its key"
    queue.close()


def test_one_of_a_few_licenses_is_found_in_a_few_tries_however_many_events_wait(tmp_path: Path, ledger: Ledger) -> None:
    """Each try that fails holds up what the ledger would take meanwhile, for as long as a statement may take."""
    queue = many(tmp_path, 400, keys=4)
    ledger.faults = {"k1": NotTaken("SQLSTATE 57014")}
    assert Replay(queue, ledger).run() == Replayed(synced=300, held=1)
    assert ledger.failed <= 4
    queue.close()


def test_a_license_whose_rows_are_held_holds_up_only_its_own(tmp_path: Path, ledger: Ledger) -> None:
    queue = many(tmp_path)
    ledger.faults = {"k7": NotTaken("SQLSTATE 55P03")}
    replay = Replay(queue, ledger)
    assert replay.run() == Replayed(synced=495, held=1)
    for _ in range(50):
        assert replay.run() == Replayed(held=1)
    assert (queue.stats().dead, [queued.tries for queued in queue.pending(10)]) == (0, [0] * 5)
    ledger.faults = {}
    assert replay.run() == Replayed(synced=5)
    queue.close()


def test_batches_grow_again_behind_what_was_in_the_way(tmp_path: Path, ledger: Ledger) -> None:
    queue = many(tmp_path, 4_000, keys=400)
    ledger.faults = {"n3": NotTaken("held")}
    Replay(queue, ledger).run()
    assert ledger.batches[-1] > 250
    assert ledger.calls < 60
    queue.close()


@pytest.mark.parametrize(
    "error", [NotTaken("SQLSTATE 42501"), Doubted("SQLSTATE 23514"), Refused("not logged in"), NotTaken("55P03")]
)
def test_where_everything_is_refused_nothing_is_set_aside_and_the_run_ends_early(
    tmp_path: Path, ledger: Ledger, error: FailoverError
) -> None:
    queue = many(tmp_path)
    ledger.faults = {"": error}
    replay = Replay(queue, ledger)
    for _ in range(60):
        before = ledger.calls
        assert replay.run().synced == 0
        assert ledger.calls - before <= 20
    assert queue.stats().dead == 0
    assert all(queued.tries == 0 for queued in queue.pending(500))
    ledger.faults = {}
    assert replay.run() == Replayed(synced=500)
    assert replay.held is None
    for key in range(100):
        assert [e for e in ledger.order if int(e[1:]) % 100 == key] == [f"n{n}" for n in range(key, 500, 100)]
    queue.close()


def test_a_kind_that_is_refused_while_others_are_taken_waits_for_as_long_as_it_takes(
    tmp_path: Path, ledger: Ledger
) -> None:
    """A table that only activations write."""
    queue = many(tmp_path, kinds=("check", "activate"))
    ledger.faults = {"activate": NotTaken("SQLSTATE 42501")}
    replay = Replay(queue, ledger)
    for _ in range(30):
        replay.run()
    assert len(ledger.events) == 250
    assert (queue.stats().dead, queue.stats().pending) == (0, 250)
    ledger.faults = {}
    replay.run()
    assert queue.stats().pending == 0
    queue.close()


def test_a_refusal_counts_only_in_runs_that_bring_another_of_its_kind_through(tmp_path: Path, ledger: Ledger) -> None:
    with_others = many(tmp_path, 10, keys=10)
    ledger.faults = {"n0": Doubted("SQLSTATE 22003")}
    replay = Replay(with_others, ledger)
    assert replay.run() == Replayed(synced=9, refused=1)
    for _ in range(20):
        assert replay.run() == Replayed(held=1), "nothing else was there to compare it with"
    for number in range(3):
        with_others.append([Event(f"other{number}", "ping", "{}", 1.0, "x")])
        assert replay.run() == Replayed(synced=1, held=1), "of another kind"
    for number in range(4):
        with_others.append([Event(f"more{number}", "check", "{}", 1.0, "x")])
        replay.run()
    assert with_others.stats().dead == 1
    assert [(dead.event.event_id, dead.reason) for dead in with_others.dead()] == [("n0", "SQLSTATE 22003")]
    with_others.close()


def test_what_cannot_be_read_is_set_aside_though_nothing_else_is_there(queue: EventQueue, ledger: Ledger) -> None:
    ledger.faults = {"": Unreadable("DecodeError")}
    replay = Replay(queue, ledger)
    for _ in range(30):
        replay.run()
    assert queue.stats().dead == 10


def test_an_event_that_breaks_the_way_each_time_is_found_by_less_and_less(tmp_path: Path, ledger: Ledger) -> None:
    """A batch that takes so long that the connection is ended says no more than an outage does."""
    queue = many(tmp_path)
    ledger.faults = {"n137": ConnectionError("ended")}
    replay = Replay(queue, ledger)
    ended = 0
    for _ in range(100):
        try:
            replay.run()
        except ConnectionError:
            ended += 1
    assert {queued.event.key for queued in queue.pending(500)} == {"k37"}
    assert queue.stats().dead == 0
    assert replay.held is None, "what breaks the way is seen elsewhere"
    ledger.faults = {}
    replay.run()
    assert queue.stats().pending == 0
    queue.close()


def test_an_event_that_cannot_be_noted_is_not_set_aside_and_holds_up_nobody(queue: EventQueue, ledger: Ledger) -> None:
    def note(queued: Queued, reason: str) -> None:
        raise NotTaken("permission denied for table replay_findings")

    ledger.faults = {"e1": Unreadable("not JSON")}
    replay = Replay(queue, ledger, on_dead=note)
    for _ in range(10):
        replay.run()
    assert (queue.stats().dead, len(ledger.events)) == (0, 7)
    replay = Replay(queue, ledger)
    assert replay.run() == Replayed(synced=2, dead=1)


def test_it_says_what_is_held_up_and_since_when(queue: EventQueue, ledger: Ledger, clock: FakeClock) -> None:
    replay = Replay(queue, ledger, monotonic=clock)
    ledger.faults = {"lic1": NotTaken("SQLSTATE 55P03")}
    began = clock()
    replay.run()
    assert replay.held == Held("SQLSTATE 55P03", began, everything=False)
    clock.move(30)
    ledger.faults = {"": NotTaken("SQLSTATE 42501")}
    queue.append([Event("new", "check", "{}", 1.0, "lic0")])
    replay.run()
    assert replay.held == Held("SQLSTATE 42501", began, everything=True)
    ledger.faults = {}
    replay.run()
    assert replay.held is None


def test_a_run_that_meets_refusals_ends_in_time(tmp_path: Path, ledger: Ledger, clock: FakeClock) -> None:
    """Each may cost a time-out, and the node may have been told to stop."""
    queue = many(tmp_path)

    def slow(origin: str, batch: Sequence[Queued]) -> None:
        try:
            ledger(origin, batch)
        except NotTaken:
            clock.move(2)
            raise

    ledger.faults = {"n7": NotTaken("SQLSTATE 57014")}
    replay = Replay(queue, slow, monotonic=clock)
    for _ in range(20):
        before = clock()
        replay.run()
        assert clock() - before <= 4
    assert {queued.event.key for queued in queue.pending(500)} == {"k7"}
    queue.close()


# -- what was set aside --------------------------------------------------------------------------------------------


def test_what_was_set_aside_and_is_revived_goes_in_its_old_order(queue: EventQueue, ledger: Ledger) -> None:
    ledger.faults = {"lic1": Unreadable("a release that knew less")}
    replay = Replay(queue, ledger)
    for _ in range(30):
        replay.run()
    dead = queue.dead()
    assert [one.event.event_id for one in dead] == ["e1", "e4", "e7"]
    assert queue.stats().oldest_dead_at == 1.0
    ledger.faults = {}
    assert queue.revive([one.position for one in dead]) == 3
    assert queue.revive([one.position for one in dead]) == 0
    assert (queue.stats().dead, queue.stats().pending, queue.holds("lic1")) == (0, 3, True)
    assert [queued.tries for queued in queue.pending(9)] == [0, 0, 0]
    assert replay.run() == Replayed(synced=3)
    assert ledger.order[-3:] == ["e1", "e4", "e7"]
    assert queue.stats().oldest_dead_at is None


def test_two_runs_at_once_do_not_mix(queue: EventQueue, ledger: Ledger) -> None:
    inner: list[Replayed] = []

    def handler(origin: str, batch: Sequence[Queued]) -> None:
        inner.append(Replay(queue, ledger).run())
        ledger(origin, batch)

    assert Replay(queue, handler).run() == Replayed(synced=10)
    assert inner == [Replayed()]


def test_5000_events_a_second_are_within_reach(tmp_path: Path) -> None:
    queue = EventQueue(tmp_path / "many.db")
    for start in range(0, 10_000, 500):
        queue.append([Event(f"e{number}", "check", "{}", 1.0) for number in range(start, start + 500)])
    ledger = Ledger()
    began = time.process_time()  # the machine's other work and its disk are not what is measured
    assert Replay(queue, ledger).run().synced == 10_000
    rate = 10_000 / (time.process_time() - began)
    queue.close()
    assert rate > 5_000
