"""The kinds of resources an admin keeps, as routes, cursors and events name them."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """A kind; `plural` is its collection's name in URLs."""

    PRODUCT = "product"
    POLICY = "policy"
    LICENSE = "license"
    MACHINE = "machine"

    @property
    def plural(self) -> str:
        return "policies" if self is Kind.POLICY else f"{self}s"
