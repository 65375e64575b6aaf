"""Whether this node may give verdicts: whether it holds the signing key that the ledger says is current.

A node that may not would lead, do the leader's duties and have the lease handed to it, and answer no client.
"""

from __future__ import annotations

from collections.abc import Sequence

from api.signing import KeyNotPermitted, Keyring, PermittedKeys, SigningKey


class Permission:
    """The permission as last learned: none until the permitted keys are known."""

    def __init__(self, keys: Sequence[SigningKey]) -> None:
        self._keys = tuple(keys)
        self._given = False

    def learn(self, permitted: PermittedKeys) -> None:
        """Takes in the keys that the ledger, or this node's copy of it, permits."""
        try:
            Keyring(self._keys, permitted.statuses).signing_key()
        except KeyNotPermitted:
            # A ledger without any key has just been made: the first node that starts on it founds them.
            self._given = not permitted.statuses
        else:
            self._given = True

    def is_given(self) -> bool:
        """Whether it may, as far as is known."""
        return self._given
