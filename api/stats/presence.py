"""Whether a node is there, as far as heartbeats and the leader's calls of `/livez` can tell.

A host that puts a node to sleep ends its process in order, which its last beat says. A node that was killed says
nothing; what its address answers then tells a host that has lost its node from one that cannot be reached at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from hashlib import sha256
from typing import Any

import msgspec

from api.signing.base64url import b64url

#: How old the beat of a node that is there may be by default, in seconds; `HEARTBEAT_TIMEOUT` says it.
FRESH_S = 6.0
#: How the leader's marks in the table `duty_marks` begin.
MARK = "livez "
_HASH_BYTES = 24


class Presence(StrEnum):
    """What a node is to the others."""

    #: It beats in this ledger.
    BEATING = "beating"
    #: Its process was ended in order and has not been asked since: the next call wakes it, where its host does that.
    ASLEEP = "asleep"
    #: It answers at its address, and does not beat: it does not reach this ledger.
    ISOLATED = "isolated"
    #: Its address does not answer in time, or not as a node does.
    UNREACHABLE = "unreachable"
    #: Its address refuses, or its host answers that nothing runs there.
    DEAD = "dead"
    #: It beats no more, said no word of its end, and has not been asked since.
    SILENT = "silent"


class Asked(msgspec.Struct, frozen=True):
    """What became of the leader's last call of a node's `/livez`, at ledger time `at`, in whole seconds."""

    at: int
    found: Presence

    @classmethod
    def from_mark(cls, value: int) -> Asked:
        """The number kept in `duty_marks`; one of a later release, which this one cannot read, counts as silence."""
        at, code = divmod(value, 10)
        return cls(at, dict(enumerate(_FOUND)).get(code, Presence.SILENT))

    def mark(self) -> int:
        """As a number for `duty_marks`."""
        return self.at * 10 + _FOUND.index(self.found)


#: What a call may find, by its digit in a mark: the places are kept in ledgers.
_FOUND = (Presence.ISOLATED, Presence.UNREACHABLE, Presence.DEAD)


def mark_name(url: str) -> str:
    """The name of the mark of a node's address; that table's names are short."""
    return MARK + b64url(sha256(url.rstrip("/").lower().encode()).digest()[:_HASH_BYTES])


def presence(age_s: float, beat_at: float, signed_off: bool, asked: Asked | None, fresh_s: float) -> Presence:
    """What a node is whose last beat came at `beat_at`, `age_s` ago. Pure.

    `signed_off`: whether that beat said that its process ends; `asked`: the last call of it, by the same clock;
    `fresh_s`: how old the beat of a node that is there may be.
    """
    if age_s < fresh_s and not signed_off:
        return Presence.BEATING
    if asked is not None and asked.at > beat_at:
        return asked.found
    return Presence.ASLEEP if signed_off else Presence.SILENT


def aged(node: Mapping[str, Any], age_s: float, fresh_s: float) -> dict[str, Any]:
    """A node of `/stats` as it was last known, when its last beat is `age_s` old."""
    known = node.get("presence")  # a release before this one has kept none
    if known == Presence.BEATING and age_s >= fresh_s:
        known = Presence.SILENT.value
    return {**node, "beat_age_s": round(age_s, 1), "presence": known}
