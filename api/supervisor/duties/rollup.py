"""Roll-ups: the counted checks of minutes long gone become one row an hour, and then one a day, of each outcome.

The totals stay what they are, and the minutes that `/stats` shows one by one are never touched. A check
that is counted late, in an hour that was rolled up, makes a row that is rolled up in its turn.
"""

from __future__ import annotations

from collections import Counter

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, delete, func, or_, select

from api.ledger.tables import check_minutes
from api.supervisor.duties.rows import put
from api.supervisor.duties.terms import Writing

#: The writer of rows that are rolled up: no process has this id.
NO_WRITER = ""

_minute, _writer = check_minutes.c.minute, check_minutes.c.writer


class Step(msgspec.Struct, frozen=True):
    """Rows of `width` minutes, for what is older than `after` minutes."""

    width: int
    after: int

    def until(self, now: float) -> int:
        """The first minute that is too young, at the beginning of a row."""
        return (int(now // 60) - self.after) // self.width * self.width


#: Twice the hour that is shown, since a process adds new minutes to totals that it read up to ten minutes ago.
HOURS = Step(width=60, after=120)
DAYS = Step(width=1440, after=7 * 1440)


def roll_up(writing: Writing) -> bool:
    """Rolls up one hour or one day; gives whether there may be more."""
    return any(_roll_up_one(writing.connection, step, writing.now) for step in (HOURS, DAYS))


def rolled_up_until(connection: Connection, now: float) -> float:
    """Up to when (ledger time) no check is counted by the minute any more."""
    first = _first_loose(connection, HOURS, now)
    return 60.0 * (HOURS.until(now) if first is None else first)


def _roll_up_one(connection: Connection, step: Step, now: float) -> bool:
    first = _first_loose(connection, step, now)
    if first is None:
        return False
    begin = first // step.width * step.width
    chosen = and_(_minute >= begin, _minute < begin + step.width, _is_loose(step))
    # Deleted and read in one statement: what is counted meanwhile is in it, or is a row for the next time.
    gone = delete(check_minutes).where(chosen).returning(
        check_minutes.c.code, check_minutes.c.valid, check_minutes.c.count
    )  # fmt: skip
    sums = Counter[tuple[str, bool]]()
    for code, valid, count in connection.execute(gone):
        sums[code, valid] += count
    rows = [
        {"minute": begin, "code": code, "valid": valid, "writer": NO_WRITER, "count": count}
        for (code, valid), count in sorted(sums.items())
    ]
    put(connection, check_minutes, rows, add="count")
    return True


def _first_loose(connection: Connection, step: Step, now: float) -> int | None:
    query = select(func.min(_minute)).where(_minute < step.until(now), _is_loose(step))
    return connection.execute(query).scalar()


def _is_loose(step: Step) -> ColumnElement[bool]:
    return or_(_writer != NO_WRITER, _minute % step.width != 0)
