"""The log of client addresses: who opened the connection, what proxies say, and which of both counts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import pytest
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import Client

from api import logs
from api.web.address_log import AddressLog


class Kept(logging.Handler):
    """Keeps the records that it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[dict[str, object]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(vars(record))


@pytest.fixture
def kept() -> Iterator[Kept]:
    logger, handler = logs.get("web"), Kept()
    level = logger.level
    logger.setLevel("DEBUG")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


def answer(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    start_response("200 OK", [])
    return [str(environ["REMOTE_ADDR"]).encode()]


@pytest.mark.parametrize(("proxies", "client"), [(0, "10.0.0.9"), (1, "5.5.5.5"), (2, "1.1.1.1"), (3, "10.0.0.9")])
def test_the_chain_and_the_address_that_counts_are_in_the_log(kept: Kept, proxies: int, client: str) -> None:
    logged: WSGIApplication = AddressLog(answer)
    application = ProxyFix(logged, x_for=proxies) if proxies else logged
    sent = {"headers": {"X-Forwarded-For": "1.1.1.1, 5.5.5.5"}, "environ_overrides": {"REMOTE_ADDR": "10.0.0.9"}}
    assert Client(application).get("/docs", **sent).text == client
    (record,) = kept.records
    assert (record["client"], record["peer"], record["forwarded"]) == (client, "10.0.0.9", "1.1.1.1, 5.5.5.5")


def test_of_a_header_without_end_the_end_is_kept(kept: Kept) -> None:
    sent = {"headers": {"X-Forwarded-For": "9.9.9.9, " * 5000 + "1.1.1.1"}, "environ_overrides": {"REMOTE_ADDR": "::1"}}
    Client(AddressLog(answer)).get("/docs", **sent)
    assert str(kept.records[0]["forwarded"]).endswith(", 1.1.1.1")
    assert len(str(kept.records[0]["forwarded"])) == 500
