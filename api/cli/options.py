"""Options made from the structs that admins send, so that no rule is written down twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import click
from msgspec import inspect

from api.admin.schemas import Body
from api.cli.help import FIELDS

_NONE = "none"
_HELP = {
    inspect.DateTimeType: "RFC 3339, like 2027-01-01T00:00:00Z",
    inspect.DictType: "a JSON object",
    inspect.VarTupleType: "may be given several times",
}

F = TypeVar("F", bound=Callable[..., Any])


class Null:
    """What an option gives when it was given the word `none`."""


class _Nullable(click.ParamType[Any]):
    """What `inner` takes, or the word `none`."""

    def __init__(self, inner: click.ParamType[Any]) -> None:
        self._inner = inner
        self.name = inner.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return Null if value is Null or value == _NONE else self._inner.convert(value, param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        return self._inner.get_metavar(param, ctx)


class _Json(click.ParamType[Any]):
    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            self.fail("is not JSON", param, ctx)


def body_options(body: type[Body], *, required: Collection[str] = (), skip: Collection[str] = ()) -> Callable[[F], F]:
    """A decorator that gives a command an option for each field of `body` but those in `skip`."""

    def decorate(command: F) -> F:
        for field in reversed(_fields(body)):
            if field.name not in skip:
                command = _option(field, field.name in required)(command)
        return command

    return decorate


def body_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON-ready body that the options' values make: what was given, `none` as null."""
    return {name: None if value is Null else value for name, value in values.items() if value not in (None, ())}


def _fields(body: type[Body]) -> tuple[inspect.Field, ...]:
    struct = inspect.type_info(body)
    assert isinstance(struct, inspect.StructType)
    return struct.fields


def _option(field: inspect.Field, required: bool) -> Callable[[F], F]:
    inner, nullable = _unwrapped(field.type)
    flag = f"--{field.name.replace('_', '-')}"
    hint = "; ".join(filter(None, (FIELDS.get(field.name), _HELP.get(type(inner)))))
    if isinstance(inner, inspect.BoolType):
        return click.option(f"{flag}/--no-{flag[2:]}", field.name, default=None, help=f"{hint}.")
    if isinstance(inner, inspect.VarTupleType):
        none = "no entitlement of its own" if nullable else "an empty list"
        hint, listed = f"{hint}; none: {none}.", _listed(nullable)
        return click.option(flag.removesuffix("s"), field.name, multiple=True, callback=listed, help=hint)
    if nullable:
        hint = f"{hint}; none: unset"
    kind = _Nullable(_kind(inner)) if nullable else _kind(inner)
    return click.option(flag, field.name, type=kind, required=required, help=f"{hint}.")


def _unwrapped(type: inspect.Type) -> tuple[inspect.Type, bool]:
    """The type without what is said about it, and whether null is another value of it."""
    while isinstance(type, inspect.Metadata):
        type = type.type
    if not isinstance(type, inspect.UnionType):
        return type, False
    (inner,) = (one for one in type.types if not isinstance(one, inspect.NoneType))
    return _unwrapped(inner)[0], True


def _kind(type: inspect.Type) -> click.ParamType[Any]:
    if isinstance(type, inspect.IntType):
        return click.INT
    if isinstance(type, inspect.LiteralType):
        return click.Choice([str(value) for value in type.values])
    if isinstance(type, inspect.DictType):
        return _Json()
    return click.STRING


def _listed(nullable: bool) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], Any]:
    def convert(_ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]) -> Any:
        if value == (_NONE,):
            return Null if nullable else []
        return value

    return convert
