"""Events for licenses that expire soon, have expired or are overdue: in the log once per license and occurrence.

- `license.expiring`: an active license expires within seven days, and had been sold for longer than that.
- `license.expired`: an active license's expiry has passed, whether or not its policy maintains it for a while.
- `license.overdue`: an active license that should have checked in did not. Only silence that counts is counted.

A license that is renewed, or checks in, has its next occurrence to come. A suspended or banned license has no such
event: the event of its suspension or ban says enough.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Select, and_, func, or_, select

from api.ledger.tables import licenses, notices
from api.licensing import DAY, Policy, Watch
from api.node.clock import timestamp
from api.supervisor.duties import outbox
from api.supervisor.duties.rows import all_policies, put
from api.supervisor.duties.terms import Writing
from api.supervisor.duties.watching import watched

EXPIRING, EXPIRED, OVERDUE = "license.expiring", "license.expired", "license.overdue"
_CHUNK = 200
_AHEAD_S = 7 * DAY

_l = licenses.c
_checked_in_at = func.coalesce(_l.checked_in_at, _l.created_at)


class Notice(msgspec.Struct, frozen=True):
    """One kind of event. `of`: the licenses it is recorded for; `about`: the moment that tells occurrences apart."""

    kind: str
    about: ColumnElement[float]
    of: Callable[[Writing], ColumnElement[bool] | None]
    named: str


def record_expiries(writing: Writing) -> bool:
    """Records some licenses that have expired or soon will; gives whether there may be more."""
    return any([_record(writing, _EXPIRED), _record(writing, _EXPIRING)])


def record_overdue(writing: Writing) -> bool:
    """Records some licenses that are overdue for check-in; gives whether there may be more."""
    return _record(writing, _OVERDUE)


def _record(writing: Writing, notice: Notice) -> bool:
    condition = notice.of(writing)
    if condition is None:
        return False
    found = writing.connection.execute(_unrecorded(notice, condition)).all()
    put(writing.connection, notices, [{"license_id": row.id, "kind": notice.kind, "about": row.about} for row in found])
    events = [
        writing.add_event(notice.kind, license_id=row.id, **{notice.named: timestamp(row.about)}) for row in found
    ]
    outbox.enqueue(writing, [outbox.of(event) for event in events])
    return len(found) == _CHUNK


def _unrecorded(notice: Notice, condition: ColumnElement[bool]) -> Select[Any]:
    recorded = and_(notices.c.license_id == _l.id, notices.c.kind == notice.kind)
    news = or_(notices.c.about.is_(None), notices.c.about != notice.about)
    query = select(_l.id, notice.about.label("about")).select_from(licenses.outerjoin(notices, recorded))
    return query.where(_l.status == "active", condition, news).order_by(_l.id).limit(_CHUNK)


def _has_expired(writing: Writing) -> ColumnElement[bool]:
    return _l.expires_at <= writing.now


def _expires_soon(writing: Writing) -> ColumnElement[bool]:
    now = writing.now
    return and_(_l.expires_at > now, _l.expires_at <= now + _AHEAD_S, _l.expires_at - _l.created_at > _AHEAD_S)


def _is_overdue(writing: Writing) -> ColumnElement[bool] | None:
    return overdue(all_policies(writing.connection), watched(writing.connection), writing.now)


def overdue(policies: list[Policy], watch: Watch, now: float) -> ColumnElement[bool] | None:
    """The condition of a license that has been silent for too long and is not expired; None where none can be."""
    alike: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
    for policy in policies:
        if policy.check_in_days is not None:
            grace_days = policy.grace_days if policy.expiry_strategy == "maintain" else 0
            alike[policy.check_in_days, grace_days].append(policy.id)
    conditions = []
    for (days, grace_days), ids in alike.items():
        heard_until = min(now, watch.until) - days * DAY
        if heard_until >= watch.since:
            is_valid = or_(_l.expires_at.is_(None), _l.expires_at > now - grace_days * DAY)
            conditions.append(and_(_l.policy.in_(ids), heard_until >= _checked_in_at, is_valid))
    return or_(*conditions) if conditions else None


_EXPIRED = Notice(EXPIRED, _l.expires_at, _has_expired, "expires_at")
_EXPIRING = Notice(EXPIRING, _l.expires_at, _expires_soon, "expires_at")
_OVERDUE = Notice(OVERDUE, _checked_in_at, _is_overdue, "checked_in_at")
