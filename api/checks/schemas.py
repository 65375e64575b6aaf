"""What clients send: one struct per call, strict, with everything refused here that a ledger could refuse later."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Annotated, Any, TypeVar

import msgspec
from packaging.version import InvalidVersion, Version

from api.ids import NO_LICENSE_KEY
from api.licensing import Act, Call

#: No control characters, NUL among them. Lone surrogates are no JSON text: the decoder refuses them.
_PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f]*\Z"

#: The shortest and the longest license key, in characters.
KEY_LENGTHS = (8, 128)
Key = Annotated[str, msgspec.Meta(min_length=8, max_length=128, pattern=_PRINTABLE, description="The license key")]
Nonce = Annotated[
    str, msgspec.Meta(pattern=rf"^{NO_LICENSE_KEY}[A-Za-z0-9_-]{{16,64}}\Z", description="Made anew for each call")
]
Fingerprint = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=_PRINTABLE)]
Text200 = Annotated[str, msgspec.Meta(max_length=200, pattern=_PRINTABLE)]
ProductCode = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=_PRINTABLE)]
VersionText = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=_PRINTABLE, description="PEP 440")]
Entitlement = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=_PRINTABLE)]
Entitlements = Annotated[tuple[Entitlement, ...], msgspec.Meta(max_length=100)]
Increment = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
#: Any whole number that JSON can tell from its neighbours: the answer clamps it.
Ttl = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53, description="Seconds; clamped to 60 .. the policy's longest")]

_CLIENT_LIMIT = 1024
_REQUEST_ID = re.compile(rf"{NO_LICENSE_KEY}[A-Za-z0-9_-]{{8,64}}\Z")
#: What comes before the path at a message's end; the last one, since a value that is repeated may hold another.
_AT = " - at `"
_PATH = re.compile(r"(?:key in )?\$\.?(.*)`")
_QUOTED = re.compile(r"field `(.*?)`")
#: How msgspec's messages begin that repeat what was sent: a member's name, and a value.
_UNKNOWN, _ENUM = "Object contains unknown field `", "Invalid enum value"
_BEGINNING, _LONGEST_GUESS = 3, 64
#: Small letters and underscores: no key that is generated has neither digits nor capitals.
_IDENTIFIER = re.compile(r"[a-z_]{1,32}")

Body = TypeVar("Body", bound="ClientBody")


class FieldError(ValueError):
    """A field that is not as it should be. `field` is its name, `$` for the body as a whole."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}")
        self.field = field
        self.detail = detail


class ClientBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What every call carries. `client` is open, so that newer clients do not break on older nodes."""

    key: Key
    nonce: Nonce
    client: dict[str, Any] | None = None


class ValidateBody(ClientBody, kw_only=True):
    product: ProductCode | None = None
    fingerprint: Fingerprint | None = None
    version: VersionText | None = None
    entitlements: Entitlements | None = None


class ActivateBody(ClientBody, kw_only=True):
    fingerprint: Fingerprint
    name: Text200 | None = None
    platform: Text200 | None = None
    product: ProductCode | None = None
    version: VersionText | None = None


class DeactivateBody(ClientBody, kw_only=True):
    fingerprint: Fingerprint


class PingBody(ClientBody, kw_only=True):
    fingerprint: Fingerprint


class CheckInBody(ClientBody, kw_only=True):
    """Nothing but the key."""


class UsageBody(ClientBody, kw_only=True):
    increment: Increment = 1


class CheckoutBody(ClientBody, kw_only=True):
    fingerprint: Fingerprint
    ttl: Ttl | None = None


BODIES: dict[Act, type[ClientBody]] = {
    Act.VALIDATE: ValidateBody,
    Act.ACTIVATE: ActivateBody,
    Act.DEACTIVATE: DeactivateBody,
    Act.PING: PingBody,
    Act.CHECK_IN: CheckInBody,
    Act.USAGE: UsageBody,
    Act.CHECKOUT: CheckoutBody,
}
#: Which of a body's fields the decision sees.
_CALL_FIELDS = {
    body: [name for name in body.__struct_fields__ if name in Call.__struct_fields__] for body in BODIES.values()
}
_DECODERS = {act: msgspec.json.Decoder(body) for act, body in BODIES.items()}


def parse_call(act: Act, raw: bytes) -> ClientBody:
    """The body of a call. Raises `FieldError`."""
    try:
        body = _DECODERS[act].decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise field_error(error, BODIES[act].__struct_fields__) from error
    if body.client is not None and len(msgspec.json.encode(body.client)) > _CLIENT_LIMIT:
        raise FieldError("client", "is larger than 1 KiB")
    version = getattr(body, "version", None)
    if version is not None and not is_version(version):
        raise FieldError("version", "is not a PEP 440 version")
    return body


def call_of(act: Act, body: ClientBody) -> Call:
    """What the decision needs of a body."""
    fields = {name: getattr(body, name) for name in _CALL_FIELDS[type(body)]}
    if fields.get("entitlements", ()) is None:
        del fields["entitlements"]
    return Call(act=act, **fields)


def is_version(text: str) -> bool:
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True


def is_request_id(text: str) -> bool:
    """Whether `text` may be an `X-Request-Id` or an `Idempotency-Key`, and be repeated in answers and logs."""
    return _REQUEST_ID.match(text) is not None


def shown_name(name: str) -> str:
    """The name of a member or parameter that we do not know, as an answer may repeat it.

    People paste a license key where a name belongs. What may be one is shown by its beginning and its length; what is
    too short for one, or is written as members are (`rules_json`), is not.
    """
    if len(name) < KEY_LENGTHS[0] or ("_" in name and _IDENTIFIER.fullmatch(name)):
        return name
    return f"{name[:_BEGINNING]}... ({len(name)} characters)"


def unknown_name(name: str, known: Iterable[str]) -> FieldError:
    """What to say of a name that is none of the `known`: the one that was probably meant."""
    near = difflib.get_close_matches(name, known, 1, 0.8) if len(name) <= _LONGEST_GUESS else []
    return FieldError(shown_name(name), f"is not known{f': is {near[0]} meant?' if near else ''}")


def field_error(error: Exception, known: Iterable[str]) -> FieldError:
    """msgspec's message, with the field that it is about set apart, and nothing in it that was sent.

    `known`: the members that the body may have.
    """
    if isinstance(error, RecursionError):
        return FieldError("$", "is nested too deeply")
    if not isinstance(error, msgspec.ValidationError):
        return FieldError("$", f"is not JSON: {error}")
    message = str(error)
    if message.startswith(_UNKNOWN):
        return unknown_name(message[len(_UNKNOWN) : -1], known)
    detail, _, place = message.rpartition(_AT) if _AT in message else (message, "", "")
    if detail.startswith(_ENUM):
        detail = "is none of the values that it may have"
    found = (_PATH.match(place), _QUOTED.search(detail))
    field = ".".join(one.group(1) for one in found if one is not None and one.group(1))
    return FieldError(field or "$", detail[0].lower() + detail[1:])
