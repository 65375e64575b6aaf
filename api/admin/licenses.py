"""Licenses: made, read, listed, changed and deleted. What the policy gives is inherited unless they say otherwise."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from sqlalchemy import ColumnElement, Connection, Select, delete, false, insert, or_, select, union, update

from api.admin import pages
from api.admin.idempotency import Effect
from api.admin.kinds import Kind
from api.admin.license_rows import (
    columns_of,
    hold_policy,
    inherited_expiry,
    key_columns,
    new_row,
    policy_in,
    resource,
    with_policy,
)
from api.admin.rows import found, plain
from api.admin.schemas import LicenseBody, require, sent
from api.ledger import search_index
from api.ledger.errors import LedgerRefused
from api.ledger.log import Journal
from api.ledger.tables import licenses, policies
from api.node.change_marks import ChangeMarks
from api.problems import Malformed, Problem
from api.signing import key_claim
from api.signing.license_key import canonical_key

#: What an export as CSV has of each license.
COLUMNS = (
    "id", "policy", "product", "status", "key_hint", "name", "email", "expires_at", "max_machines", "max_uses",
    "entitlements", "metadata", "external_ref", "uses", "machines", "created_at", "last_seen_at",
)  # fmt: skip

_CHUNK = 500
_STATUSES = ("active", "suspended", "banned", "expired")


class Licenses:
    """Every method raises `Problem` and `LedgerError`."""

    def __init__(self, journal: Journal, changes: ChangeMarks) -> None:
        self._journal = journal
        self._changes = changes

    def create(self, body: LicenseBody, effect: Effect) -> dict[str, Any]:
        given, now = require(body), self._journal.now()
        key = given.get("key") or effect.license_key()
        with conflicts(self._journal, key, given.get("external_ref")), self._journal.change() as change:
            policy = hold_policy(change.connection, given["policy"])
            row = new_row(policy_in(policy), now) | columns_of(given) | key_columns(key)
            answer = resource(row | policy, key)
            change.connection.execute(insert(licenses), row)
            event = self._journal.event("license.created", license_id=row["id"], policy=row["policy"])
            change.commit(event, {licenses: [row["id"]]}, effect.record(answer, now))
        self._changes.keys_changed()
        return answer

    def get(self, id: str) -> dict[str, Any]:
        with self._journal.reading() as connection:
            row = connection.execute(with_policy().where(licenses.c.id == id)).mappings().first()
        return resource(found(Kind.LICENSE, row))

    def page(self, filters: Mapping[str, str], limit: int, cursor: str | None) -> dict[str, Any]:
        with self._journal.reading() as connection:
            query = with_policy().where(*pages.conditions(filters, self._filters(connection)))
            rows, next = pages.fetch(connection, query, licenses.c.id, Kind.LICENSE, limit, cursor)
        return {"items": [resource(row) for row in rows], "next": next}

    def stream(self, filters: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        """All that match, newest first, read in chunks while they are taken."""
        with self._journal.reading() as connection:
            wanted = pages.conditions(filters, self._filters(connection))
        return self._all(with_policy().where(*wanted).order_by(licenses.c.id.desc()).limit(_CHUNK))

    def _all(self, query: Select[Any]) -> Iterator[dict[str, Any]]:
        following = query
        while True:
            with self._journal.reading() as connection:
                rows = [plain(row) for row in connection.execute(following).mappings()]
            yield from map(resource, rows)
            if len(rows) < _CHUNK:
                return
            following = query.where(licenses.c.id < rows[-1]["id"])

    def update(self, id: str, body: LicenseBody) -> dict[str, Any]:
        given = sent(body)
        if "key" in given:
            raise Malformed("key", "is changed by the action reissue")
        with conflicts(self._journal, None, given.get("external_ref"), own=id), self._journal.change() as change:
            row = locked(change.connection, id)
            changes = columns_of(given)
            if "policy" in given:
                row |= hold_policy(change.connection, given["policy"])
            if "expires_at" in given and given["expires_at"] is None:
                changes["expires_at"] = inherited_expiry(policy_in(row), row["created_at"])
            if changes:
                change.update(update(licenses).where(licenses.c.id == id).values(changes))
                event = self._journal.event("license.updated", license_id=id, fields=sorted(given))
                change.commit(event, {licenses: [id]})
        return resource(row | changes)

    def delete(self, id: str) -> None:
        with self._journal.change() as change:
            locked(change.connection, id)
            change.update(delete(licenses).where(licenses.c.id == id))
            change.commit(self._journal.event("license.deleted", license_id=id))

    def _filters(self, connection: Connection) -> dict[str, pages.Filter]:
        columns = licenses.c
        return {
            "product": lambda text: policies.c.product == text,
            "policy": lambda text: columns.policy == text,
            "status": lambda text: self._with_status(text),
            "email": lambda text: search_index.by_email(connection, text),
            "key_hint": _has_hint,
            "key_hash": lambda text: columns.key_hash == text,
            "external_ref": lambda text: columns.external_ref == text,
            "q": pages.Pasted(lambda text: _found(connection, text)),
            "find": pages.Pasted(lambda text: _named(connection, text)),
        }

    def _with_status(self, text: str) -> Any:
        if text not in _STATUSES:
            raise ValueError(f"must be one of {', '.join(_STATUSES)}")
        return licenses.c.expires_at <= self._journal.now() if text == "expired" else licenses.c.status == text


def _found(connection: Connection, searched: str) -> ColumnElement[bool]:
    """The license whose whole key is `searched`, else those of which each term of it begins a word."""
    has_key = licenses.c.key_hash == key_claim(canonical_key(searched))
    if connection.execute(select(licenses.c.id).where(has_key)).first() is not None:
        return has_key
    return search_index.by_words(connection, searched)


def _named(connection: Connection, pasted: str) -> ColumnElement[bool]:
    """The licenses that `pasted` may name: by id or key, else by reference, hint, e-mail address or whole name."""
    columns, name = licenses.c, canonical_key(pasted)
    for alone in (columns.id == name, columns.key_hash == key_claim(name)):
        if connection.execute(select(columns.id).where(alone)).first() is not None:
            return alone
    by_texts = (search_index.by_email(connection, pasted), search_index.by_name(connection, pasted))
    # Each is looked up by its own index: one query with all of them walks the licenses.
    conditions = (columns.external_ref == name, _has_hint(name), *by_texts)
    return columns.id.in_(union(*(select(columns.id).where(condition) for condition in conditions)))


def _has_hint(text: str) -> ColumnElement[bool]:
    """Whether a license's key ends in `text`: keys of our own making in capitals, others in either."""
    return licenses.c.key_hint.in_({text, text.upper(), text.lower()})


