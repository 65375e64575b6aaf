"""How a worker starts on its ledger, once it answers, and without it, from this node's copy."""

from __future__ import annotations

from collections.abc import Sequence

from api import logs
from api.ledger import migrate, permitted_keys
from api.ledger.database import Database
from api.ledger.errors import LedgerContradicts, LedgerError
from api.node.clock import Clock
from api.node.shared_state import SharedState
from api.signing import SigningKey
from api.snapshot import Reader, require_leave
from api.worker.signing_state import SigningState

_log = logs.get("runtime")


class LedgerStart:
    """Makes or migrates the schema and founds the signing keys, unless this node's copy is of another ledger."""

    def __init__(self, database: Database, reader: Reader, clock: Clock, keys: Sequence[SigningKey]) -> None:
        self._database, self._reader, self._clock = database, reader, clock
        self._keys = tuple(keys)
        self.is_done = False
        #: Why nothing may be founded in the ledger, at the last try.
        self.objection: str | None = None

    def prepare(self) -> str:
        """Gives the ledger's id. Raises `LedgerError`."""
        self._require_leave()
        if migrate.upgrade(self._database):
            _log.info("schema migrated", extra={"revision": migrate.HEAD})
        permitted_keys.found(self._database, self._keys, self._clock.now())
        ledger_id = migrate.ledger_id(self._database)
        self.is_done = True
        return ledger_id

    def _require_leave(self) -> None:
        """Raises `LedgerContradicts` where this node's copy says that the ledger is not the one that is meant."""
        self.objection = None
        try:
            require_leave(self._reader.reading(), self._database)
        except LedgerContradicts as error:
            self.objection = str(error)
            raise


class IsolatedStart:
    """Starts a worker whose ledger is away: the copy says which key signs, if it is young enough."""

    def __init__(self, state: SharedState, reader: Reader, clock: Clock, signing: SigningState) -> None:
        self._state, self._reader, self._clock, self._signing = state, reader, clock, signing

    def attempt(self, error: LedgerError) -> None:
        """Isolates the node and signs by its copy, or notes why it cannot. `error`: why the ledger is of no use."""
        copy = self._reader.reading() if self._state.is_shared else None
        position = None if copy is None else copy.position()
        if position is not None:
            self._clock.start_from(position.wall_skew, position.as_of)
        reason = self._reader.unusable_reason(self._clock.now()) if copy else "there is no copy of it here"
        if reason or copy is None:
            self._signing.wait_for(f"the ledger ({error}): {reason}")
            return
        self._state.breaker.isolate()
        self._signing.ledger_id = "" if position is None else position.ledger_id
        self._signing.adopt(permitted_keys.load_from_snapshot(copy.rows), None)
