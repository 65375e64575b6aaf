"""Structs for the document, made of those that the code decodes and encodes: other members are required in them."""

from __future__ import annotations

from collections.abc import Collection
from functools import reduce
from operator import or_
from typing import Any, get_args

import msgspec


def requiring(name: str, struct: type[msgspec.Struct], required: Collection[str] | None = None) -> type[msgspec.Struct]:
    """`struct` under another name, of which the `required` members have no default; None: all of them."""
    members: list[Any] = []
    for member in msgspec.structs.fields(struct):
        needed = required is None or member.name in required
        members.append((member.name, member.type) if needed else (member.name, member.type, member.default))
    strict = struct.__struct_config__.forbid_unknown_fields
    return msgspec.defstruct(name, members, kw_only=True, forbid_unknown_fields=strict, namespace=_described(struct))


def without_nulls(struct: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """`struct` under its own name, where what has no value is left out (`omit_defaults`), not null."""
    members: list[Any] = []
    for member in msgspec.structs.fields(struct):
        if member.required:
            members.append((member.name, member.type))
        else:
            members.append((member.name, _not_none(member.type) | msgspec.UnsetType, msgspec.UNSET))
    return msgspec.defstruct(struct.__name__, members, kw_only=True, namespace=_described(struct))


def list_of(view: type[msgspec.Struct], name: str) -> type[msgspec.Struct]:
    """One page of a list. `next`: the `cursor` of the page after it; null on the last one."""
    members: list[Any] = [("items", list[view]), ("next", str | None)]  # type: ignore[valid-type]
    return msgspec.defstruct(name, members, kw_only=True)


def _not_none(union: Any) -> Any:
    return reduce(or_, (one for one in get_args(union) if one is not type(None)))


def _described(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return {"__doc__": struct.__doc__}
