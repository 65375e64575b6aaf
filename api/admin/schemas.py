"""What admins send: one struct per resource and action, strict, with everything refused that a ledger could refuse.

One struct serves creation and change: a field that was not sent is `UNSET`, and null clears or inherits.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from api.admin.kinds import Kind
from api.checks.schemas import KEY_LENGTHS, Entitlements, FieldError, Fingerprint, ProductCode, Text200, field_error
from api.licensing.model import MAX_USES, Cull, ExpiryBasis, ExpiryStrategy, Overage
from api.problems import Malformed
from api.signing.license_key import canonical_key

#: No control characters, NUL among them.
PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f]*\Z"
_METADATA_LIMIT = 16 * 1024
#: How many licenses one HTTP call makes: their answer is some 300 KB, and is kept for a day with an `Idempotency-Key`.
MAX_CREATED = 500
#: How many rows one HTTP call imports. The body's 64 KiB are the nearer limit for rows of ordinary length.
MAX_IMPORTED = 1_000
#: 9999-12-31T23:59:59Z: later times cannot be written as RFC 3339.
LAST_MOMENT = 253_402_300_799.0

Id = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,36}\Z")]
#: As it was pasted: `parse` brings it to its one form and then looks at its length.
PastedKey = Annotated[str, Meta(max_length=1024, description="A license key; of 8 to 128 characters in its one form")]
Slug = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z", description="Letters, digits, . _ -")]
Name = Annotated[str, Meta(min_length=1, max_length=200, pattern=PRINTABLE)]
Email = Annotated[
    str, Meta(min_length=3, max_length=320, pattern=r"^[^@\s\x00-\x1f\x7f-\x9f]+@[^@\s\x00-\x1f\x7f-\x9f]+\Z")
]
Versions = Annotated[str, Meta(min_length=1, max_length=200, pattern=PRINTABLE, description="PEP 440 specifiers")]
Days = Annotated[int, Meta(ge=1, le=36_500)]
DaysOrNone = Annotated[int, Meta(ge=0, le=36_500)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Uses = Annotated[int, Meta(ge=1, le=MAX_USES)]
CountOrNone = Annotated[int, Meta(ge=0, le=1_000_000)]
Seconds = Annotated[int, Meta(ge=1, le=315_360_000)]
Moment = Annotated[datetime, Meta(tz=True)]
NodeId = Annotated[str, Meta(min_length=1, max_length=128, pattern=PRINTABLE)]


class Body(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`REQUIRED`: what a new resource cannot do without. `SHOWN_ONCE`: the member of the answer that is shown once."""

    REQUIRED: ClassVar[tuple[str, ...]] = ()
    SHOWN_ONCE: ClassVar[str] = "key"


class ProductBody(Body, kw_only=True):
    REQUIRED = ("code", "name")

    code: Slug | UnsetType = UNSET
    name: Name | UnsetType = UNSET


class PolicyBody(Body, kw_only=True):
    REQUIRED = ("product", "name")

    product: ProductCode | UnsetType = UNSET
    name: Name | UnsetType = UNSET
    duration_days: Days | UnsetType | None = UNSET
    expiry_basis: ExpiryBasis | UnsetType = UNSET
    expiry_strategy: ExpiryStrategy | UnsetType = UNSET
    grace_days: DaysOrNone | UnsetType = UNSET
    max_machines: Count | UnsetType | None = UNSET
    floating: bool | UnsetType = UNSET
    require_fingerprint: bool | UnsetType = UNSET
    overage: Overage | UnsetType = UNSET
    machine_heartbeat_s: Seconds | UnsetType | None = UNSET
    cull: Cull | UnsetType = UNSET
    check_in_days: Days | UnsetType | None = UNSET
    max_uses: Uses | UnsetType | None = UNSET
    entitlements: Entitlements | UnsetType = UNSET
    versions: Versions | UnsetType | None = UNSET
    offline_ttl_s: Seconds | UnsetType | None = UNSET
    isolated_activation: bool | UnsetType = UNSET
    moves_per_30d: CountOrNone | UnsetType | None = UNSET
    release_stale_days: Days | UnsetType | None = UNSET


class LicenseBody(Body, kw_only=True):
    REQUIRED = ("policy",)

    policy: Id | UnsetType = UNSET
    name: Name | UnsetType | None = UNSET
    email: Email | UnsetType | None = UNSET
    expires_at: Moment | UnsetType | None = UNSET
    max_machines: Count | UnsetType | None = UNSET
    max_uses: Uses | UnsetType | None = UNSET
    entitlements: Entitlements | UnsetType | None = UNSET
    metadata: dict[str, Any] | UnsetType | None = UNSET
    external_ref: Name | UnsetType | None = UNSET
    key: PastedKey | UnsetType | None = UNSET