def locked(connection: Connection, id: str) -> dict[str, Any]:
    """The row of `with_policy`, locked to the end of the transaction. Raises `RESOURCE_NOT_FOUND`."""
    query = with_policy().where(licenses.c.id == id).with_for_update(of=licenses)
    return found(Kind.LICENSE, connection.execute(query).mappings().first())


@contextlib.contextmanager
def conflicts(journal: Journal, key: str | None, external_ref: str | None, *, own: str | None = None) -> Iterator[None]:
    """Turns the ledger's refusal of a second key or `external_ref` into `CONFLICT`. `own`: the license that changes.

    Asked afterwards and not before, so that two who come at once get the same two answers.
    """
    try:
        yield
    except LedgerRefused as error:
        _explain(journal, key, external_ref, own, error)


def _explain(
    journal: Journal, key: str | None, external_ref: str | None, own: str | None, error: LedgerRefused
) -> NoReturn:
    # Without the None ones: `= None` is compiled to IS NULL, which most licenses fulfil.
    wanted = {licenses.c.external_ref: external_ref, licenses.c.key_hash: None if key is None else key_claim(key)}
    taken = or_(false(), *(column == value for column, value in wanted.items() if value is not None))
    with journal.reading() as connection:
        found = [plain(row) for row in connection.execute(with_policy().where(taken)).mappings()]
    rows = [row for row in found if row["id"] != own]  # what it has already is in nobody's way
    for row in rows:
        if external_ref is not None and row["external_ref"] == external_ref:
            raise Problem("CONFLICT", "the external_ref is another license's", license=resource(row)) from error
    if rows:
        raise Problem("CONFLICT", "the key is in use") from error
    raise error
