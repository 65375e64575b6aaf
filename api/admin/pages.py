"""Lists, page by page: filters named by the caller, newest ids first, nothing skipped while rows are added."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from sqlalchemy import Column, ColumnElement, Connection, Select, or_

from api.admin import cursor as cursors
from api.admin.kinds import Kind
from api.checks.schemas import shown_name
from api.problems import Malformed

#: Makes a condition of a filter's text. Raises `ValueError`, saying what the text must be.
Filter = Callable[[str], ColumnElement[bool]]


class Pasted(msgspec.Struct, frozen=True):
    """The filter of a text as people paste it, from a mail for instance: control characters in it mean nothing."""

    condition: Filter

    def __call__(self, text: str) -> ColumnElement[bool]:
        return self.condition(text)


MAX_LIMIT = 100
_LONGEST_FILTER = 320
#: Lone surrogates among them: neither database takes those.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")


def conditions(filters: Mapping[str, str], known: Mapping[str, Filter]) -> list[ColumnElement[bool]]:
    """The conditions that `filters` ask for. Raises `Malformed`, naming the filter."""
    return [_condition(name, text, known) for name, text in filters.items()]


def fetch(
    connection: Connection, query: Select[Any], id: Column[str], kind: Kind, limit: int, cursor: str | None
) -> tuple[list[Any], str | None]:
    """The rows of one page of `query` by descending `id`, and the cursor of the next one."""
    check_limit(limit)
    if cursor is not None:
        query = query.where(id < cursors.decode(kind.plural, cursor, str))
    rows = list(connection.execute(query.order_by(id.desc()).limit(limit + 1)).mappings())
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], cursors.encode(kind.plural, rows[limit - 1]["id"])


def check_limit(limit: int) -> None:
    if not 1 <= limit <= MAX_LIMIT:
        raise Malformed("limit", f"must be 1 to {MAX_LIMIT}")


def contains(text: str, *columns: Column[Any]) -> ColumnElement[bool]:
    """Whether any of `columns` contains `text`, whatever the case; `%` and `_` mean themselves."""
    return or_(*[column.icontains(text, autoescape=True) for column in columns])


def _condition(name: str, text: str, known: Mapping[str, Filter]) -> ColumnElement[bool]:
    if name not in known:
        raise Malformed(shown_name(name), f"is not a filter of this list; it takes {', '.join(known)}")
    is_pasted = isinstance(known[name], Pasted)
    if not 1 <= len(text) <= _LONGEST_FILTER or (_NO_TEXT if is_pasted else _UNPRINTABLE).search(text):
        raise Malformed(name, f"must be 1 to {_LONGEST_FILTER} characters, none of them a control character")
    try:
        return known[name](text)
    except ValueError as error:
        raise Malformed(name, str(error)) from error
