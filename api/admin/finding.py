"""Which product, policy or license a person means, of those that what was typed may name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from api.admin.kinds import Kind
from api.problems import Problem
from api.signing.license_key import looks_mistyped

#: So many are told of where what was typed may mean more than one.
CANDIDATES = 10

_BY = {
    Kind.PRODUCT: "id, code or name",
    Kind.POLICY: "id or name",
    Kind.LICENSE: "id, key, hint, e-mail address, reference or name",
}
_SHOWN = {
    Kind.PRODUCT: ("code", "name"),
    Kind.POLICY: ("product", "name"),
    Kind.LICENSE: ("key_hint", "status", "product", "policy_name", "name", "email", "created_at"),
}


def the_one(kind: Kind, typed: str, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The only one of `found`, newest first. Raises `RESOURCE_NOT_FOUND` and `CONFLICT`, which shows the candidates.

    `typed` may be a license key, so no message shows it.
    """
    if len(found) == 1:
        return found[0]
    if not found:
        slip = "; as a key it looks mistyped" if kind is Kind.LICENSE and looks_mistyped(typed) else ""
        raise Problem("RESOURCE_NOT_FOUND", f"there is no such {kind}: no {_BY[kind]} is that{slip}")
    shown = found[:CANDIDATES]
    more = "\n  and more" if len(found) > CANDIDATES else ""
    lines = "".join(f"\n  {_line(kind, one)}" for one in shown) + more
    candidates = [{"id": one["id"]} for one in shown]
    raise Problem("CONFLICT", f"that may be several {kind.plural}; name one by its id:{lines}", candidates=candidates)


def _line(kind: Kind, one: dict[str, Any]) -> str:
    return "  ".join([one["id"], *(str(one[name]) for name in _SHOWN[kind] if one[name] is not None)])
