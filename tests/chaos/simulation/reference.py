"""What the events in the log come to, worked out a second time and otherwise than by replaying them.

Usage is a sum, a check-in and a ping the latest, an expiry that was started the furthest, and for each machine the last
of its activations and deactivations wins.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import msgspec

from api.ledger.records import Event
from api.licensing import Act, Call, Code, Holding, License
from tests.chaos.simulation.books import Books
from tests.chaos.simulation.truth import SKEW_S

CULLED = "machine.culled"
_NO_CHECK_IN = frozenset({Code.BANNED, Code.SUSPENDED, Code.EXPIRED})


def differences(books: Books, *, in_order_of_time: bool = True) -> Iterator[str]:
    """Where the ledger is not what its own log says.

    `in_order_of_time`: its clock was never set. Otherwise which came last is not to be read from the log, and only
    what adds up is looked at.
    """
    events: defaultdict[str, list[Event]] = defaultdict(list)
    for event in books.log:
        events[event.license_id or ""].append(event)
    found = {(finding.license_id, finding.kind) for finding in books.findings}
    for id, row in books.licenses.items():
        kinds = {kind for license_id, kind in found if license_id == id}
        yield from _numbers(id, row.holding, events[id], kinds)
        if in_order_of_time:
            yield from _moments(id, row.holding.license, events[id])
            yield from _machines(id, row.holding, events[id])


def _numbers(id: str, holding: Holding, events: Sequence[Event], conflicts: set[str]) -> Iterator[str]:
    license = holding.license
    uses = sum(_call(event).increment for event in events if event.type == Act.USAGE and event.data["valid"])
    if license.uses != uses:
        yield f"{id} has {license.uses} uses, and {uses} were counted"
    if license.max_uses is not None and license.uses > license.max_uses and "uses" not in conflicts:
        yield f"{id} has more uses than it may have, and nobody is told"
    seats = [machine for machine in holding.machines.values() if machine.active]
    if (holding.seats, holding.excess) != (len(seats), sum(machine.excess for machine in seats)):
        yield f"{id} counts {holding.seats} seats ({holding.excess} too many), and has {len(seats)}"
    if holding.seats > license.seat_limit and "seats" not in conflicts:
        yield f"{id} has more machines than seats, and nobody is told"


def _moments(id: str, license: License, events: Sequence[Event]) -> Iterator[str]:
    check_ins = [
        e for e in events if e.type == Act.CHECK_IN and (e.data["valid"] or e.data["code"] not in _NO_CHECK_IN)
    ]
    latest = max((event.occurred_at for event in check_ins), default=None)
    if license.checked_in_at != latest:
        yield f"{id} checked in last at {latest}, and {license.checked_in_at} is kept"
    started = max((event.data["started"] for event in events if event.data.get("started")), default=None)
    if started is not None and (license.expires_at is None or license.expires_at < started):
        yield f"{id} expires at {license.expires_at}, and {started} was promised"


def _machines(id: str, holding: Holding, events: Sequence[Event]) -> Iterator[str]:
    for fingerprint, logged in _by_fingerprint(events).items():
        moves = sorted(_moves(logged), key=lambda event: event.occurred_at)
        if not moves or _too_close(moves):
            continue
        last, machine = moves[-1], holding.machines.get(fingerprint)
        active = machine is not None and machine.active
        culled = any(event.type == CULLED for event in logged)
        if last.type == Act.DEACTIVATE and active:
            yield f"{id}: {fingerprint} was deactivated last, and has a seat"
        if last.type == Act.ACTIVATE and not active and not culled:
            yield f"{id}: {fingerprint} was activated last, and has no seat"
        after = last.occurred_at + 2 * SKEW_S
        pings = [e.occurred_at for e in logged if e.type == Act.PING and e.data["valid"]]
        latest = max((ping for ping in pings if ping > after), default=None)
        beat = machine.heartbeat_at if machine is not None and active else None
        if active and latest is not None and (beat is None or beat < latest) and not culled:
            yield f"{id}: {fingerprint} pinged at {latest}, and {beat} is kept"


def _by_fingerprint(events: Sequence[Event]) -> dict[str, list[Event]]:
    found: defaultdict[str, list[Event]] = defaultdict(list)
    for event in events:
        if event.type == CULLED:
            found[event.data["fingerprint"]].append(event)
        elif event.type in (Act.ACTIVATE, Act.DEACTIVATE, Act.PING):
            found[_call(event).fingerprint or ""].append(event)
    return found


def _moves(logged: Sequence[Event]) -> list[Event]:
    return [event for event in logged if event.type in (Act.ACTIVATE, Act.DEACTIVATE) and event.data["valid"]]


def _too_close(moves: Sequence[Event]) -> bool:
    """Whether two clocks could disagree on which was the last."""
    others = [event.occurred_at for event in moves if event.type != moves[-1].type]
    return bool(others) and moves[-1].occurred_at - max(others) < 2 * SKEW_S


def _call(event: Event) -> Call:
    return msgspec.convert(msgspec.to_builtins(event.data["call"]), Call)
