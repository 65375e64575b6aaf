"""Policies: the rules that licenses are sold under. All rules are kept as one JSON object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from api.admin import names, pages
from api.admin.idempotency import Effect
from api.admin.kinds import Kind
from api.admin.rows import found, missing
from api.admin.schemas import PolicyBody, require, sent
from api.ids import new_id
from api.ledger.errors import LedgerRefused
from api.ledger.log import Journal
from api.ledger.tables import policies, products
from api.licensing import Policy
from api.node.clock import timestamp
from api.problems import Malformed, Problem

_COLUMNS = frozenset({"product", "name"})
_DEFAULT_RULES: dict[str, Any] = {
    name: value
    for name, value in msgspec.to_builtins(Policy(id="", product="", name="")).items()
    if name not in {"id", *_COLUMNS}
}

#: How many new machines a license with seats may bring in 30 days beyond them: more than customers with new PCs do, and
#: few enough that a seat is not lent around by activating, taking the offline token, and deactivating.
_MOVES_PER_SEAT, _MOVES = 2, 3


class Policies:
    """Every method raises `Problem` and `LedgerError`."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def create(self, body: PolicyBody, effect: Effect) -> dict[str, Any]:
        given = require(body)
        now = self._journal.now()
        row = {"id": new_id(), "created_at": now, **_columns(given, _defaults(given))}
        answer = _resource(row)
        with self._journal.change() as change:
            _hold_product(change.connection, given["product"])
            change.connection.execute(insert(policies), row)
            event = self._journal.event("policy.created", id=row["id"])
            change.commit(event, {policies: [row["id"]]}, effect.record(answer, now))
        return answer

    def get(self, id: str) -> dict[str, Any]:
        with self._journal.reading() as connection:
            row = connection.execute(select(policies).where(policies.c.id == id)).mappings().first()
        return _resource(found(Kind.POLICY, row))

    def page(self, filters: Mapping[str, str], limit: int, cursor: str | None) -> dict[str, Any]:
        with self._journal.reading() as connection:
            query = select(policies).where(*pages.conditions(filters, _filters(connection)))
            rows, next = pages.fetch(connection, query, policies.c.id, Kind.POLICY, limit, cursor)
        return {"items": [_resource(row) for row in rows], "next": next}

    def update(self, id: str, body: PolicyBody) -> dict[str, Any]:
        given = sent(body)
        with self._journal.change() as change:
            query = select(policies).where(policies.c.id == id).with_for_update(key_share=True)
            row = found(Kind.POLICY, change.connection.execute(query).mappings().first())
            changes = _columns(given, msgspec.json.decode(row["rules_json"]))
            if given:
                if "product" in given:
                    _hold_product(change.connection, given["product"])
                change.update(update(policies).where(policies.c.id == id).values(changes))
                event = self._journal.event("policy.updated", id=id, fields=sorted(given))
                change.commit(event, {policies: [id]})
        return _resource({**row, **changes})

    def delete(self, id: str) -> None:
        try:
            with self._journal.change() as change:
                if not change.connection.execute(delete(policies).where(policies.c.id == id)).rowcount:
                    missing(Kind.POLICY)
                change.commit(self._journal.event("policy.deleted", id=id))
        except LedgerRefused as error:
            raise Problem("CONFLICT", "licenses are still sold under this policy") from error


def _defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """The rules of a new policy where `given` does not name them."""
    # One seat unless it floats: "unlimited" is a thing to say, not to forget.
    seats = given.get("max_machines", None if given.get("floating") else 1)
    limited = {} if seats is None else {"require_fingerprint": True, "moves_per_30d": _MOVES_PER_SEAT * seats + _MOVES}
    return {**_DEFAULT_RULES, "max_machines": seats, **limited}


def _hold_product(connection: Connection, code: str) -> None:
    """Keeps the product from being deleted meanwhile. Raises `Malformed` where there is none."""
    query = select(products.c.id).where(products.c.code == code).with_for_update(read=True, key_share=True)
    if connection.execute(query).first() is None:
        raise Malformed("product", "there is no product with this code")


def _columns(given: Mapping[str, Any], rules: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that `given` sets, its rules laid over `rules`."""
    merged = {**rules, **{name: value for name, value in given.items() if name not in _COLUMNS}}
    columns = {name: given[name] for name in _COLUMNS if name in given}
    return columns | {"rules_json": msgspec.json.encode(merged).decode()}


def _filters(connection: Connection) -> dict[str, pages.Filter]:
    columns = policies.c
    return {
        "product": lambda text: columns.product == text,
        "policy": lambda text: columns.id == text,
        "q": pages.Pasted(lambda text: names.by_words(connection, text, columns.id, columns.name)),
        "find": pages.Pasted(lambda text: names.named(connection, text, columns.id, columns.name, of=columns.product)),
    }


def _resource(row: Mapping[str, Any]) -> dict[str, Any]:
    rules = {**_DEFAULT_RULES, **msgspec.json.decode(row["rules_json"])}
    named = {"id": row["id"], "product": row["product"], "name": row["name"]}
    return named | rules | {"created_at": timestamp(row["created_at"])}
