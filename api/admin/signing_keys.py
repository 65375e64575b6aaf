"""The signing keys that the ledger permits, as admins see and move them: public halves only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from sqlalchemy import select

from api.admin.idempotency import EVERY_TIME, Effect
from api.admin.rows import missing
from api.ledger import permitted_keys, tables
from api.ledger.log import Journal
from api.node.clock import timestamp
from api.problems import Malformed, Problem
from api.signing import KeyChangeRefused, KeyStatus, PublicJwk, SigningKeyError, keyring, load_public_jwk, public_jwk

_Transition = Callable[[Mapping[str, str], str], dict[str, KeyStatus]]

_ORDER = list(KeyStatus)
_table = tables.signing_keys.c


class SigningKeys:
    """Every method raises `Problem` and `LedgerError`. `held`: the kids whose private halves this node has."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def all(self, held: Collection[str]) -> list[dict[str, Any]]:
        """Next, current, previous, revoked, each `{"kid", "status", "held", "jwk", "created_at", "changed_at"}`."""
        columns = (_table.kid, _table.created_at, _table.changed_at)
        with self._journal.reading() as connection:
            permitted = permitted_keys.load(connection)
            times = {row.kid: row for row in connection.execute(select(*columns))}
        return [
            _resource(kid, status, permitted.jwks[kid], held, times[kid].created_at, times[kid].changed_at)
            for kid, status in sorted(permitted.statuses.items(), key=lambda one: _ORDER.index(KeyStatus(one[1])))
            if kid in times
        ]

    def add(self, jwk: Mapping[str, Any], held: Collection[str], effect: Effect = EVERY_TIME) -> dict[str, Any]:
        """Permits a public key as the next one."""
        public = checked_jwk(jwk)
        return self._change("added", keyring.add, public["kid"], held, effect, public)

    def activate(
        self, kid: str, held: Collection[str], effect: Effect = EVERY_TIME, *, force: bool = True
    ) -> dict[str, Any]:
        """Makes a key the one that signs. Without `force` it is one that this node holds, or `CONFLICT`."""
        if not force and kid not in held:
            self._known(kid)
            detail = "this node's SIGNING_KEY does not hold the key: nodes without it would stop giving verdicts"
            raise Problem("CONFLICT", f"{detail}. Put it into every node's SIGNING_KEY first, or send force")
        return self._change("activated", keyring.activate, kid, held, effect)

    def retire(self, kid: str, held: Collection[str], effect: Effect = EVERY_TIME) -> dict[str, Any]:
        """Revokes a key for good."""
        return self._change("retired", keyring.retire, kid, held, effect)

    def _known(self, kid: str) -> None:
        with self._journal.reading() as connection:
            if kid not in permitted_keys.load(connection).statuses:
                missing("key")

    def _change(
        self,
        done: str,
        transition: _Transition,
        kid: str,
        held: Collection[str],
        effect: Effect,
        jwk: PublicJwk | None = None,
    ) -> dict[str, Any]:
        """Moves the keys in one transaction with its event; the key as it is then."""
        with self._journal.change() as change:
            # The ledger's only row is the lock: two administrators must not both start from the old statuses.
            change.connection.execute(tables.ledger.select().with_for_update())
            permitted, now = permitted_keys.load(change.connection), self._journal.now()
            before = permitted.statuses
            after = _moved(transition, before, kid, is_new=jwk is not None)
            moved = [one for one in after if before.get(one) != after[one]]
            for one in moved:
                permitted_keys.write(change.connection, one, after[one], now, jwk)
            row = change.connection.execute(select(_table.created_at, _table.changed_at).where(_table.kid == kid)).one()
            answer = _resource(kid, after[kid], jwk or permitted.jwks[kid], held, row.created_at, row.changed_at)
            record = effect.record(answer, now)
            if moved:
                change.commit(self._journal.event(f"key.{done}", kid=kid), {tables.signing_keys: moved}, record)
            else:
                change.keep(record)
        return answer


def checked_jwk(jwk: Mapping[str, Any]) -> PublicJwk:
    """The public key of P-256 that `jwk` is, named by its thumbprint. Raises `Malformed`, for a private one too."""
    if "d" in jwk:
        raise Malformed("jwk", "is a private key, which is not for any call: send its public half; and make another")
    try:
        public = public_jwk(load_public_jwk({"kid": "", **jwk}))
    except SigningKeyError as error:
        raise Malformed("jwk", str(error)) from error
    if jwk.get("kid", public["kid"]) != public["kid"]:
        raise Malformed("jwk", f"the kid is not the key's thumbprint (RFC 7638), which is {public['kid']}")
    return public


def _moved(transition: _Transition, before: Mapping[str, str], kid: str, *, is_new: bool) -> dict[str, KeyStatus]:
    try:
        return transition(before, kid)
    except KeyChangeRefused as error:
        code = "CONFLICT" if is_new or kid in before else "RESOURCE_NOT_FOUND"
        raise Problem(code, str(error)) from error


def _resource(
    kid: str, status: str, jwk: PublicJwk, held: Collection[str], created_at: float, changed_at: float
) -> dict[str, Any]:
    times = {"created_at": timestamp(created_at), "changed_at": timestamp(changed_at)}
    return {"kid": kid, "status": str(status), "held": kid in held, "jwk": dict(jwk), **times}