class NewLicenseBody(LicenseBody, kw_only=True):
    """`count`: so many licenses that differ in their keys, in one transaction; not with `key` or `external_ref`."""

    count: Annotated[int, Meta(ge=1, le=MAX_CREATED)] | UnsetType = UNSET


class ImportBody(Body, kw_only=True):
    """Licenses that another system sold, all of them or none. `check`: only say what is wrong with them."""

    rows: Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=MAX_IMPORTED)]
    check: bool = False


class MachineBody(Body, kw_only=True):
    REQUIRED = ("license", "fingerprint")

    license: Id | UnsetType = UNSET
    fingerprint: Fingerprint | UnsetType = UNSET
    name: Text200 | UnsetType | None = UNSET
    platform: Text200 | UnsetType | None = UNSET


class EmptyBody(Body, kw_only=True):
    """For actions that take nothing."""


class RenewBody(Body, kw_only=True):
    days: Days | None = None


class ReissueBody(Body, kw_only=True):
    key: PastedKey | None = None


class KeyBody(Body, kw_only=True):
    """A public signing key (RFC 7517). Its `kid`, where it has one, is the thumbprint of RFC 7638."""

    REQUIRED = ("jwk",)

    jwk: dict[str, Any]


class ActivateKeyBody(Body, kw_only=True):
    """`force`: also where the node that is asked does not hold the key's private half."""

    force: bool = False


class NodeActionBody(Body, kw_only=True):
    to: NodeId


BODIES: dict[Kind, type[Body]] = {
    Kind.PRODUCT: ProductBody,
    Kind.POLICY: PolicyBody,
    Kind.LICENSE: LicenseBody,
    Kind.MACHINE: MachineBody,
}

#: What a `POST` to a collection takes, where that is more than a `PATCH` does.
NEW_BODIES: dict[Kind, type[Body]] = BODIES | {Kind.LICENSE: NewLicenseBody}

B = TypeVar("B", bound=Body)


def parse(type: type[B], raw: bytes | Mapping[str, Any] | Body) -> B:
    """The body that `raw` (JSON, or what JSON would give) is. Raises `Malformed`, naming the field."""
    if isinstance(raw, type):
        return raw
    try:
        text = raw if isinstance(raw, bytes) else msgspec.json.encode(raw)
        body = _with_canonical_key(msgspec.json.decode(text, type=type))
        _check(sent(body))
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        fault = field_error(error, type.__struct_fields__)
        raise Malformed(fault.field, fault.detail) from error
    except FieldError as error:
        raise Malformed(error.field, error.detail) from error
    return body


def _with_canonical_key(body: B) -> B:
    """Raises `FieldError` where the key in its one form is none."""
    pasted = getattr(body, "key", UNSET)
    if not isinstance(pasted, str):
        return body
    shortest, longest = KEY_LENGTHS
    key = canonical_key(pasted)
    if not shortest <= len(key) <= longest:
        raise FieldError("key", f"must have {shortest} to {longest} characters")
    return msgspec.structs.replace(body, key=key)


def sent(body: Body) -> dict[str, Any]:
    """The fields that were sent, by name."""
    return {name: value for name, value in msgspec.structs.asdict(body).items() if value is not UNSET}


def require(body: Body) -> dict[str, Any]:
    """What was sent for a new resource. Raises `Malformed` for what is missing."""
    given = sent(body)
    for name in body.REQUIRED:
        if name not in given:
            raise Malformed(name, "is required")
    return given


def moment(text: str) -> float:
    """Unix seconds of an RFC 3339 time with an offset, or of Unix seconds as text. Raises `ValueError`."""
    if text.isascii() and text.isdigit() and len(text) <= 12:
        return float(text)
    try:
        return msgspec.convert(text, Moment).timestamp()
    except msgspec.MsgspecError:
        raise ValueError("must be RFC 3339 with an offset, or Unix seconds") from None


def _check(fields: dict[str, Any]) -> None:
    """What the types do not say. Raises `FieldError`."""
    versions, metadata = fields.get("versions"), fields.get("metadata")
    if versions is not None and not _is_specifier(versions):
        raise FieldError("versions", "is not a PEP 440 specifier set, such as >=1,<3")
    if metadata is not None and len(msgspec.json.encode(metadata)) > _METADATA_LIMIT:
        raise FieldError("metadata", "is larger than 16 KiB")
    for name in ("expires_at", "created_at"):
        at = fields.get(name)
        if at is not None and not 0 <= at.timestamp() <= LAST_MOMENT:
            raise FieldError(name, "must lie between 1970 and 9999")


def _is_specifier(text: str) -> bool:
    try:
        SpecifierSet(text)
    except InvalidSpecifier:
        return False
    return True
