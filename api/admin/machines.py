"""Machines that hold a seat. They change through the ledger's write lane, as clients change them, so that seats stay
counted under the license's lock; one whose seat is free is no resource any more, though the ledger remembers it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace
from sqlalchemy import Select, select

from api.admin import pages
from api.admin.idempotency import EVERY_TIME, Effect
from api.admin.kinds import Kind
from api.admin.license_rows import policy_in
from api.admin.rows import found, missing
from api.admin.schemas import MachineBody, require, sent
from api.ledger.errors import LedgerBusy
from api.ledger.log import Journal
from api.ledger.records import Batch, Change, LicenseQuery
from api.ledger.store import Ledger
from api.ledger.tables import licenses, machines, policies
from api.licensing import Act, Call, Holding, Policy, decide, machine_id
from api.node.clock import timestamp
from api.problems import Malformed, Problem

_FILTERS: dict[str, pages.Filter] = {
    "product": lambda text: policies.c.product == text,
    "license": lambda text: machines.c.license_id == text,
    "fingerprint": lambda text: machines.c.fingerprint == text,
    "q": lambda text: pages.contains(text, machines.c.name, machines.c.fingerprint),
}

#: What is to become of a license's holding, of which the machine at hand is loaded.
_Rule = Callable[[Holding], Holding]


class Machines:
    """Every method raises `Problem` and `LedgerError`."""

    def __init__(self, journal: Journal, ledger: Ledger) -> None:
        self._journal = journal
        self._ledger = ledger

    def create(self, body: MachineBody, effect: Effect) -> dict[str, Any]:
        given = require(body)
        call = Call(act=Act.ACTIVATE, **{name: value for name, value in given.items() if name != "license"})

        def activated(holding: Holding) -> Holding:
            if holding.active(call.fingerprint) is not None:
                raise Problem("CONFLICT", "the machine already holds a seat of this license")
            verdict = decide(call, holding, self._journal.now())
            if verdict.holding is None or verdict.holding is holding:
                raise Problem("CONFLICT", f"the license {verdict.detail}", verdict=verdict.code)
            return verdict.holding

        key_hash = self._key_hash(given["license"])
        return self._change(key_hash, given["fingerprint"], activated, "machine.created", effect)

    def get(self, id: str) -> dict[str, Any]:
        row = self._row(id)
        return _resource(row, policy_in(row), self._journal.now())

    def page(self, filters: Mapping[str, str], limit: int, cursor: str | None) -> dict[str, Any]:
        query = _query().where(*pages.conditions(filters, _FILTERS))
        with self._journal.reading() as connection:
            rows, next = pages.fetch(connection, query, machines.c.id, Kind.MACHINE, limit, cursor)
        now = self._journal.now()
        return {"items": [_resource(row, policy_in(row), now) for row in rows], "next": next}

    def update(self, id: str, body: MachineBody) -> dict[str, Any]:
        given = sent(body)
        for name in MachineBody.REQUIRED:
            if name in given:
                raise Malformed(name, "cannot be changed: it is what the machine is")
        row = self._row(id)

        def described(holding: Holding) -> Holding:
            machine = holding.active(row["fingerprint"]) or missing(Kind.MACHINE)
            return replace(holding, machines={machine.fingerprint: replace(machine, **given)})

        if given:
            self._change(row["key_hash"], row["fingerprint"], described, "machine.updated", fields=sorted(given))
        return self.get(id)

    def delete(self, id: str) -> None:
        row = self._row(id)
        call = Call(act=Act.DEACTIVATE, fingerprint=row["fingerprint"])

        def freed(holding: Holding) -> Holding:
            verdict = decide(call, holding, self._journal.now())
            return verdict.holding if verdict.holding is not holding and verdict.holding else missing(Kind.MACHINE)

        self._change(row["key_hash"], row["fingerprint"], freed, "machine.deleted")

    def _change(
        self, key_hash: str, fingerprint: str, rule: _Rule, type: str, effect: Effect = EVERY_TIME, **data: Any
    ) -> dict[str, Any]:
        """The machine as `rule` leaves it."""
        with self._ledger.transaction([LicenseQuery(key_hash, fingerprint)]) as transaction:
            before = transaction.known[0].holding
            if before is None:
                raise LedgerBusy("the license was given another key or deleted just now")
            after = rule(before)
            id = before.license.id
            event = self._journal.event(type, license_id=id, machine_id=machine_id(id, fingerprint), **data)
            now = self._journal.now()
            answer = _resource(msgspec.structs.asdict(after.machines[fingerprint]), after.license.policy, now)
            transaction.commit(Batch([event], [Change(before, after)], [], [], record=effect.record(answer, now)))
        return answer

    def _row(self, id: str) -> dict[str, Any]:
        with self._journal.reading() as connection:
            row = connection.execute(_query().where(machines.c.id == id)).mappings().first()
        return found(Kind.MACHINE, row)

    def _key_hash(self, license_id: str) -> str:
        with self._journal.reading() as connection:
            query = select(licenses.c.key_hash).where(licenses.c.id == license_id)
            found: str | None = connection.execute(query).scalar()
        if found is None:
            raise Malformed("license", "there is no license with this id")
        return found


def _query() -> Select[Any]:
    joined = machines.join(licenses, machines.c.license_id == licenses.c.id).join(
        policies, licenses.c.policy == policies.c.id
    )
    policy = (policies.c.id.label("policy"), policies.c.product, policies.c.name.label("policy_name"))
    columns = (machines, licenses.c.key_hash, *policy, policies.c.rules_json)
    return select(*columns).select_from(joined).where(machines.c.active)


def _resource(row: Mapping[str, Any], policy: Policy, now: float) -> dict[str, Any]:
    return {
        "id": row["id"],
        "license": row["license_id"],
        "fingerprint": row["fingerprint"],
        "name": row["name"],
        "platform": row["platform"],
        "alive": _alive(row, policy, now),
        "created_at": timestamp(row["created_at"]),
        "last_seen_at": timestamp(row["last_seen_at"]),
    }


def _alive(row: Mapping[str, Any], policy: Policy, now: float) -> bool:
    """Whether its heartbeat is in time; where the policy asks for none, a machine that holds a seat is alive."""
    if policy.machine_heartbeat_s is None:
        return True
    return row["heartbeat_at"] is not None and now - row["heartbeat_at"] <= policy.machine_heartbeat_s
