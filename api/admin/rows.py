"""Rows of resources as plain dicts, and the one way to say that a resource is not there."""

from __future__ import annotations

import re
from typing import Any, NoReturn

from sqlalchemy import RowMapping

from api.problems import Problem

_ID = re.compile(r"[A-Za-z0-9_-]{1,36}")


def missing(kind: str) -> NoReturn:
    """Raises `RESOURCE_NOT_FOUND`."""
    raise Problem("RESOURCE_NOT_FOUND", f"there is no such {kind}")


def found(kind: str, row: RowMapping | None) -> dict[str, Any]:
    """The row by column. Raises `RESOURCE_NOT_FOUND` where there is none."""
    return missing(kind) if row is None else plain(row)


def plain(row: RowMapping) -> dict[str, Any]:
    return {str(name): value for name, value in row.items()}


def plausible_id(kind: str, id: str) -> str:
    """`id`, where it may be one. Raises `RESOURCE_NOT_FOUND` for text that no database should even be asked for."""
    return id if _ID.fullmatch(id) else missing(kind)
