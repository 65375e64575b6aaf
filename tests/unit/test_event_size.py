"""An event is at most 4 KiB, whatever the call carries: the largest permitted call of each act."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from api.checks.isolated import to_row
from api.checks.schemas import call_of, parse_call
from api.checks.unit_of_work import Operation, UnitOfWork
from api.ledger.records import Event, LicenseRecord
from api.licensing import DAY, Act, Call, Holding, License, Machine, Policy
from api.node.identity import Node

_LIMIT = 4 * 1024
#: Four bytes each, in JSON too.
_WIDE = "\U0001f600"
_NOW = 1_700_000_000.123456
_ID = "01234567-89ab-cdef-0123-456789abcdef"

_LONGEST: dict[str, Any] = {
    "fingerprint": _WIDE * 128,
    "name": _WIDE * 200,
    "platform": _WIDE * 200,
    "product": _WIDE * 64,
    "version": "1.0+" + "a" * 60,
    "entitlements": [f"{number:03}" + _WIDE * 61 for number in range(100)],
    "increment": 1_000_000,
    "ttl": -(2**53),
    "client": {"app": "x" * 1_000},
}
_FIELDS = {
    Act.VALIDATE: ("fingerprint", "product", "version", "entitlements"),
    Act.ACTIVATE: ("fingerprint", "name", "platform", "product", "version"),
    Act.DEACTIVATE: ("fingerprint",),
    Act.PING: ("fingerprint",),
    Act.CHECK_IN: (),
    Act.USAGE: ("increment",),
    Act.CHECKOUT: ("fingerprint", "ttl"),
}


def holding(*held: str) -> Holding:
    """A license of which an activation starts the expiry and takes another machine's seat."""
    rules = {"duration_days": 30, "expiry_basis": "first_activation", "release_stale_days": 1, "floating": True}
    policy = Policy(id=_ID, product=_WIDE * 64, name="p", max_machines=1, **rules)  # type: ignore[arg-type]
    license = License(id=_ID, policy=policy, max_machines=1, entitlements=held)
    stale = Machine(id=_ID, license_id=_ID, fingerprint="stale", last_seen_at=_NOW - 9 * DAY)
    return Holding(license=license, seats=1, machines={"stale": stale}, stale=(stale,))


def event_of(act: Act, fields: dict[str, Any], known: Holding) -> Event:
    body = {"key": "k" * 128, "nonce": "n" * 64, "client": _LONGEST["client"], **fields}
    call = call_of(act, parse_call(act, json.dumps(body).encode()))
    operation = Operation(call=call, key_hash="h" * 43, event_id=_ID, nonce="n" * 64, body_hash="b" * 64)
    draft = UnitOfWork(Node("n" * 64), _NOW, {}, isolated=True)
    answer = LicenseRecord(known)
    draft.load([answer])
    draft.write(operation, answer)
    (event,) = draft.batch().events
    return event


@pytest.mark.parametrize("act", list(Act))
def test_the_largest_call_of_each_act_makes_an_event_of_at_most_4_kib(act: Act) -> None:
    event = event_of(act, {name: _LONGEST[name] for name in _FIELDS[act]}, holding())
    row = to_row(event)
    assert len(row.body.encode()) <= _LIMIT
    assert msgspec.convert(msgspec.json.decode(row.body)["data"]["call"], Call).act is act, "what replay needs of it"


def asked(*entitlements: str, held: tuple[str, ...] = ()) -> dict[str, Any]:
    event = event_of(Act.VALIDATE, {"entitlements": entitlements}, holding(*held))
    return dict(msgspec.json.decode(msgspec.json.encode(event.data)))


def test_a_short_list_is_kept_as_it_was_asked() -> None:
    data = asked("pro", "cloud")
    assert (data["call"]["entitlements"], "entitlements" in data) == (["pro", "cloud"], False)


def test_of_a_long_list_what_was_missing_is_kept_and_a_hash_of_the_whole() -> None:
    many = tuple(f"entitlement-{number:050}" for number in range(90))
    data = asked(*many, "missing-1", "missing-2", held=many)
    assert data["call"]["entitlements"] == ["missing-1", "missing-2"]
    assert data["entitlements"]["count"] == 92
    assert len(data["entitlements"]["sha256"]) == 64


def test_of_a_long_list_that_is_missing_as_a_whole_only_the_hash_is_kept() -> None:
    data = asked(*(f"entitlement-{number:050}" for number in range(90)))
    assert data["code"] == "ENTITLEMENTS_MISSING"
    assert "entitlements" not in data["call"]
    assert data["entitlements"]["count"] == 90
