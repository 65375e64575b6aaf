"""Connections that come about in time, too late, or not at all; nothing here opens one."""

from __future__ import annotations

import threading
from typing import Any

import psycopg2
import pytest

from failover.connecting import connecting_within, patiently
from tests.support.processes import until


class Connection:
    """What a connect gives, once `there` is set."""

    def __init__(self) -> None:
        self.there, self.closed = threading.Event(), False

    def connect(self) -> Connection:
        self.there.wait(60)
        return self

    def close(self) -> None:
        self.closed = True


def test_without_a_limit_it_is_made_by_whoever_asks() -> None:
    assert patiently(threading.get_ident) == threading.get_ident()


def test_what_comes_in_time_is_given() -> None:
    with connecting_within(60):
        assert patiently(lambda: "connection") == "connection"


def test_what_comes_too_late_fails_in_time_and_is_closed_when_it_comes() -> None:
    late = Connection()
    with connecting_within(0.05), pytest.raises(psycopg2.OperationalError, match=r"no connection within 0\.05 s"):
        patiently(late.connect)
    assert not late.closed
    late.there.set()
    until(lambda: late.closed, "the late one is closed")


@pytest.mark.parametrize("seconds", [None, 60])
def test_an_error_is_told_as_it_is(seconds: float | None) -> None:
    def refused() -> Any:
        raise psycopg2.OperationalError("refused")

    with connecting_within(seconds), pytest.raises(psycopg2.OperationalError, match="refused"):
        patiently(refused)


def test_the_limit_ends_with_its_block() -> None:
    with connecting_within(60):
        pass
    assert patiently(threading.get_ident) == threading.get_ident()


def test_an_error_after_the_limit_is_nobodys() -> None:
    ended = threading.Event()

    def fails_late() -> Any:
        late.there.wait(60)
        ended.set()
        raise psycopg2.OperationalError("refused")

    late = Connection()
    with connecting_within(0.01), pytest.raises(psycopg2.OperationalError, match="no connection"):
        patiently(fails_late)
    late.there.set()
    assert ended.wait(60)
