"""Which key signs now and which keys are published, as the ledger, or this node's copy of it, permits them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from api import logs
from api.signing import KeyNotPermitted, Keyring, PermittedKeys, Signer, SigningKey, jwks

_log = logs.get("runtime")


class SigningState:
    """One worker's. Until a key is permitted there is no signer."""

    def __init__(self, keys: Sequence[SigningKey], node: str) -> None:
        self._keys, self._node = tuple(keys), node
        #: The key that signs, None while `waiting_for` keeps this worker from signing.
        self.signer: Signer | None = None
        #: The public keys as a JWKS.
        self.published: dict[str, Any] = {"keys": []}
        #: Which ledger this node answers from: known as soon as there is a signer.
        self.ledger_id = ""
        self.waiting_for = "the ledger"

    def adopt(self, permitted: PermittedKeys, ledger_id: str | None) -> None:
        """Signs and publishes by what is `permitted` from now on; `ledger_id` None: as it was."""
        self.ledger_id = ledger_id or self.ledger_id
        keyring = Keyring(self._keys, permitted.statuses)
        public = [permitted.jwks[kid] for kid in keyring.published()]
        self.published = dict(jwks(public[0], public[1:])) if public else {"keys": []}
        try:
            key = keyring.signing_key()
        except KeyNotPermitted as error:
            self.signer = None
            self.wait_for(str(error))
            return
        if self.signer is None or self.signer.kid != key.kid:
            _log.info("serving", extra={"kid": key.kid, "node": self._node})
            self.signer = Signer(key)

    def wait_for(self, reason: str) -> None:
        """Notes what keeps this worker from signing, and logs it where there is no signer and the reason is new."""
        if self.signer is None and reason != self.waiting_for:
            _log.warning("waiting", extra={"for": reason})
        self.waiting_for = reason
