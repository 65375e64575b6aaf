"""The judge is judged: each breach, put into a history that is sound, is found, and only that."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from api.node.troubles import Trouble
from tests.chaos.cluster.history import Attack, Check, Fault, History, Sighting, Suspension
from tests.chaos.cluster.judge import judged
from tests.chaos.cluster.ledger import Remains, Row

_GOOD = Check(
    client="c", act="validate", license_id="l", fingerprint="pc", request_id="r", expected=True, began=100.0,
    ended=100.1, node="node-1", code="VALID", valid=True, durability="ledger", as_of=100, event_id="e1",
)  # fmt: skip
_USED = replace(_GOOD, act="usage", request_id="u", event_id="e2")
_ROW = Row(1, "validate", "l", "normal", None, None, 100.05)


def sound() -> tuple[History, Remains]:
    """A check and two uses, all in the ledger."""
    history = History(checks=[_GOOD, _USED], uses={"u": ("l", 2)}, seats={("l", "pc"): True})
    left = Remains({"e1": _ROW, "e2": replace(_ROW, seq=2, type="usage")}, {"l": 2}, {("l", "pc"): True}, counted=2)
    return history, left


def broken(history: History, left: Remains) -> dict[str, int]:
    """How many cases of each breach are found."""
    found = judged(history, left, {}, [])
    counts = {name: len(cases) for name, cases in found.breaches.items() if cases}
    assert {name.replace("_", " "): found.figures[name.replace(" ", "_")] for name in counts} == counts
    return counts


def test_a_sound_history_breaks_no_promise() -> None:
    assert broken(*sound()) == {}


def test_what_nobody_answered_is_unanswered() -> None:
    history, left = sound()
    history.add(Check(**{**fields(_GOOD), "node": None, "valid": False, "event_id": None, "code": "OFFLINE_VALID"}))
    assert broken(history, left) == {"unanswered": 1}


def fields(check: Check) -> dict[str, Any]:
    return {name: getattr(check, name) for name in Check.__dataclass_fields__}


@pytest.mark.parametrize(
    ("check", "breach"),
    [
        (replace(_GOOD, valid=False, code="NO_MACHINES"), "false denials"),
        (replace(_GOOD, expected=False), "false grants"),
        # The license was suspended from 200 to 300.
        (replace(_GOOD, expected=None, valid=False, began=150.0, ended=150.1, as_of=150), "false denials"),
        (replace(_GOOD, expected=None, valid=False, began=310.0, ended=310.1, as_of=302), "false denials"),
        (replace(_GOOD, expected=None, valid=False, began=310.0, ended=310.1, as_of=299), None),
        (replace(_GOOD, expected=None, began=250.0, ended=250.1, as_of=250), "false grants"),
        (replace(_GOOD, expected=None, began=250.0, ended=250.1, as_of=199), None),
        (replace(_GOOD, expected=None, began=310.0, ended=310.1, as_of=310), None),
    ],
)
def test_a_verdict_is_held_against_all_that_was_true_between_its_knowledge_and_its_answer(
    check: Check, breach: str | None
) -> None:
    history, left = sound()
    history.suspensions.append(Suspension("l", (200.0, 200.1), (300.0, 300.1)))
    history.checks[0] = check
    assert broken(history, left) == ({breach: 1} if breach else {})
    history.doubts.append((140.0, 320.0))
    assert broken(history, left) == ({breach: 1} if breach and check.expected is not None else {})


def test_an_answer_whose_event_is_nowhere_is_lost() -> None:
    history, left = sound()
    history.add(replace(_GOOD, event_id="e9"))
    assert broken(history, left) == {"lost": 1}


def test_an_effect_that_is_there_twice_is_doubled() -> None:
    history, left = sound()
    left.uses["l"] = 4
    assert broken(history, left) == {"doubled": 1}


def test_a_batch_that_was_counted_twice_is_doubled() -> None:
    history, left = sound()
    left.counted = 4
    assert broken(history, left) == {"doubled": 1}


def test_one_place_of_a_queue_that_is_in_the_log_twice_is_doubled_and_out_of_order() -> None:
    history, left = sound()
    left.events["e2"] = replace(left.events["e2"], origin="q", origin_seq=7)
    left.events["e3"] = replace(left.events["e2"], seq=3)
    left.counted = 3
    assert broken(history, left) == {"doubled": 1, "out of order": 1}


def test_the_order_of_a_queue_is_each_license_s_own() -> None:
    history, left = sound()
    left.events["e1"] = replace(left.events["e1"], origin="q", origin_seq=7)
    left.events["e2"] = replace(left.events["e2"], origin="q", origin_seq=6, license_id="m")
    history.checks[0] = replace(_GOOD, durability="queue")
    history.checks[1] = replace(_USED, durability="queue")
    assert broken(history, left) == {}
    left.events["e2"] = replace(left.events["e2"], license_id="l")
    assert broken(history, left) == {"out of order": 1}


def test_an_event_that_came_through_a_queue_was_not_in_the_ledger_when_it_was_answered() -> None:
    history, left = sound()
    left.events["e1"] = replace(_ROW, origin="q", origin_seq=1)
    assert broken(history, left) == {"untrue durability": 1}
    history.checks[0] = replace(_GOOD, durability="queue")
    assert broken(history, left) == {}


def test_a_seat_that_was_given_and_is_not_taken_is_wrong() -> None:
    history, left = sound()
    left.seats.clear()
    assert broken(history, left) == {"wrong seats": 1}


def test_what_still_waits_or_was_set_aside_is_said() -> None:
    history, left = sound()
    left.queued, left.dead, left.findings = 2, 1, Counter(dead=1, over_seats=3)
    assert broken(history, left) == {"still queued": 2, "dead": 2}


def test_a_node_that_says_that_events_are_dead_is_believed() -> None:
    history, left = sound()
    left.said_dead = ["node-1 says that 2 are"]
    assert broken(history, left) == {"dead": 1}


def test_takeovers_gaps_and_times_are_told_apart() -> None:
    history, left = sound()
    history.faults = [
        Fault(kind="kill_primary", began=110.0, made=110.0, healed=120.0, ended=125.0, takeover_s=6.5),
        Fault(kind="stop_postgres", began=130.0, made=130.0, healed=135.0, ended=140.0),
    ]
    history.add(replace(_USED, request_id="v", began=131.0, ended=131.5))
    figures = judged(history, left, {}, []).figures
    assert figures["takeover_s"]["after SIGKILL"] == {"count": 1, "p50": 6.5, "p99": 6.5, "max": 6.5}
    assert figures["takeover_s"]["after SIGTERM"] is None
    assert (figures["check_ms"]["normal"]["count"], figures["check_ms"]["database away"]["p50"]) == (2, 500.0)
    assert figures["longest_gap_s"] == 31.4


@pytest.mark.parametrize(
    ("skew", "as_of", "valid", "breach"),
    [
        # The license was suspended from 200 to 300; the check is answered at 250.1, or at 310.1.
        (600, 250 + 600, True, "false grants"),
        (600, 199 + 600, True, None),
        (-600, 250 - 600, True, "false grants"),
        (-600, 199 - 600, True, None),
        # A node that does not go by the clock that is wrong.
        (600, 250, True, "false grants"),
        (-600, 199, True, None),
        (600, 302 + 600, False, "false denials"),
        (-600, 299 - 600, False, None),
        (-600, 302, False, "false denials"),
    ],
)
def test_while_the_database_s_clock_is_off_knowledge_is_dated_by_the_right_one(
    skew: int, as_of: float, valid: bool, breach: str | None
) -> None:
    history, left = sound()
    history.suspensions.append(Suspension("l", (200.0, 200.1), (300.0, 300.1)))
    history.faults.append(Fault(kind="clock", began=150, made=150, healed=320, ended=320, skew_s=skew))
    began = 250.0 if valid else 310.0
    history.checks[0] = replace(_GOOD, expected=None, valid=valid, as_of=as_of, began=began, ended=began + 0.1)
    assert broken(history, left) == ({breach: 1} if breach else {})


def test_faults_that_overlap_are_a_pair_and_stand_for_no_figure_of_a_single_one() -> None:
    history, left = sound()
    history.faults = [
        Fault(kind="kill_primary", overlaps="lock", began=110, made=110, healed=120, ended=125, takeover_s=60.0),
        Fault(kind="lock", overlaps="kill_primary", began=110, made=112, healed=118, ended=125),
        Fault(kind="lock", overlaps="slow", began=130, made=130, healed=131, ended=140),
        Fault(kind="slow", overlaps="lock", began=130, made=132, healed=133, ended=140),
    ]
    figures = judged(history, left, {}, []).figures
    assert (figures["faults"], figures["pairs"]) == (4, 1)
    assert figures["takeover_s"]["after SIGKILL"] is None


def test_the_slowest_check_of_a_planned_stop_is_told_over_a_normal_one() -> None:
    history, left = sound()
    history.faults = [Fault(kind="term_primary", began=110, made=111, healed=115, ended=120)]
    history.add(replace(_USED, request_id="v", began=110.9, ended=111.3))
    history.add(replace(_USED, request_id="w", began=116.0, ended=118.0))
    figures = judged(history, left, {}, []).figures
    assert figures["check_ms"]["planned stop"]["max"] == 400.0
    assert figures["planned_stop_over_normal_ms"] == 300.0


def test_what_others_had_queued_while_one_license_s_row_was_locked_is_a_share() -> None:
    history, left = sound()
    history.faults = [Fault(kind="lock_row", began=110, made=110, healed=120, ended=121, license_id="l")]
    for i in range(4):
        durability = "queue" if i == 0 else "ledger"
        history.add(replace(_GOOD, license_id="m", began=111.0, ended=111.1, durability=durability, event_id=f"m{i}"))
    history.add(replace(_GOOD, durability="queue", began=112.0, ended=112.1))
    assert judged(history, left, {}, []).figures["queued_for_others_share"] == 0.25


def test_a_trouble_is_counted_for_each_fault_during_which_it_was_said() -> None:
    history, left = sound()
    history.faults = [
        Fault(kind="full_disk", began=110, made=110, healed=120, ended=121),
        Fault(kind="full_disk", began=130, made=130, healed=140, ended=141),
        Fault(kind="slow", began=150, made=150, healed=160, ended=161),
    ]
    said = [(Trouble.COPY(reason="full"), 112.0, 131.0), (Trouble.QUEUE_FULL(), 135.0, 136.0), ("new", 155.0, 155.0)]
    history.sightings = [Sighting(node="n", sentence=text, first=first, last=last) for text, first, last in said]
    seen = judged(history, left, {}, []).figures["troubles_seen"]
    assert seen == {"full_disk": {"COPY": 2, "QUEUE_FULL": 1}, "slow": {"new": 1}}


def test_a_state_that_somebody_has_to_see_to_and_no_node_speaks_of_is_a_breach_once_it_has_lasted() -> None:
    history, left = sound()
    short = Fault(kind="full_disk", began=110, made=110, healed=113, ended=114, expects=("COPY", "QUEUE_FULL"))
    history.faults = [short]
    assert broken(history, left) == {}
    history.faults.append(replace(short, made=130.0, healed=140.0, ended=141.0))
    assert broken(history, left) == {"unsaid": 1}
    history.sightings = [Sighting(node="n", sentence=Trouble.QUEUE_FULL(), first=135, last=136)]
    assert broken(history, left) == {}


def test_customers_who_wait_longer_for_attackers_are_found() -> None:
    history, left = sound()
    assert "attack" not in judged(history, left, {}, []).figures
    history.attack = Attack(began=200.0, ended=300.0, answers={"writer": {"200": 5}})
    history.add(replace(_USED, began=210.0, ended=210.29))
    found = judged(history, left, {}, [])
    assert found.breaches["slow under attack"] == []
    assert found.figures["attack"]["answers"] == {"writer": {"200": 5}}
    assert found.figures["attack"]["check_ms"]["before"]["count"] == 2
    history.add(replace(_USED, began=220.0, ended=220.31))
    history.add(replace(_USED, began=310.0, ended=319.0))
    assert broken(history, left) == {"slow under attack": 1}
