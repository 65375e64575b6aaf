"""The members of what an admin sends, as options. A test compares them with what the servers decode."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import click

Form = Literal["text", "number", "yes or no", "list", "json", "choice"]
_NONE = "none"


@dataclass(frozen=True, slots=True)
class Field:
    """One member. `nullable`: the word `none` sends null. `help` is shown with the option."""

    name: str
    help: str
    form: Form = "text"
    nullable: bool = False
    choices: tuple[str, ...] = ()


PRODUCT = (
    Field("code", "What your program sends: letters, digits, . _ -"),
    Field("name", "For people."),
)
POLICY = (
    Field("product", "The product's code."),
    Field("name", "For people."),
    Field("duration_days", "How long a license lasts; none: for ever.", "number", nullable=True),
    Field("expiry_basis", "When that begins.", "choice", choices=("creation", "first_activation", "first_validation")),
    Field("expiry_strategy", "maintain: valid through the grace days.", "choice", choices=("restrict", "maintain")),
    Field("grace_days", "Days after the expiry.", "number"),
    Field("max_machines", "Seats of a license; none: no limit.", "number", nullable=True),
    Field("floating", "Seats move between machines.", "yes or no"),
    Field("require_fingerprint", "A check has to name its machine.", "yes or no"),
    Field("overage", "Seats beyond the limit.", "choice", choices=("none", "1.25x", "1.5x", "2x", "always")),
    Field("machine_heartbeat_s", "A machine must ping within so many seconds; none: never.", "number", nullable=True),
    Field("cull", "What becomes of a machine that does not.", "choice", choices=("deactivate", "keep")),
    Field("check_in_days", "A license must check in within so many days; none: never.", "number", nullable=True),
    Field("max_uses", "Uses of a license; none: not counted.", "number", nullable=True),
    Field("entitlements", "What its licenses may do; may be repeated.", "list"),
    Field("versions", "Versions of the program, like >=1,<3; none: all.", nullable=True),
    Field("offline_ttl_s", "Seconds that a machine may go on offline; none: not at all.", "number", nullable=True),
    Field("isolated_activation", "Seats are given without the ledger too.", "yes or no"),
    Field("moves_per_30d", "New machines in 30 days beyond the seats; none: no limit.", "number", nullable=True),
    Field("release_stale_days", "Unseen for so long, a seat may be taken; none: never.", "number", nullable=True),
)
LICENSE = (
    Field("policy", "The policy's id or name."),
    Field("name", "The customer; none: unset.", nullable=True),
    Field("email", "The customer's address; none: unset.", nullable=True),
    Field("expires_at", "RFC 3339, like 2027-01-01T00:00:00Z; none: the policy's.", nullable=True),
    Field("max_machines", "Seats; none: the policy's.", "number", nullable=True),
    Field("max_uses", "Uses; none: the policy's.", "number", nullable=True),
    Field("entitlements", "What it may do, may be repeated; none: the policy's.", "list", nullable=True),
    Field("metadata", "A JSON object of your own; none: empty.", "json", nullable=True),
    Field("external_ref", "Your own reference, such as a payment's; none: unset.", nullable=True),
    Field("key", "A key of your own in place of a new one.", nullable=True),
)
MACHINE = (
    Field("license", "The license: its id, key, hint, e-mail or reference."),
    Field("fingerprint", "What the program calls the machine."),
    Field("name", "For people; none: unset.", nullable=True),
    Field("platform", "For people; none: unset.", nullable=True),
)


class Null:
    """What an option gives when it was given the word `none`."""


class _Nullable(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """What `inner` takes, or the word `none`."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.name = inner.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return Null if value is Null or value == _NONE else self._inner.convert(value, param, ctx)


class _Json(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            self.fail("is not JSON", param, ctx)


def options(
    fields: Collection[Field], *, required: Collection[str] = (), skip: Collection[str] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that gives a command an option for each of `fields` but those in `skip`."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for field in reversed([field for field in fields if field.name not in skip]):
            command = _option(field, field.name in required)(command)
        return command

    return decorate


def body_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """What is sent: what was given, `none` as null."""
    return {name: None if value is Null else value for name, value in values.items() if value not in (None, ())}


def _option(field: Field, required: bool) -> Callable[[Any], Any]:
    flag = f"--{field.name.replace('_', '-')}"
    if field.form == "yes or no":
        return click.option(f"{flag}/--no-{flag[2:]}", field.name, default=None, help=field.help)
    if field.form == "list":
        return click.option(
            flag.removesuffix("s"), field.name, multiple=True, callback=_listed(field.nullable), help=field.help
        )
    kinds: dict[str, Any] = {"number": click.INT, "json": _Json(), "choice": click.Choice(field.choices)}
    kind = kinds.get(field.form, click.STRING)
    return click.option(
        flag, field.name, type=_Nullable(kind) if field.nullable else kind, required=required, help=field.help
    )


def _listed(nullable: bool) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], Any]:
    def convert(_ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]) -> Any:
        if value == (_NONE,):
            return Null if nullable else []
        return list(value) or None

    return convert
