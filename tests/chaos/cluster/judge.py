"""Holds what clients were told against what the ledger has: figures, and every single breach by name."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median
from typing import Any

from tests.chaos.cluster.history import Check, Fault, History
from tests.chaos.cluster.ledger import Remains
from tests.chaos.cluster.sightings import named

#: Faults that take the database away from every node.
OUTAGES = frozenset(
    {"stop_postgres", "kill_postgres", "freeze_postgres", "stop_postgres_and_kill_primary", "damaged_queue"}
)
_KILLED, _TERMINATED, _FROZEN = "kill_primary", "term_primary", "freeze_primary"
_PARTITIONS = ("partition", "partition_up", "partition_down")
#: Faults that figures are made of where they do not overlap with others.
ALONE = OUTAGES | {_KILLED, _TERMINATED, _FROZEN, "partition", "lock_row"}
#: A trouble is to be seen within so many seconds.
_SAID_S = 8.0
#: How many events a replay sends in one.
_BATCH = 500
#: How many times as long as without them the 99th percentile of checks may take with attackers, from so many
#: milliseconds on: below that no customer notices, and a machine that all of it shares is that noisy by itself.
_SLOWER, _NOTICED_MS = 3.0, 150.0


@dataclass(frozen=True, slots=True)
class Findings:
    """`figures` are JSON-ready. `breaches`: for each broken promise the cases, empty where all is well."""

    figures: dict[str, Any]
    breaches: dict[str, list[str]]

    @property
    def broken(self) -> list[str]:
        """The promises that were broken, each with its count and its first cases."""
        return [f"{name}: {len(cases)}, such as {cases[:3]}" for name, cases in self.breaches.items() if cases]


def judged(history: History, left: Remains, not_made: dict[str, str], troubles: list[str]) -> Findings:
    """`troubles`: why the run ended early, or a client did."""
    breaches = {
        "unanswered": [_tell(check) for check in history.checks if not check.answered],
        "false denials": [_tell(check) for check in history.checks if _is_false_denial(check, history)],
        "false grants": [_tell(check) for check in history.checks if _is_false_grant(check, history)],
        "lost": _lost(history, left),
        "doubled": _doubled(history, left),
        "untrue durability": _untrue(history, left),
        "out of order": _out_of_order(left),
        "wrong seats": _wrong_seats(history, left),
        "still queued": ["an event"] * left.queued,
        "dead": ["an event"] * (left.dead + left.findings["dead"]) + left.said_dead,
        "unsaid": _unsaid(history),
        "slow under attack": _slow_under_attack(history),
        "troubles": troubles,
    }
    return Findings(_figures(history, left, not_made, breaches), breaches)


# -- promises -----------------------------------------------------------------------------------------------------


def _is_false_denial(check: Check, history: History) -> bool:
    """Whether no moment between `as_of` and the answer justified it."""
    if not check.answered or check.valid or check.expected is False:
        return False
    if check.expected:
        return True
    if _is_doubtful(check, history):
        return False
    as_of = _as_of(check, history)
    spans = (s for s in history.suspensions if s.license_id == check.license_id)
    return not any(span.from_[0] <= check.ended and span.to[1] >= as_of for span in spans)


def _is_false_grant(check: Check, history: History) -> bool:
    """Whether it was good at no moment from `as_of` to the answer."""
    if not check.answered or not check.valid or check.expected:
        return False
    if check.expected is False:
        return True
    if _is_doubtful(check, history):
        return False
    as_of = _as_of(check, history)
    spans = (s for s in history.suspensions if s.license_id == check.license_id)
    return any(span.from_[1] < as_of and span.to[0] > check.ended for span in spans)


def _is_doubtful(check: Check, history: History) -> bool:
    as_of = _as_of(check, history)
    return any(start <= check.ended and end >= as_of for start, end in history.doubts)


def _as_of(check: Check, history: History) -> float:
    """When what the node knew was so. It is ledger time: while the database's clock is off, that may be off as well.

    Of the two moments that are possible then it is the one nearer to the answer: no knowledge is as old as a clock is
    set back.
    """
    off = (fault.skew_s for fault in history.faults if fault.skew_s and fault.made <= check.ended <= fault.ended)
    return min((check.as_of, *(check.as_of - skew for skew in off)), key=lambda at: abs(check.ended - at))


def _lost(history: History, left: Remains) -> list[str]:
    """Answers whose event the ledger does not have."""
    return [_tell(check) for check in history.checks if check.answered and check.event_id not in left.events]


def _doubled(history: History, left: Remains) -> list[str]:
    """Effects that are in the ledger more, or less, than once: by uses, by the counts, by the places in a queue."""
    found = []
    expected: Counter[str] = Counter()
    for license_id, increment in history.uses.values():
        expected[license_id] += increment
    for license_id, uses in sorted(left.uses.items()):
        if uses != expected[license_id]:
            found.append(f"{license_id}: {uses} uses in the ledger, {expected[license_id]} were answered")
    if left.counted != len(left.events):
        found.append(f"{left.counted} checks were counted, {len(left.events)} are in the log")
    places = Counter((row.origin, row.origin_seq) for row in left.events.values() if row.origin is not None)
    found += [f"{place} of a queue is in the log {count} times" for place, count in places.items() if count > 1]
    answers = Counter(check.event_id for check in history.checks if check.event_id and check.act in _ONCE_ONLY)
    found += [f"event {id} was the answer to {count} checks" for id, count in answers.items() if count > 1]
    return found


_ONCE_ONLY = frozenset({"validate", "ping", "check-in"})


def _untrue(history: History, left: Remains) -> list[str]:
    """Said to be in the ledger, and came there through a queue, later. Retries tell of the first answer.

    The other way round is true as well: the ledger's commit was in doubt, and had been made.
    """
    return [
        _tell(check)
        for check in history.checks
        if check.act in _ONCE_ONLY
        and check.durability == "ledger"
        and (row := left.events.get(check.event_id or "")) is not None
        and row.origin is not None
    ]


def _out_of_order(left: Remains) -> list[str]:
    """Events of one license in one queue that the log has in another order.

    Those of another license may pass what the ledger does not take yet.
    """
    found, last = [], dict[tuple[str, str | None], int]()
    for row in sorted(left.events.values(), key=lambda row: row.seq):
        if row.origin is not None and row.origin_seq is not None:
            queue = row.origin, row.license_id
            if row.origin_seq <= last.get(queue, 0):
                found.append(f"{row.license_id} in {row.origin}: place {row.origin_seq} after {last[queue]}")
            last[queue] = row.origin_seq
    return found


def _wrong_seats(history: History, left: Remains) -> list[str]:
    return [
        f"{fingerprint}: {'taken' if taken else 'free'} by the last answer, not in the ledger"
        for (license_id, fingerprint), taken in history.seats.items()
        if left.seats.get((license_id, fingerprint), False) != taken
    ]


def _unsaid(history: History) -> list[str]:
    """Kinds of fault that somebody has to see to, and no node ever said so in the time that it takes."""
    said: dict[tuple[str, tuple[str, ...]], set[str]] = {}
    for fault in history.faults:
        if fault.expects and fault.healed - fault.made >= _SAID_S:
            said.setdefault((fault.kind, fault.expects), set()).update(_seen(fault, history))
    return [f"{kind}: {' or '.join(names)}" for (kind, names), seen in said.items() if not seen.intersection(names)]


def _seen(fault: Fault, history: History) -> set[str]:
    """The troubles that some node said while it lasted and until all was well."""
    lasted = (each for each in history.sightings if each.first <= fault.ended and each.last >= fault.made)
    return {named(each.sentence) for each in lasted}


def _tell(check: Check) -> str:
    said = f"{check.code} by {check.node} ({check.durability})" if check.answered else f"nothing in {check.took:.1f} s"
    return f"{check.client} {check.act} {check.fingerprint or ''} at {check.began:.3f}: {said} {list(check.tried)}"


def _slow_under_attack(history: History) -> list[str]:
    """Whether other customers wait much longer while attackers are at work than before, among the same faults."""
    before, during = _before_and_during(history)
    was, is_ = (_spread(took, 1000) for took in (before, during))
    if was is None or is_ is None or is_["p99"] <= max(_SLOWER * was["p99"], _NOTICED_MS):
        return []
    return [f"p99 {is_['p99']} ms, and {was['p99']} ms before"]


def _before_and_during(history: History) -> tuple[list[float], list[float]]:
    """How long answered checks took before there were attackers, and while they were at work; nothing without any."""
    attack = history.attack
    if attack is None:
        return [], []
    answered = [check for check in history.checks if check.answered]
    before = [check.took for check in answered if check.ended < attack.began]
    return before, [check.took for check in answered if attack.began <= check.began <= attack.ended]


# -- figures ------------------------------------------------------------------------------------------------------


def _figures(
    history: History, left: Remains, not_made: dict[str, str], breaches: dict[str, list[str]]
) -> dict[str, Any]:
    checks, faults = history.checks, history.faults
    alone = [fault for fault in faults if fault.overlaps is None]
    normal, outage, stop = _told_apart(checks, faults)
    # A batch is acknowledged at one moment: only what came behind the first one took a time that can be told.
    replay = [(count - _BATCH) / took for count, took in left.replays if count >= 4 * _BATCH]
    return {
        "faults": len(faults),
        "pairs": sum(one.overlaps is not None and one.overlapped(other) for one, other in pairwise(faults)),
        "by_kind": dict(sorted(Counter(fault.kind for fault in faults).items())),
        "not_made": not_made,
        "checks": len(checks),
        **{name.replace(" ", "_"): len(cases) for name, cases in breaches.items()},
        "conflicts": {kind: count for kind, count in left.findings.items() if kind != "dead"},
        "failovers": dict(left.failovers),
        "takeover_s": {
            "after SIGKILL": _spread(_takeovers(alone, _KILLED)),
            "after SIGTERM": _spread(_takeovers(alone, _TERMINATED)),
            "after SIGSTOP": _spread(_takeovers(alone, _FROZEN)),
            "after a partition": _spread(_takeovers(alone, *_PARTITIONS)),
        },
        "longest_gap_s": round(_longest_gap(checks), 3),
        "check_ms": {
            "normal": _spread(normal, 1000),
            "database away": _spread(outage, 1000),
            "planned stop": _spread(stop, 1000),
        },
        "planned_stop_over_normal_ms": _slowest_over_normal(stop, normal),
        "queued_for_others_share": _queued_for_others(checks, alone),
        "troubles_seen": _troubles_seen(history),
        "slowest_check_s": round(max((check.took for check in checks), default=0.0), 3),
        "queued_answers": sum(check.durability == "queue" for check in checks),
        "replayed_events": sum(count for count, _ in left.replays),
        "replay_per_s": round(max(replay), 1) if replay else None,
        "asked_more_than_one": sum(bool(check.tried) for check in checks),
        **_attack_figures(history),
    }


def _attack_figures(history: History) -> dict[str, Any]:
    """What checks cost before attackers and with them, among faults and apart from them; nothing without any."""
    if history.attack is None:
        return {}
    any_ = _Spans((fault.began, fault.ended) for fault in history.faults)
    calm = [check for check in history.checks if not any_.meet(check.began, check.ended)]
    figures: dict[str, Any] = {"answers": history.attack.answers}
    for name, checks in (("check_ms", history.checks), ("check_ms_apart_from_faults", calm)):
        took = _before_and_during(replace(history, checks=list(checks)))
        figures[name] = {when: _spread(each, 1000) for when, each in zip(("before", "during"), took, strict=True)}
    return {"attack": figures}


def _takeovers(faults: Iterable[Fault], *kinds: str) -> list[float]:
    return [fault.takeover_s for fault in faults if fault.kind in kinds and fault.takeover_s is not None]


def _told_apart(checks: Sequence[Check], faults: Sequence[Fault]) -> tuple[list[float], list[float], list[float]]:
    """How long answered checks took: apart from any fault; begun while the database was away; while a node stopped.

    The latter two by faults that were alone.
    """
    any_, outages = _Spans((f.began, f.ended) for f in faults), _Spans(_lasting(faults, OUTAGES))
    stops = _Spans(_lasting(faults, {_TERMINATED}))
    answered = [check for check in checks if check.answered]
    return (
        [check.took for check in answered if not any_.meet(check.began, check.ended)],
        [check.took for check in answered if outages.meet(check.began, check.began)],
        [check.took for check in answered if stops.meet(check.began, check.ended)],
    )


def _lasting(faults: Iterable[Fault], kinds: Collection[str]) -> Iterator[tuple[float, float]]:
    """From when to when faults of these kinds lasted that were alone."""
    return ((fault.made, fault.healed) for fault in faults if fault.kind in kinds and fault.overlaps is None)


class _Spans:
    """Stretches of time, in any order; those that overlap are one."""

    def __init__(self, spans: Iterable[tuple[float, float]]) -> None:
        self._begins: list[float] = []
        self._ends: list[float] = []
        for begin, end in sorted(spans):
            if self._ends and begin <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end)
            else:
                self._begins.append(begin)
                self._ends.append(end)

    def meet(self, begin: float, end: float) -> bool:
        """Whether one of them has a moment in common with this stretch."""
        at = bisect_right(self._begins, end) - 1
        return at >= 0 and self._ends[at] >= begin


def _slowest_over_normal(stop: Sequence[float], normal: Sequence[float]) -> float | None:
    """By how much the slowest check while a node stops takes longer than the median one, in milliseconds."""
    return round((max(stop) - median(normal)) * 1000, 1) if stop and normal else None


def _queued_for_others(checks: Iterable[Check], faults: Iterable[Fault]) -> float | None:
    """The share of other licenses' checks that went to a queue while one license's row was locked."""
    locked = [fault for fault in faults if fault.license_id is not None]
    others = [
        check
        for check in checks
        for fault in locked
        if fault.made <= check.began <= fault.healed and check.license_id != fault.license_id
    ]
    return round(sum(check.durability == "queue" for check in others) / len(others), 4) if others else None


def _troubles_seen(history: History) -> dict[str, dict[str, int]]:
    """For each kind of fault, during how many of those that were alone some node said each trouble."""
    seen: dict[str, Counter[str]] = {}
    for fault in history.faults:
        if fault.overlaps is None:
            seen.setdefault(fault.kind, Counter()).update(_seen(fault, history))
    return {kind: dict(sorted(names.items())) for kind, names in sorted(seen.items()) if names}


def _longest_gap(checks: Sequence[Check]) -> float:
    """The longest time in which one client knew nothing new, from answer to answer."""
    last: dict[str, float] = {}
    longest = 0.0
    for check in sorted(checks, key=lambda check: check.ended):
        if check.answered:
            longest = max(longest, check.ended - last.get(check.client, check.began))
            last[check.client] = check.ended
    return longest


def _spread(values: Sequence[float], scale: float = 1.0) -> dict[str, float | int] | None:
    """Count, median, 99th percentile and maximum; None where there is nothing."""
    if not values:
        return None
    ordered = sorted(values)

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] * scale, 3)

    return {"count": len(ordered), "p50": at(0.5), "p99": at(0.99), "max": round(ordered[-1] * scale, 3)}
