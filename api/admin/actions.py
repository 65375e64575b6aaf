"""What can be done to a license: suspend, reinstate, ban, renew, reissue, check-in. A ban is final."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from sqlalchemy import update

from api.admin.idempotency import Effect
from api.admin.license_rows import key_columns, policy_in, resource
from api.admin.licenses import conflicts, locked
from api.admin.schemas import LAST_MOMENT, Body, EmptyBody, ReissueBody, RenewBody, parse
from api.ledger.log import Journal
from api.ledger.tables import licenses
from api.licensing import DAY
from api.node.change_marks import ChangeMarks
from api.problems import Malformed, Problem

#: The columns an action changes, given the license's row, the body and the time.
_Rule = Callable[[Mapping[str, Any], Any, float], dict[str, Any]]


class Action(msgspec.Struct, frozen=True):
    """`event`: what the log calls it when it is done."""

    body: type[Body]
    event: str
    rule: _Rule


def _renewed(row: Mapping[str, Any], body: RenewBody, now: float) -> dict[str, Any]:
    policy = policy_in(row)
    if row["expires_at"] is None:
        started = "has not started to run" if policy.duration_days is not None else "is perpetual"
        raise Problem("CONFLICT", f"the license {started}: there is nothing to renew")
    days = body.days or policy.duration_days
    if days is None:
        raise Malformed("days", "is required: the policy has no duration")
    expires_at = max(now, row["expires_at"]) + days * DAY
    if expires_at > LAST_MOMENT:
        raise Malformed("days", "leads beyond the year 9999")
    return {"expires_at": expires_at}


ACTIONS: dict[str, Action] = {
    "suspend": Action(EmptyBody, "license.suspended", lambda *_: {"status": "suspended"}),
    "reinstate": Action(EmptyBody, "license.reinstated", lambda *_: {"status": "active"}),
    "ban": Action(EmptyBody, "license.banned", lambda *_: {"status": "banned"}),
    "renew": Action(RenewBody, "license.renewed", _renewed),
    "reissue": Action(ReissueBody, "license.reissued", lambda *_: {}),
    "check-in": Action(EmptyBody, "license.checked-in", lambda _row, _body, now: {"checked_in_at": now}),
}


class Actions:
    """Raises `Problem` and `LedgerError`."""

    def __init__(self, journal: Journal, changes: ChangeMarks) -> None:
        self._journal = journal
        self._changes = changes

    def act(self, id: str, name: str, sent: Body | Mapping[str, Any], effect: Effect) -> dict[str, Any]:
        """The license afterwards. An action that changes nothing is no event."""
        action = ACTIONS[name]
        body = parse(action.body, sent)
        key = (body.key or effect.license_key()) if isinstance(body, ReissueBody) else None
        with conflicts(self._journal, key, None, own=id), self._journal.change() as change:
            row = locked(change.connection, id)
            if row["status"] == "banned" and name != "ban":
                raise Problem("CONFLICT", "the license is banned, which is final")
            now = self._journal.now()
            changes = action.rule(row, body, now) | ({} if key is None else key_columns(key))
            answer = resource(row | changes, key)
            record = effect.record(answer, now)
            if any(row[name] != value for name, value in changes.items()):
                change.update(update(licenses).where(licenses.c.id == id).values(changes))
                change.commit(self._journal.event(action.event, license_id=id), {licenses: [id]}, record)
            else:
                change.keep(record)
        if key is not None:
            self._changes.keys_changed()
        return answer
