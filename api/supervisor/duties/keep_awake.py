"""Keeps nodes awake on hosts that put them to sleep: the leader calls each one's `/livez` at its public address.

Render ends a free service after 15 minutes without a request from outside; beats, which go to the database, are none.
The leader calls its own address as well. What it finds of a node that does not beat is kept for `/stats`.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Sequence

from sqlalchemy import Connection, select

from api.config.values import http_url, one_line
from api.ledger.tables import heartbeats
from api.stats.presence import Asked, Presence, mark_name
from api.supervisor.duties.livez import ask
from api.supervisor.duties.rows import set_mark
from api.supervisor.duties.terms import Writing

#: How often the duty looks whether it is time.
LOOK_S = 60.0
#: Together with `LOOK_S` always less than the quarter of an hour after which a host sleeps.
_EVERY_S = (9 * 60.0, 11 * 60.0)
#: A leader that has just begun may have others to call that no leader has called for a while.
_FIRST_S = (30.0, 90.0)
#: A table that somebody filled must not make a node call the whole world.
_MOST_URLS = 32


def in_background(work: Callable[[], None]) -> None:
    """Runs `work` on a thread that keeps no process from ending."""
    threading.Thread(target=work, name="keep-awake", daemon=True).start()


class KeepAwake:
    """A duty of the leader's: `do` starts the calls that are due, and keeps what those before have found."""

    def __init__(
        self,
        peer_urls: Sequence[str],
        *,
        ask: Callable[[str], Presence] = ask,
        start: Callable[[Callable[[], None]], None] = in_background,
        monotonic: Callable[[], float] = time.monotonic,
        between: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """`between`: the jitter, so that nodes do not all call at one moment; `start`: what runs a call of `ask`."""
        self._peer_urls = peer_urls
        self._ask, self._start, self._monotonic, self._between = ask, start, monotonic, between
        self._due: float | None = None
        self._asking: set[str] = set()
        self._found: queue.SimpleQueue[tuple[str, Presence]] = queue.SimpleQueue()

    def do(self, writing: Writing) -> bool:
        """One look, in a leader's transaction. There is never more to do at once."""
        self._keep(writing)
        now = self._monotonic()
        if self._due is None:
            self._due = now + self._between(*_FIRST_S)
        if now >= self._due:
            self._due = now + self._between(*_EVERY_S)
            for url in addresses(writing.connection, self._peer_urls):
                self._call(url)
        return False

    def _call(self, url: str) -> None:
        if url in self._asking:
            return
        self._asking.add(url)
        self._start(lambda: self._found.put((url, self._ask(url))))

    def _keep(self, writing: Writing) -> None:
        while not self._found.empty():
            url, found = self._found.get_nowait()
            self._asking.discard(url)
            # Beats are kept by the database's clock.
            asked = Asked(int(writing.now + writing.database_ahead), found)
            set_mark(writing.connection, mark_name(url), asked.mark())


def addresses(connection: Connection, peer_urls: Sequence[str]) -> list[str]:
    """The addresses of all nodes: those that are named, and those in the heartbeats, each once."""
    beating = connection.scalars(select(heartbeats.c.url).where(heartbeats.c.url.is_not(None)).distinct())
    sound = {url.lower(): url for url in (*sorted(filter(_is_sound, beating)), *peer_urls)}
    return [sound[name] for name in sorted(sound)][:_MOST_URLS]


def _is_sound(url: str) -> bool:
    try:
        return http_url(one_line(url)) == url and url.isascii()
    except ValueError:
        return False
