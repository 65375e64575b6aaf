"""The index that licenses are searched by: a row for each in `license_search`, made by us and kept beside the license.

The database notes what has to be made anew: a trigger empties a license's row whenever a text of the license is
written, by whichever release or program. Writers of this release fill the row in the same transaction; what others left
empty is compared here until the leader fills it. Words are kept for prefixes: a tsvector under GIN on Postgres, which
needs no extension, and plain text on SQLite, which is read whole.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    cast,
    delete,
    false,
    func,
    insert,
    literal,
    or_,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import TSQUERY

from api.ledger.search_words import folded, has_all, terms_of, words_of
from api.ledger.tables import duty_marks, license_search, licenses

#: How many rows that were left empty a search compares by itself.
_COMPARED = 2_000
#: Up to so many matches are looked up by their ids.
_FEW = 5_000
#: More of them are found by walking from the newest license on, where a page of them is among so many of the newest.
_NEWEST, _PAGE = 5_000, 101
_CHUNK = 1_000
_COMPLETE = "licenses indexed for search"
_TEXTS = (licenses.c.id, licenses.c.name, licenses.c.email, licenses.c.external_ref, licenses.c.key_hint)
_search = license_search.c

_FILL_POSTGRES = text("""
INSERT INTO license_search AS s (license_id, words, name, email)
SELECT x.license_id, x.words::tsvector, x.name, x.email
FROM json_to_recordset(CAST(:entries AS json)) AS x(license_id text, words text, name text, email text)
ON CONFLICT (license_id) DO UPDATE SET words = EXCLUDED.words, name = EXCLUDED.name, email = EXCLUDED.email
""")
_FILL_SQLITE = text("""
INSERT INTO license_search (license_id, words, name, email) VALUES (:license_id, :words, :name, :email)
ON CONFLICT (license_id) DO UPDATE SET words = excluded.words, name = excluded.name, email = excluded.email
""")


class Texts(NamedTuple):
    """What a license is found by."""

    id: str
    name: str | None
    email: str | None
    external_ref: str | None
    key_hint: str

    def words(self) -> list[str]:
        """What a search term may be the beginning of."""
        return words_of((self.name, self.email, self.external_ref, self.key_hint))


# -- searching --------------------------------------------------------------------------------------------------------


def by_words(connection: Connection, searched: str) -> ColumnElement[bool]:
    """Whether each term of `searched` begins a word of a license. A condition on `licenses`."""
    terms = terms_of(searched)
    if not terms:
        return false()
    others = left_empty(connection, lambda texts: has_all(texts.words(), terms))
    if connection.dialect.name == "sqlite":
        wanted = [func.instr(_search.words, f" {term}") > 0 for term in terms]
        return or_(licenses.c.id.in_(select(_search.license_id).where(*wanted)), licenses.c.id.in_(others))
    query = cast(literal(" & ".join(f"{_quoted(term)}:*" for term in terms)), TSQUERY)
    matching = select(_search.license_id).where(_search.words.op("@@")(query))
    found = _few(connection, matching)
    if found is not None:
        return licenses.c.id.in_({*found, *others})
    if _are_dense(connection, query):
        words = select(_search.words).where(_search.license_id == licenses.c.id).scalar_subquery()
        return or_(words.op("@@")(query), licenses.c.id.in_(others))
    # As an array they are found first, once, and looked up by their ids, whatever the planner takes them for.
    return or_(licenses.c.id == func.any(func.array(matching.scalar_subquery())), licenses.c.id.in_(others))


def by_email(connection: Connection, email: str) -> ColumnElement[bool]:
    """Whether a license's e-mail address is `email`, whatever the case. A condition on `licenses`."""
    wanted = folded(email)
    others = left_empty(connection, lambda texts: folded(texts.email or "") == wanted)
    return _in(connection, select(_search.license_id).where(_search.email == wanted), others)


def by_name(connection: Connection, name: str) -> ColumnElement[bool]:
    """Whether a license's whole name is `name`, whatever case and accents. A condition on `licenses`."""
    wanted = folded(name)
    others = left_empty(connection, lambda texts: folded(texts.name or "") == wanted)
    return _in(connection, select(_search.license_id).where(_search.name == wanted), others)


def left_empty(connection: Connection, is_wanted: Callable[[Texts], bool]) -> list[str]:
    """The ids of those wanted among the licenses whose rows wait to be filled; few, or none, as a rule."""
    joined = license_search.join(licenses, licenses.c.id == _search.license_id)
    query = select(*_TEXTS).select_from(joined).where(_search.words.is_(None)).limit(_COMPARED)
    found = (Texts(*row) for row in connection.execute(query))
    return [texts.id for texts in found if is_wanted(texts)]


