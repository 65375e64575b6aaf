"""Licenses between what an admin sends, the row that is kept, and the resource that is shown."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, Select, select

from api.ids import new_id
from api.ledger.rows import policy_of
from api.ledger.tables import licenses, policies
from api.licensing import DAY, Policy
from api.node.clock import timestamp
from api.problems import Malformed
from api.signing import key_claim
from api.signing.license_key import ALPHABET, GROUP, LENGTH, check_character

_KEY_BITS = 5 * (LENGTH - 1)  # 135; the last character checks the others
_OLD_KEY_BITS, _OLD_GROUP = 150, 6
#: How many bytes `key_of` and `old_key_of` take.
KEY_BYTES, OLD_KEY_BYTES = (_KEY_BITS + 7) // 8, (_OLD_KEY_BITS + 7) // 8

_POLICY = (policies.c.product, policies.c.name.label("policy_name"), policies.c.rules_json)
_SAME = ("policy", "name", "email", "max_machines", "max_uses", "external_ref")

Row = Mapping[str, Any]


def new_key() -> str:
    """A license key that nobody can guess and anybody can read out."""
    return key_of(secrets.token_bytes(KEY_BYTES))


def key_of(drawn: bytes) -> str:
    """The license key that `KEY_BYTES` bytes stand for, with its check character."""
    characters = _characters(drawn, _KEY_BITS)
    return _in_groups(characters + check_character(characters), GROUP)


def old_key_of(drawn: bytes) -> str:
    """The license key that the first release made of `OLD_KEY_BYTES` bytes."""
    return _in_groups(_characters(drawn, _OLD_KEY_BITS), _OLD_GROUP)


def key_columns(key: str) -> dict[str, str]:
    """What is kept of a key."""
    return {"key_hash": key_claim(key), "key_hint": key[-4:]}


def with_policy() -> Select[Any]:
    """Licenses with their policies' columns, which `policy_in` reads."""
    joined = licenses.join(policies, licenses.c.policy == policies.c.id)
    return select(licenses, *_POLICY).select_from(joined)


def policy_in(row: Row) -> Policy:
    """The policy in the joined columns of a row, as `with_policy` has them."""
    return policy_of(row["policy"], row["product"], row["policy_name"], row["rules_json"])


def hold_policy(connection: Connection, id: str) -> dict[str, Any]:
    """The policy's part of a row of `with_policy`; the policy cannot be deleted meanwhile. Raises `Malformed`."""
    query = select(*_POLICY).where(policies.c.id == id).with_for_update(read=True, key_share=True)
    found = connection.execute(query).mappings().first()
    if found is None:
        raise Malformed("policy", "there is no policy with this id")
    return {"policy": id, **found}


def columns_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that the fields of a body set. An `expires_at` of null is inherited: not set here."""
    columns = {name: given[name] for name in _SAME if name in given}
    if "entitlements" in given:
        own = given["entitlements"]
        columns["entitlements_json"] = None if own is None else _json(own)
    if "metadata" in given:
        columns["metadata_json"] = _json(given["metadata"] or {})
    if given.get("expires_at") is not None:
        columns["expires_at"] = given["expires_at"].timestamp()
    return columns


def inherited_expiry(policy: Policy, created_at: float) -> float | None:
    """When a license without an expiry of its own expires; None where it does not, or its time has not started."""
    if policy.duration_days is None or policy.expiry_basis != "creation":
        return None
    return created_at + policy.duration_days * DAY


def new_row(policy: Policy, created_at: float) -> dict[str, Any]:
    """The row of a new license as far as it does not depend on what was sent; the key's columns are missing."""
    row: dict[str, Any] = {column.name: None for column in licenses.columns if column.name != "seq"}
    counts = {"uses": 0, "seats": 0, "excess": 0}
    started = {"created_at": created_at, "expires_at": inherited_expiry(policy, created_at)}
    return row | counts | started | {"id": new_id(), "policy": policy.id, "status": "active", "metadata_json": "{}"}


def resource(row: Row, key: str | None = None) -> dict[str, Any]:
    """What an admin sees of a license (a row of `with_policy`); `key` only in the answer that made it."""
    own = row["entitlements_json"]
    shown = {
        "id": row["id"],
        "policy": row["policy"],
        "policy_name": row["policy_name"],
        "product": row["product"],
        "status": row["status"],
        "key_hint": row["key_hint"],
        "name": row["name"],
        "email": row["email"],
        "expires_at": timestamp(row["expires_at"]),
        "max_machines": row["max_machines"],
        "max_uses": row["max_uses"],
        "entitlements": None if own is None else msgspec.json.decode(own),
        "metadata": msgspec.json.decode(row["metadata_json"]),
        "external_ref": row["external_ref"],
        "inherited": _inherited(row),
        "uses": row["uses"],
        "machines": row["seats"],
        "created_at": timestamp(row["created_at"]),
        "last_seen_at": timestamp(row["last_seen_at"]),
    }
    return shown if key is None else shown | {"key": key}


def _inherited(row: Row) -> dict[str, Any]:
    """What the policy says where the license says nothing itself: limits, of which null is none, and entitlements."""
    policy = policy_in(row)
    given = {"max_machines": policy.max_machines, "max_uses": policy.max_uses, "entitlements": policy.entitlements}
    own = {**row, "entitlements": row["entitlements_json"]}
    return {name: value for name, value in given.items() if own[name] is None}


def _characters(drawn: bytes, bits: int) -> str:
    number = int.from_bytes(drawn) % (1 << bits)
    return "".join(ALPHABET[number >> shift & 31] for shift in range(0, bits, 5))


def _in_groups(characters: str, size: int) -> str:
    return "-".join(characters[at : at + size] for at in range(0, len(characters), size))


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
