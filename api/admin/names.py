"""Products and policies by what people call them. There are few, so all names are read and compared here."""

from __future__ import annotations

from sqlalchemy import Column, ColumnElement, Connection, select

from api.ledger.search_words import folded, has_all, terms_of, words_of


def by_words(connection: Connection, searched: str, id: Column[str], *texts: Column[str]) -> ColumnElement[bool]:
    """Whether each term of `searched` begins a word of one of `texts`, whatever case and accents."""
    terms = terms_of(searched)
    rows = connection.execute(select(id, *texts))
    return id.in_([row[0] for row in rows if has_all(words_of(row[1:]), terms)])


def named(
    connection: Connection, name: str, id: Column[str], *texts: Column[str], of: Column[str] | None = None
) -> ColumnElement[bool]:
    """Whether the id is `name`, or else one of `texts` is, alone or after what it is of and a `/`: `editor/Yearly`."""
    if connection.execute(select(id).where(id == name)).first() is not None:
        return id == name
    wanted, whole = folded(name), id if of is None else of
    found = []
    for own_id, above, *own in connection.execute(select(id, whole, *texts)):
        if any(wanted in (folded(text), folded(f"{above}/{text}")) for text in own):
            found.append(own_id)
    return id.in_(found)
