"""All that an admin can do to the ledger's resources, for the HTTP calls and the command line alike."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from sqlalchemy import Table

from api.admin.actions import Actions
from api.admin.bulk import Bulk, imported
from api.admin.event_log import EventLog
from api.admin.finding import CANDIDATES, the_one
from api.admin.findings import Findings
from api.admin.idempotency import EVERY_TIME, Effect, done_once
from api.admin.kinds import Kind
from api.admin.licenses import Licenses
from api.admin.machines import Machines
from api.admin.policies import Policies
from api.admin.products import Products
from api.admin.rows import plausible_id
from api.admin.schemas import BODIES, Body, LicenseBody, parse
from api.admin.signing_keys import SigningKeys
from api.admin.token_store import TokenStore
from api.ledger import tables
from api.ledger.database import Database
from api.ledger.log import Journal
from api.ledger.store import ledger_on
from api.node.change_marks import ChangeMarks
from api.node.clock import Clock
from api.node.identity import Node
from api.problems import Malformed, Problem
from api.snapshot.evidence import Evidence

Resource = dict[str, Any]
AnyBody = Body | Mapping[str, Any]

#: The tables of which this node has a copy, by what a body or a path calls their rows.
_COPIED: dict[str, Table] = {
    Kind.LICENSE: tables.licenses,
    Kind.POLICY: tables.policies,
    Kind.MACHINE: tables.machines,
}


class Resources:
    """Resources go in as bodies (a struct of `schemas`, or a dict of the same shape) and come out as JSON-ready dicts.

    Every method raises `Problem` (`MALFORMED`, `RESOURCE_NOT_FOUND`, `CONFLICT`) and `LedgerError`. A change is one
    transaction with one event. License keys and tokens appear once, in the answer that made them.
    """

    def __init__(
        self,
        database: Database,
        node: Node,
        clock: Clock,
        changes: ChangeMarks,
        evidence: Evidence | None = None,
    ) -> None:
        """`evidence`: what this node's copy of the ledger says against one that shows less."""
        self._evidence = evidence
        self._journal = journal = Journal(database, node, clock)
        self._licenses = Licenses(journal, changes)
        self._kinds: dict[Kind, Any] = {
            Kind.PRODUCT: Products(journal),
            Kind.POLICY: Policies(journal),
            Kind.LICENSE: self._licenses,
            Kind.MACHINE: Machines(journal, ledger_on(database, node.instance, clock)),
        }
        self._actions = Actions(journal, changes)
        self._bulk = Bulk(journal, changes)
        self._events = EventLog(journal)
        self._tokens = TokenStore(journal, changes)
        self._findings = Findings(journal)
        self.signing_keys = SigningKeys(journal)

    def create(self, kind: Kind, body: AnyBody, effect: Effect = EVERY_TIME) -> Resource:
        """The new resource; a license with its `key`, this once."""
        given = parse(BODIES[kind], body)
        with self._absence_is_true(kind, body=given):
            return self.once(effect, lambda: self._kinds[kind].create(given, effect))

    def get(self, kind: Kind, id: str) -> Resource:
        with self._absence_is_true(kind, id):
            found: Resource = self._kinds[kind].get(plausible_id(kind, id))
            return found

    def page(self, kind: Kind, filters: Mapping[str, str], limit: int = 50, cursor: str | None = None) -> Resource:
        """`{"items": [...], "next": cursor or None}`, newest first."""
        page: Resource = self._kinds[kind].page(filters, limit, cursor)
        return page

    def named(self, kind: Kind, name: str) -> Resource:
        """The one product, policy or license that `name` means: its id or code, whole name, e-mail, hint or key.

        Raises `RESOURCE_NOT_FOUND`, and `CONFLICT` with its `candidates` where it may mean several. Machines have ids.
        """
        if kind is Kind.MACHINE:
            return self.get(kind, name)
        return the_one(kind, name, self.page(kind, {"find": name}, CANDIDATES + 1)["items"])

    def update(self, kind: Kind, id: str, body: AnyBody) -> Resource:
        """The resource after the change; what the body does not name stays as it was."""
        given = parse(BODIES[kind], body)
        with self._absence_is_true(kind, id, given):
            updated: Resource = self._kinds[kind].update(plausible_id(kind, id), given)
            return updated

    def delete(self, kind: Kind, id: str) -> None:
        with self._absence_is_true(kind, id):
            self._kinds[kind].delete(plausible_id(kind, id))

    def act(self, license_id: str, action: str, body: AnyBody | None = None, effect: Effect = EVERY_TIME) -> Resource:
        """The license after `action`, one of `actions.ACTIONS`; with its new `key` after `reissue`."""
        id, given = plausible_id(Kind.LICENSE, license_id), {} if body is None else body
        with self._absence_is_true(Kind.LICENSE, license_id):
            return self.once(effect, lambda: self._actions.act(id, action, given, effect))

    def once(self, effect: Effect, do: Callable[[], Resource]) -> Resource:
        """What `do` gives, or the first answer to the call that `effect` is of; `do` commits the effect's record."""
        return done_once(self._journal, effect, do)

    def create_many(self, body: AnyBody, count: int, effect: Effect = EVERY_TIME) -> list[Resource]:
        """`count` licenses that differ in their keys, each shown this once. One transaction, one event."""
        given = parse(LicenseBody, body)

        def made() -> Resource:
            return {"items": self._bulk.create_many(given, count, effect)}

        with self._absence_is_true(Kind.LICENSE, body=given):
            items: list[Resource] = self.once(effect, made)["items"]
            return items

    def import_licenses(
        self, rows: Iterable[Mapping[str, Any]], effect: Effect = EVERY_TIME, *, check: bool = False
    ) -> int:
        """Takes all rows (see `bulk.ImportedLicense`) or none, and gives their number. Raises `bulk.BadRow`.

        `check`: takes none, and raises the same.
        """

        def taken() -> Resource:
            return imported(self._bulk.import_licenses(rows, effect, check=check))

        return int(self.once(effect, taken)["rows"])

    def licenses(self, filters: Mapping[str, str]) -> Iterator[Resource]:
        """All licenses that match, newest first, read in chunks while they are taken."""
        return self._licenses.stream(filters)

    def export_licenses(self) -> Iterator[Resource]:
        """Every license as a row that `import_licenses` takes, with the hash of its key in place of the key."""
        return self._bulk.export_licenses()

    def events_page(self, filters: Mapping[str, str], limit: int = 50, cursor: str | None = None) -> Resource:
        """`{"items": [...], "next": cursor or None}`, by ascending `seq`. Filters: see `event_log.FILTERS`."""
        return self._events.page(filters, limit, cursor)

    def events(self, filters: Mapping[str, str]) -> Iterator[Resource]:
        """All events that match, read in chunks while they are taken."""
        return self._events.stream(filters)

    def newest_events(self, filters: Mapping[str, str]) -> Iterator[Resource]:
        """The same, the newest first."""
        return self._events.newest(filters)

    def findings_page(self, filters: Mapping[str, str], limit: int = 50, cursor: str | None = None) -> Resource:
        """`{"items": [...], "next": cursor or None}`: conflicts and events set aside. Filters: `findings.FILTERS`."""
        return self._findings.page(filters, limit, cursor)

    def create_token(self, name: str, scopes: Iterable[str], effect: Effect = EVERY_TIME) -> Resource:
        """`{"id", "name", "scopes", "created_at", "token"}`; the token is shown this once."""
        return self.once(effect, lambda: self._tokens.create(name, scopes, effect))

    def token(self, id: str) -> Resource:
        return self._tokens.get(plausible_id("token", id))

    def tokens(self) -> list[Resource]:
        """The tokens that have not been revoked, oldest first."""
        return self._tokens.all()

    def revoke_token(self, id: str) -> None:
        self._tokens.revoke(plausible_id("token", id))

    @contextlib.contextmanager
    def _absence_is_true(self, kind: Kind, id: str = "", body: Body | None = None) -> Iterator[None]:
        """Raises `LedgerContradicts` in place of a refusal for a row that this node's copy has, and the log not ended.

        `id`: of the row that the call is about; `body`: may name others.
        """
        try:
            yield
        except Problem as problem:
            field = problem.members.get("field") if isinstance(problem, Malformed) else None
            missing: Any = getattr(body, field, None) if field else None
            if self._evidence is not None and field in _COPIED and isinstance(missing, str):
                self._evidence.require_absence(_COPIED[field], missing)
            if self._evidence is not None and problem.code == "RESOURCE_NOT_FOUND" and kind in _COPIED:
                self._evidence.require_absence(_COPIED[kind], id)
            raise
