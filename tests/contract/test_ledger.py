"""What every ledger promises at its seam, asked of each implementation alike."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from api.ledger import tables
from api.ledger.errors import LedgerRefused
from api.ledger.records import Change, Event, LicenseQuery, LicenseRecord, Tally, Touch
from api.ledger.rows import merged
from api.ledger.store import Ledger
from api.licensing import DAY, MOST_NEVER_CAME
from tests.support.ledger import batch, event, head, known, machine, seat, with_machines
from tests.support.nodes import events_of, license_row, opened_ledger, rows, sell


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    with opened_ledger(ledger_url) as ledger:
        yield ledger


# -- looking up -----------------------------------------------------------------------------------------------------


def test_a_license_is_found_with_its_policy_and_what_it_inherits(ledger: Ledger) -> None:
    rules = {"max_machines": 3, "max_uses": 9, "entitlements": ["pro"], "versions": ">=1", "offline_ttl_s": None}
    inherits = sell(ledger.database, rules)
    own = sell(ledger.database, rules, max_machines=1, max_uses=2, entitlements_json='["x"]', expires_at=1e9 + 0.25)
    first, second = (
        known(answer).license
        for answer in ledger.look_up([LicenseQuery(inherits.key_hash), LicenseQuery(own.key_hash)])
    )
    assert (first.max_machines, first.max_uses, first.entitlements, first.expires_at) == (3, 9, ("pro",), None)
    assert (second.max_machines, second.max_uses, second.entitlements, second.expires_at) == (1, 2, ("x",), 1e9 + 0.25)
    assert (first.policy.product, first.policy.versions, first.policy.offline_ttl_s) == ("app", ">=1", None)


def test_answers_come_in_the_order_of_the_asks_and_unknown_keys_between_them(ledger: Ledger) -> None:
    sold = [sell(ledger.database) for _ in range(5)]
    asks = [LicenseQuery(one.key_hash) for one in sold for _ in range(2)]
    asks[3] = LicenseQuery("nobody")
    found = ledger.look_up(asks)
    expected = [one.id for one in sold for _ in range(2)]
    assert found[3] == LicenseRecord(None)
    assert [known(one).license.id for i, one in enumerate(found) if i != 3] == expected[:3] + expected[4:]
    assert ledger.look_up([]) == []


def test_a_machine_is_found_by_the_fingerprint_that_was_asked_for(ledger: Ledger) -> None:
    sold, other = sell(ledger.database), sell(ledger.database)
    mine, gone = machine(sold, "mine", name="n", platform="p", heartbeat_at=7.5), machine(sold, "gone", active=False)
    seat(ledger, sold, mine, gone)
    asks = [
        LicenseQuery(one.key_hash, fingerprint)
        for one, fingerprint in ((sold, "mine"), (sold, "gone"), (sold, "never"), (sold, None), (other, "mine"))
    ]
    found = [known(answer) for answer in ledger.look_up(asks)]
    assert [one.machines for one in found] == [{"mine": mine}, {"gone": gone}, {}, {}, {}]
    assert [one.seats for one in found] == [1, 1, 1, 1, 0]


def test_looking_up_waits_for_no_writer(ledger: Ledger, ledger_url: str) -> None:
    sold = sell(ledger.database)
    with opened_ledger(ledger_url) as other, other.transaction([LicenseQuery(sold.key_hash)]):
        assert known(ledger.look_up([LicenseQuery(sold.key_hash)])[0]).license.id == sold.id


def test_looking_up_samples_the_ledgers_clock_on_a_shared_ledger(postgres_url: str) -> None:
    with opened_ledger(postgres_url) as ledger:
        clock: Any = ledger._clock  # type: ignore[attr-defined]
        clock._offset += 3600
        ledger.look_up([LicenseQuery("anybody")])
        assert abs(clock.wall_skew) < 5


# -- appending ------------------------------------------------------------------------------------------------------


def test_a_batch_gets_the_next_positions_in_its_order_and_is_written_as_it_is(ledger: Ledger) -> None:
    sold = sell(ledger.database)
    first = event(sold, machine_id="m", mode="backup", occurred_at=1764000000.123456)
    many = [first, *(event(sold) for _ in range(9))]
    ledger.append(batch(*many))
    ledger.append(batch(event(sold, license_id=None)))
    stored = events_of(ledger.database, sold)
    assert [row["seq"] for row in stored] == list(range(1, 11))
    assert [row["event_id"] for row in stored] == [one.event_id for one in many]
    assert stored[0] == {
        **{name: getattr(first, name) for name in first.__struct_fields__},
        "seq": 1,
        "origin": None,
        "origin_seq": None,
        "recorded_at": stored[0]["recorded_at"],
    }
    assert abs(stored[0]["recorded_at"] - time.time()) < 60
    assert head(ledger) == 11


def test_an_event_is_there_once_it_was_appended(ledger: Ledger) -> None:
    one = event(sell(ledger.database))
    assert not ledger.has_event(one.event_id)
    ledger.append(batch(one))
    assert ledger.has_event(one.event_id)


def test_a_batch_with_an_id_that_is_taken_is_refused_as_a_whole_and_moves_nothing(ledger: Ledger) -> None:
    sold = sell(ledger.database)
    one = event(sold)
    ledger.append(batch(one))
    with pytest.raises(LedgerRefused):
        ledger.append(batch(event(sold), one, tallies=[Tally(1, "VALID", True, 5)]))
    assert (head(ledger), len(events_of(ledger.database, sold))) == (1, 1)
    assert rows(ledger.database, tables.check_minutes) == []
    ledger.append(batch(event(sold)))
    assert [row["seq"] for row in events_of(ledger.database, sold)] == [1, 2]


def test_tallies_add_up_apart_for_each_writer(ledger: Ledger, ledger_url: str) -> None:
    tallies = [Tally(29_000_000, "VALID", True, 2), Tally(29_000_000, "EXPIRED", True, 1)]
    with opened_ledger(ledger_url) as other:
        for one in (ledger, ledger, other):
            one.append(batch(tallies=tallies))
        ledger.append(batch(tallies=[Tally(29_000_000, "EXPIRED", False, 4)]))
    counts = sorted((row["code"], row["valid"], row["count"]) for row in rows(ledger.database, tables.check_minutes))
    expired = [("EXPIRED", False, 4), ("EXPIRED", True, 1), ("EXPIRED", True, 2)]
    assert counts == [*expired, ("VALID", True, 2), ("VALID", True, 4)]
    assert head(ledger) == 0


def test_a_touch_says_when_a_license_and_its_machine_were_seen(ledger: Ledger) -> None:
    sold, untouched = sell(ledger.database), sell(ledger.database)
    here = machine(sold, "here")
    seat(ledger, sold, here)
    ledger.append(batch(event(sold), touches=[Touch(sold.id, here.id, 123.5), Touch(untouched.id, None, 9.0)]))
    assert license_row(ledger.database, sold)["last_seen_at"] == 123.5
    assert license_row(ledger.database, untouched)["last_seen_at"] == 9.0
    assert rows(ledger.database, tables.machines, id=here.id)[0]["last_seen_at"] == 123.5


def test_a_touch_leaves_out_a_license_that_another_connection_holds(postgres_url: str) -> None:
    with opened_ledger(postgres_url) as ledger, opened_ledger(postgres_url) as other:
        held, free = sell(ledger.database), sell(ledger.database)
        with other.transaction([LicenseQuery(held.key_hash)]):
            ledger.append(batch(event(held), touches=[Touch(held.id, None, 5.0), Touch(free.id, None, 5.0)]))
        assert license_row(ledger.database, held)["last_seen_at"] is None
        assert license_row(ledger.database, free)["last_seen_at"] == 5.0


# -- transactions ---------------------------------------------------------------------------------------------------


def test_a_transaction_commits_licenses_machines_and_events_together(ledger: Ledger) -> None:
    sold = sell(ledger.database)
    ledger.append(batch(event(sold)))
    here, spare = machine(sold, "here", name="n"), machine(sold, "spare", excess=True)
    with ledger.transaction([LicenseQuery(sold.key_hash, "here")]) as transaction:
        before = known(transaction.known[0])
        license = replace(before.license, expires_at=2e9, uses=4, checked_in_at=5.5, last_seen_at=6.5)
        after = replace(with_machines(before, here, spare), license=license)
        transaction.commit(batch(event(sold), event(sold), changes=[Change(before, after)]))
    row = license_row(ledger.database, sold)
    assert {name: row[name] for name in ("expires_at", "uses", "seats", "excess", "checked_in_at", "last_seen_at")} == {
        "expires_at": 2e9,
        "uses": 4,
        "seats": 2,
        "excess": 1,
        "checked_in_at": 5.5,
        "last_seen_at": 6.5,
    }
    assert (row["seq"], head(ledger)) == (3, 3)
    assert {one["seq"] for one in rows(ledger.database, tables.machines)} == {3}
    assert known(ledger.look_up([LicenseQuery(sold.key_hash, "here")])[0]).machines == {"here": here}


def test_only_what_changed_is_written(ledger: Ledger) -> None:
    sold = sell(ledger.database)
    here, there = machine(sold, "here"), machine(sold, "there")
    seat(ledger, sold, here, there)
    with ledger.transaction([LicenseQuery(sold.key_hash, "here")]) as transaction:
        before = known(transaction.known[0])
        beaten = replace(before, machines={"here": replace(here, heartbeat_at=8.0)})
        transaction.commit(batch(event(sold), changes=[Change(before, beaten)]))
    stored = {row["fingerprint"]: (row["heartbeat_at"], row["seq"]) for row in rows(ledger.database, tables.machines)}
    assert stored == {"here": (8.0, 2), "there": (None, 1)}


@pytest.mark.parametrize("how", ["left without a commit", "an exception"])
def test_a_transaction_that_does_not_commit_changes_nothing_and_frees_its_locks(
    ledger: Ledger, ledger_url: str, how: str
) -> None:
    sold = sell(ledger.database)
    for _ in range(5):  # more often than the pool has connections
        try:
            with ledger.transaction([LicenseQuery(sold.key_hash)]):
                if how == "an exception":
                    raise KeyError(how)
        except KeyError:
            pass
    with opened_ledger(ledger_url) as other:
        seat(other, sold, machine(sold, "here"))
    assert (head(ledger), license_row(ledger.database, sold)["seats"]) == (1, 1)


def test_a_commit_that_is_refused_changes_nothing_and_frees_its_locks(ledger: Ledger) -> None:
    sold = sell(ledger.database)
    taken = event(sold)
    ledger.append(batch(taken))

    def use_nine_times(logged: Event) -> None:
        with ledger.transaction([LicenseQuery(sold.key_hash)]) as transaction:
            before = known(transaction.known[0])
            used = replace(before, license=replace(before.license, uses=9))
            transaction.commit(batch(logged, changes=[Change(before, used)]))

    for _ in range(3):
        with pytest.raises(LedgerRefused):
            use_nine_times(taken)
    seat(ledger, sold, machine(sold, "here"))
    assert (head(ledger), license_row(ledger.database, sold)["uses"]) == (2, 0)


def test_what_an_earlier_call_of_the_same_id_left_is_told(ledger: Ledger) -> None:
    sold = sell(ledger.database)
    one = event(sold, data={"code": "VALID", "uses": 3, "body": "b"})
    ledger.append(batch(one))
    asks = [
        LicenseQuery(sold.key_hash, None, one.event_id),
        LicenseQuery(sold.key_hash, None, "new"),
        LicenseQuery("nobody", None, one.event_id),
    ]
    with ledger.transaction(asks) as transaction:
        recorded = [(answer.recorded, answer.recorded_at) for answer in transaction.known]
    assert recorded == [(one.data, one.occurred_at), (None, None), (one.data, one.occurred_at)]


def test_two_asks_about_one_license_each_get_their_machine(ledger: Ledger) -> None:
    sold = sell(ledger.database)
    here, there = machine(sold, "here"), machine(sold, "there")
    seat(ledger, sold, here, there)
    asks = [
        LicenseQuery(sold.key_hash, "here"),
        LicenseQuery(sold.key_hash, "there"),
        LicenseQuery(sold.key_hash, "here"),
    ]
    with ledger.transaction(asks) as transaction:
        found = [known(answer) for answer in transaction.known]
    assert [one.machines for one in found] == [{"here": here}, {"there": there}, {"here": here}]
    assert {one.seats for one in found} == {2}


def test_seats_are_kept_with_the_license_and_not_counted(ledger: Ledger) -> None:
    sold = sell(ledger.database)
    machines = [machine(sold, "a"), machine(sold, "b", excess=True), machine(sold, "c", active=False, excess=True)]
    with ledger.transaction([LicenseQuery(sold.key_hash)]) as transaction:
        before = known(transaction.known[0])
        transaction.commit(batch(event(sold), changes=[Change(before, with_machines(before, *machines))]))
    with ledger.transaction([LicenseQuery(sold.key_hash)]) as transaction:
        assert (known(transaction.known[0]).seats, known(transaction.known[0]).excess) == (2, 1)


def test_fingerprints_that_came_within_30_days_are_counted(ledger: Ledger) -> None:
    sold, uncounted = sell(ledger.database, {"moves_per_30d": 5, "max_machines": 1}), sell(ledger.database)
    for one in (sold, uncounted):
        old, new = machine(one, "old", active=False), machine(one, "new", active=False)
        seat(ledger, one, replace(old, created_at=time.time() - 31 * DAY), new, machine(one, "active"))
    with ledger.transaction([LicenseQuery(sold.key_hash), LicenseQuery(uncounted.key_hash)]) as transaction:
        assert [known(answer).arrivals for answer in transaction.known] == [2, 0]


def test_machines_that_never_came_are_counted_up_to_their_number(ledger: Ledger) -> None:
    sold = sell(ledger.database)
    few = [replace(machine(sold, f"few-{number}", active=False), created_at=0.0) for number in range(3)]
    seat(ledger, sold, *few, machine(sold, "came", active=False))
    with ledger.transaction([LicenseQuery(sold.key_hash)]) as transaction:
        assert known(transaction.known[0]).never_came == 3
    many = [replace(machine(sold, f"many-{number}", active=False), created_at=0.0) for number in range(MOST_NEVER_CAME)]
    seat(ledger, sold, *many)
    with ledger.transaction([LicenseQuery(sold.key_hash)]) as transaction:
        assert known(transaction.known[0]).never_came == MOST_NEVER_CAME


def test_machines_without_a_seat_are_counted_where_a_call_names_none_that_has_one(ledger: Ledger) -> None:
    sold = sell(ledger.database)
    never = replace(machine(sold, "never came", active=False), created_at=0.0)
    seat(ledger, sold, machine(sold, "here"), machine(sold, "left", active=False), never)
    for fingerprint, departed in (("here", 0), ("left", 2), ("new", 2), (None, 2)):
        with ledger.transaction([LicenseQuery(sold.key_hash, fingerprint)]) as transaction:
            assert known(transaction.known[0]).departed == departed
    with ledger.transaction([LicenseQuery(sold.key_hash, "here"), LicenseQuery(sold.key_hash, "new")]) as transaction:
        here, new = (known(answer) for answer in transaction.known)
        assert merged(here, new).departed == merged(new, here).departed == 2


def test_machines_longest_unseen_are_listed_first_where_the_policy_releases_them(ledger: Ledger) -> None:
    releases, keeps = sell(ledger.database, {"release_stale_days": 30}), sell(ledger.database)
    for sold in (releases, keeps):
        seat(
            ledger,
            sold,
            machine(sold, "recent", last_seen_at=300.0),
            machine(sold, "gone", last_seen_at=1.0, active=False),
            machine(sold, "oldest", last_seen_at=100.25),
            replace(machine(sold, "never seen"), created_at=200.0),
        )
    with ledger.transaction([LicenseQuery(releases.key_hash), LicenseQuery(keeps.key_hash)]) as transaction:
        found = [[one.fingerprint for one in known(answer).stale] for answer in transaction.known]
        first = known(transaction.known[0]).stale[0]
    assert found == [["oldest", "never seen", "recent"], []]
    assert (first.license_id, first.last_seen_at, first.active) == (releases.id, 100.25, True)


def test_a_machine_that_comes_again_keeps_its_id_and_when_it_was_first_seen(ledger: Ledger) -> None:
    sold = sell(ledger.database)
    here = machine(sold, "here")
    seat(ledger, sold, here)
    with ledger.transaction([LicenseQuery(sold.key_hash, "here")]) as transaction:
        before = known(transaction.known[0])
        again = replace(here, active=False, name="renamed", created_at=0.0)
        transaction.commit(batch(event(sold), changes=[Change(before, replace(before, machines={"here": again}))]))
    (row,) = rows(ledger.database, tables.machines)
    assert (row["id"], row["name"], bool(row["active"]), row["created_at"]) == (
        here.id,
        "renamed",
        False,
        here.created_at,
    )
