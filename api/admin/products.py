"""Products: what licenses are sold for, known to clients by their code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from api.admin import names, pages
from api.admin.idempotency import Effect
from api.admin.kinds import Kind
from api.admin.rows import found, missing
from api.admin.schemas import ProductBody, require, sent
from api.ids import new_id
from api.ledger.errors import LedgerRefused
from api.ledger.log import Journal
from api.ledger.tables import products
from api.node.clock import timestamp
from api.problems import Problem


class Products:
    """Every method raises `Problem` and `LedgerError`."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def create(self, body: ProductBody, effect: Effect) -> dict[str, Any]:
        now = self._journal.now()
        row = {"id": new_id(), "created_at": now, **require(body)}
        answer = _resource(row)
        try:
            with self._journal.change() as change:
                change.connection.execute(insert(products), row)
                event = self._journal.event("product.created", id=row["id"])
                change.commit(event, {products: [row["id"]]}, effect.record(answer, now))
        except LedgerRefused as error:
            raise Problem("CONFLICT", "the code is another product's") from error
        return answer

    def get(self, id: str) -> dict[str, Any]:
        with self._journal.reading() as connection:
            row = connection.execute(select(products).where(products.c.id == id)).mappings().first()
        return _resource(found(Kind.PRODUCT, row))

    def page(self, filters: Mapping[str, str], limit: int, cursor: str | None) -> dict[str, Any]:
        with self._journal.reading() as connection:
            query = select(products).where(*pages.conditions(filters, _filters(connection)))
            rows, next = pages.fetch(connection, query, products.c.id, Kind.PRODUCT, limit, cursor)
        return {"items": [_resource(row) for row in rows], "next": next}

    def update(self, id: str, body: ProductBody) -> dict[str, Any]:
        changes = sent(body)
        try:
            with self._journal.change() as change:
                query = select(products).where(products.c.id == id).with_for_update()
                row = found(Kind.PRODUCT, change.connection.execute(query).mappings().first())
                if changes:
                    change.update(update(products).where(products.c.id == id).values(changes))
                    event = self._journal.event("product.updated", id=id, fields=sorted(changes))
                    change.commit(event, {products: [id]})
        except LedgerRefused as error:
            raise Problem("CONFLICT", "the code is another product's, or policies name the old one") from error
        return _resource({**row, **changes})

    def delete(self, id: str) -> None:
        try:
            with self._journal.change() as change:
                if not change.connection.execute(delete(products).where(products.c.id == id)).rowcount:
                    missing(Kind.PRODUCT)
                change.commit(self._journal.event("product.deleted", id=id))
        except LedgerRefused as error:
            raise Problem("CONFLICT", "policies still belong to this product") from error


def _filters(connection: Connection) -> dict[str, pages.Filter]:
    texts = (products.c.code, products.c.name)
    return {
        "product": lambda text: products.c.code == text,
        "q": pages.Pasted(lambda text: names.by_words(connection, text, products.c.id, *texts)),
        "find": pages.Pasted(lambda text: names.named(connection, text, products.c.id, *texts)),
    }


def _resource(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "code": row["code"],
        "name": row["name"],
        "created_at": timestamp(row["created_at"]),
    }
