"""Who may call as an admin: bearer tokens and their scopes. A client's API key and signature open nothing here."""

from __future__ import annotations

import hmac
import re
import threading

import msgspec
from flask import Request
from sqlalchemy import select

from api.admin.token_store import Scope, secret_hash
from api.ledger.errors import LedgerError, LedgerUnavailable
from api.ledger.log import brief_reading
from api.ledger.tables import tokens
from api.problems import Problem
from api.runtime import Runtime
from api.web.intake import rate_limited
from api.web.rate_limit import FailureLimiter

_BEARER = re.compile(r"bearer +(\S+) *", re.IGNORECASE)
#: How long a revoked token may go on working on another node; also how often wrong tokens may ask the ledger.
_CACHED_S = 1.0

_ALL = frozenset(Scope)


class Authorized(msgspec.Struct, frozen=True):
    """The caller with this token, whose hash is kept and not the token, and what it may do."""

    token_hash: str
    scopes: frozenset[str]


class AdminAuth:
    """Checks `Authorization: Bearer`. One per process: the hashes of all good tokens are kept for a second."""

    def __init__(self, runtime: Runtime, limiter: FailureLimiter) -> None:
        self._runtime = runtime
        self._limiter = limiter
        self._admin = secret_hash(runtime.settings.admin_token).encode()
        self._known: dict[str, frozenset[str]] | None = None
        self._read_at = float("-inf")
        self._changes = 0
        self._lock = threading.Lock()

    def require(self, request: Request, scope: Scope) -> Authorized:
        """Who calls. Raises `RATE_LIMITED`, `TOKEN_INVALID`, `SCOPE_MISSING` or `STARTING`, and `LedgerError`.

        Only failures are limited: a token known to be good is let in however many wrong ones came from its address.
        """
        found = _BEARER.fullmatch(request.headers.get("Authorization", ""))
        presented, address = None if found is None else secret_hash(found.group(1)), request.remote_addr or ""
        scopes = None if presented is None else self._scopes(address, presented)
        if presented is None or scopes is None:
            raise self._failure(address, presented)
        if scope not in scopes:
            raise Problem("SCOPE_MISSING", f"needs the scope {scope}", scope=scope)
        return Authorized(presented, scopes)

    def _failure(self, address: str, presented: str | None) -> Problem:
        retry_after = self._limiter.retry_after(address, presented)
        if retry_after is not None:
            return rate_limited(retry_after)
        self._limiter.failed(address, presented)
        return Problem("TOKEN_INVALID")

    def _scopes(self, address: str, presented: str) -> frozenset[str] | None:
        if hmac.compare_digest(presented.encode(), self._admin):
            return _ALL
        if self._is_wrong_again(address, presented):
            return None
        with self._lock:
            return self._tokens().get(presented)

    def _is_wrong_again(self, address: str, presented: str) -> bool:
        """Whether this can be refused as limited without the ledger, and without waiting for those who ask it."""
        known, changes = self._known, self._changes
        if known is None or presented in known or changes != self._runtime.state.changes.key_changes:
            return False
        return self._limiter.retry_after(address, presented) is not None

    def _tokens(self) -> dict[str, frozenset[str]]:
        now, changes = self._runtime.clock.monotonic(), self._runtime.state.changes.key_changes
        if now - self._read_at >= _CACHED_S or changes != self._changes:
            self._runtime.require_started()
            self._refresh(now, changes)
        if self._known is None:
            raise LedgerUnavailable("the tokens could not be read")
        return self._known

    def _refresh(self, now: float, changes: int) -> None:
        """Reads the tokens; where that fails, the node's copy has them, and the failure is cached for as long."""
        if not self._runtime.ledger_reachable:
            if self._known is None:
                self._known = self._load_from_snapshot()
            return
        try:
            self._known, self._read_at = self._read(), now
        except LedgerError:
            # One that was revoked must not live on because the connection is in use by who holds it.
            self._known = self._load_from_snapshot() or self._known
            # From its end on: it may have lasted longer than it is cached, and others wait.
            self._read_at = self._runtime.clock.monotonic()
        self._changes = changes

    def _load_from_snapshot(self) -> dict[str, frozenset[str]] | None:
        """Those of the node's own copy of the ledger, if there is one."""
        copy = self._runtime.reader.reading()
        columns = (tokens.c.token_hash, tokens.c.scopes, tokens.c.revoked_at)
        rows = [] if copy is None else copy.rows(tokens, columns)
        good = {hash: frozenset(scopes.split()) for hash, scopes, revoked_at in rows if revoked_at is None}
        return good or None

    def _read(self) -> dict[str, frozenset[str]]:
        query = select(tokens.c.token_hash, tokens.c.scopes).where(tokens.c.revoked_at.is_(None))
        with brief_reading(self._runtime.admins) as connection:
            return {hash: frozenset(scopes.split()) for hash, scopes in connection.execute(query)}