def _in(connection: Connection, matching: Any, others: Sequence[str]) -> ColumnElement[bool]:
    found = _few(connection, matching)
    return or_(licenses.c.id.in_(matching if found is None else found), licenses.c.id.in_(others))


def _few(connection: Connection, matching: Any) -> list[str] | None:
    """The ids that match; None where they are more than `_FEW`.

    Asked first: the planner takes any beginning of a word for a two-hundredth of all licenses, and walked a million of
    them, newest first, for one match.
    """
    found = list(connection.execute(matching.limit(_FEW + 1)).scalars())
    return found if len(found) <= _FEW else None


def _are_dense(connection: Connection, query: Any) -> bool:
    """Whether the newest licenses have so many matches that walking from them on finds a page at once."""
    newest = select(_search.words).order_by(_search.license_id.desc()).limit(_NEWEST).subquery()
    matching = select(literal(1)).where(newest.c.words.op("@@")(query)).limit(_PAGE).subquery()
    return int(connection.execute(select(func.count()).select_from(matching)).scalar_one()) == _PAGE


def _quoted(word: str) -> str:
    """`word` as a lexeme of a tsvector or a tsquery."""
    return "'" + word.replace("\\", "\\\\").replace("'", "''") + "'"


# -- filling ----------------------------------------------------------------------------------------------------------


def fill(connection: Connection, ids: Iterable[str] | None = None) -> int:
    """Fills rows that are empty: those of the licenses `ids`, or the next ones of all. Gives how many those were."""
    if ids is None:
        return _fill(connection, None)
    left, filled = iter(ids), 0
    while chunk := list(islice(left, _CHUNK)):
        filled += _fill(connection, chunk)
    return filled


class Filling:
    """Fills what is empty, chunk by chunk; before that, once in a ledger, what was there before there was an index."""

    def __init__(self, *, anew: bool = False) -> None:
        """`anew`: look at every license, whether or not that was done before."""
        self._after = ""
        self._anew = anew

    def __call__(self, connection: Connection) -> bool:
        """Fills some rows; gives whether there may be more."""
        if not self._anew and _is_complete(connection):
            return fill(connection) == _CHUNK
        query = select(*_TEXTS).where(licenses.c.id > self._after).order_by(licenses.c.id).limit(_CHUNK)
        rows = list(connection.execute(query.with_for_update(read=True, key_share=True)))
        # Asked by their ids: a join of two tables that the planner knows nothing of yet reads one of them whole.
        known = select(_search.license_id).where(_search.license_id.in_([row.id for row in rows]))
        there = set(connection.execute(known).scalars())
        _write(connection, [Texts(*row) for row in rows if row.id not in there])
        self._after = rows[-1].id if rows else self._after
        if len(rows) < _CHUNK:
            self._anew = False
            _set_complete(connection)
        return True


def _fill(connection: Connection, ids: Collection[str] | None) -> int:
    query = select(_search.license_id).where(_search.words.is_(None))
    if ids is not None:
        query = query.where(_search.license_id.in_(ids))
    # Locked before the license is read: a text that changes meanwhile empties the row again afterwards.
    query = query.order_by(_search.license_id).limit(_CHUNK).with_for_update(skip_locked=True)
    locked = list(connection.execute(query).scalars())
    if locked:
        texts = connection.execute(select(*_TEXTS).where(licenses.c.id.in_(locked)))
        _write(connection, [Texts(*row) for row in texts])
    return len(locked)


def _write(connection: Connection, found: Sequence[Texts]) -> None:
    if not found:
        return
    if connection.dialect.name == "sqlite":
        connection.execute(
            _FILL_SQLITE, [_entry(texts, "".join(f" {word}" for word in texts.words())) for texts in found]
        )
        return
    entries = [_entry(texts, " ".join(map(_quoted, texts.words()))) for texts in found]
    connection.execute(_FILL_POSTGRES, {"entries": msgspec.json.encode(entries).decode()})


def _entry(texts: Texts, words: str) -> dict[str, str | None]:
    name, email = (None if one is None else folded(one) for one in (texts.name, texts.email))
    return {"license_id": texts.id, "words": words, "name": name, "email": email}


def _is_complete(connection: Connection) -> bool:
    return connection.execute(select(duty_marks.c.value).where(duty_marks.c.name == _COMPLETE)).first() is not None


def _set_complete(connection: Connection) -> None:
    connection.execute(delete(duty_marks).where(duty_marks.c.name == _COMPLETE))
    connection.execute(insert(duty_marks), {"name": _COMPLETE, "value": 1})
