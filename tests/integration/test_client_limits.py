"""Limits on failures, by address and by what was presented; never on a customer with a good key."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from api.ledger import tables
from api.ledger.records import LicenseQuery, LicenseRecord
from tests.support.nodes import ADMIN_TOKEN, Node, Sold, node_on, rows, running_node, sell, signed

LIMIT = 5


@pytest.fixture
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    with node_on("sqlite", request, tmp_path, RATE_LIMIT=f"{LIMIT}/minute") as node:
        yield node


@pytest.fixture(params=["sqlite", "postgres"])
def unlimited(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    with node_on(request.param, request, tmp_path) as node:
        yield node


def call(
    node: Node,
    key: str = "nobody-has-this-key",
    *,
    address: str = "10.0.0.1",
    forwarded: str | None = None,
    skew: int = 0,
    body: bytes | None = None,
    **headers: str,
) -> tuple[int, str]:
    """Status and code of one validation from `address`; `headers` replace those of a good one."""
    sent = body if body is not None else json.dumps({"key": key, "nonce": uuid.uuid4().hex}).encode()
    good = signed("POST", "/v1/validate", sent, now=node.now() + skew)
    if forwarded is not None:
        good["X-Forwarded-For"] = forwarded
    replaced = {name.replace("_", "-"): text for name, text in headers.items()}
    response = node.http.post(
        "/v1/validate", data=sent, headers={**good, **replaced}, environ_overrides={"REMOTE_ADDR": address}
    )
    if response.status_code == 429:
        assert 1 <= int(response.headers["Retry-After"]) <= 60
        assert response.headers["Content-Type"] == "application/problem+json"
    return response.status_code, json.loads(response.data)["code"]


LIMITED = (429, "RATE_LIMITED")


@pytest.mark.parametrize(
    ("failure", "as_told"),
    [
        ({"X_API_Key": "wrong-api-key"}, (401, "API_KEY_INVALID")),
        ({"X_Signature": "v1,wrong"}, (401, "SIGNATURE_INVALID")),
        ({}, (200, "NOT_FOUND")),
    ],
)
def test_after_its_failures_an_address_is_limited_and_its_good_customers_are_not(
    node: Node, failure: dict[str, str], as_told: tuple[int, str]
) -> None:
    sold = sell(node.database)
    told = [call(node, f"unknown-key-{number}", **failure) for number in range(LIMIT + 2)]
    assert told == [as_told] * LIMIT + [LIMITED] * 2
    for _ in range(LIMIT * 3):
        assert call(node, sold.key) == (200, "VALID")
    assert call(node, "unknown-key-elsewhere", address="10.0.0.2")[1] == "NOT_FOUND"
    assert call(node, X_API_Key="wrong-as-well") == LIMITED
    assert call(node, X_Signature="v1,wrong") == LIMITED
    assert call(node, "unknown-key-more") == LIMITED


def test_success_and_malformed_calls_count_nothing(node: Node) -> None:
    sold = sell(node.database)
    for _ in range(LIMIT * 3):
        assert call(node, sold.key)[0] == 200
        assert call(node, body=b"[]") == (400, "MALFORMED")
        assert call(node, skew=-1000) == (401, "TIMESTAMP_SKEWED")
    assert call(node) == (200, "NOT_FOUND")


def test_a_wrong_clock_is_told_the_time_where_others_used_up_the_failures(node: Node) -> None:
    for number in range(LIMIT):
        call(node, f"unknown-key-{number}")
    assert call(node, skew=-1000) == (401, "TIMESTAMP_SKEWED")
    assert call(node, skew=-1000, X_Signature="v1,wrong") == LIMITED


def test_a_key_that_is_tried_from_many_addresses_is_limited_too(node: Node) -> None:
    for presented in ({"X_API_Key": "wrong-api-key"}, {}):
        told = [call(node, address=f"10.1.{len(presented)}.{number}", **presented) for number in range(LIMIT + 1)]
        assert told[-1] == LIMITED
        assert LIMITED not in told[:-1]


def test_a_limited_address_is_free_again_when_its_window_ends(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(node.runtime.state.failures._file, "monotonic", lambda: now)
    for number in range(LIMIT):
        assert call(node, f"unknown-key-{number}")[0] == 200
    now += 59
    assert call(node) == LIMITED
    now += 2
    assert call(node) == (200, "NOT_FOUND")


def test_the_workers_of_a_node_count_together(ledger_url: str, tmp_path: Path) -> None:
    limit = {"RATE_LIMIT": f"{LIMIT}/minute"}
    with running_node(ledger_url, tmp_path, **limit) as one, running_node(ledger_url, tmp_path, **limit) as two:
        told = [call((one, two)[number % 2], X_API_Key="wrong-api-key") for number in range(LIMIT + 2)]
    assert told == [(401, "API_KEY_INVALID")] * LIMIT + [LIMITED] * 2


@pytest.mark.parametrize(
    ("proxies", "forwarded", "same"),
    [
        (0, ["1.1.1.1", "2.2.2.2"], True),
        (1, ["1.1.1.1", "2.2.2.2"], False),
        (1, ["9.9.9.9, 1.1.1.1", "8.8.8.8, 1.1.1.1"], True),
        (2, ["9.9.9.9, 1.1.1.1, 5.5.5.5", "8.8.8.8, 1.1.1.1, 6.6.6.6"], True),
        (2, ["1.1.1.1, 5.5.5.5", "2.2.2.2, 5.5.5.5"], False),
        (1, ["1.1.1.1:4711", "1.1.1.1:4712"], True),
        (1, ["2001:db8::1", "[2001:db8::2]:443"], True),
        (1, ["2001:db8::1", "2001:db8:0:1::1"], False),
        (1, ["::ffff:1.1.1.1", "1.1.1.1"], True),
        (1, ["unknown", "_hidden"], True),
    ],
)
def test_trusted_proxies_are_counted_from_the_right(
    sqlite_url: str, tmp_path: Path, proxies: int, forwarded: list[str], same: bool
) -> None:
    trusted = {"RATE_LIMIT": f"{LIMIT}/minute", "TRUSTED_PROXIES": str(proxies)}
    with running_node(sqlite_url, tmp_path, **trusted) as node:
        for number in range(LIMIT):
            call(node, forwarded=forwarded[0], X_API_Key=f"wrong-{number}")
        told = call(node, forwarded=forwarded[1], X_API_Key="wrong-again")
    assert told == (LIMITED if same else (401, "API_KEY_INVALID"))


# -- keys that nobody knows -----------------------------------------------------------------------------------------


class LookUps:
    """Counts when which key was asked of the ledger, in either lane."""

    def __init__(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at: list[tuple[float, str]] = []
        ledger = node.runtime.ledger
        look_up, transaction = ledger.look_up, ledger.transaction

        def counted_look_up(asks: Sequence[LicenseQuery]) -> list[LicenseRecord]:
            self._count(asks)
            return list(look_up(asks))

        def counted_transaction(asks: Sequence[LicenseQuery], **how: Any) -> Any:
            self._count(asks)
            return transaction(asks, **how)

        monkeypatch.setattr(ledger, "look_up", counted_look_up)
        monkeypatch.setattr(ledger, "transaction", counted_transaction)

    def _count(self, asks: Sequence[LicenseQuery]) -> None:
        now = time.monotonic()
        self.at += [(now, ask.key_hash) for ask in asks if ask.key_hash]

    def of_others(self, known: Sold) -> list[float]:
        """When other keys than this one were asked for."""
        return sorted(at for at, key_hash in self.at if key_hash != known.key_hash)


def test_unknown_keys_cost_at_most_20_look_ups_a_second_and_customers_are_served(
    unlimited: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, sold, new = unlimited, sell(unlimited.database), sell(unlimited.database)
    assert node.call("validate", sold.key).code == "VALID"
    look_ups, began = LookUps(node, monkeypatch), time.monotonic()
    ends = began + 3

    def attack(number: int) -> set[str]:
        codes = set()
        while time.monotonic() < ends:
            act = ("validate", "usage")[number % 2]
            codes.add(node.call(act, f"unknown-{uuid.uuid4().hex}").code)
        return codes

    with ThreadPoolExecutor(8) as pool:
        attacks = [pool.submit(attack, number) for number in range(8)]
        while time.monotonic() < ends:
            assert node.call("validate", sold.key).code == "VALID"
        told = set().union(*(attack.result() for attack in attacks))
    assert told <= {"NOT_FOUND", "OVERLOADED"}
    times = look_ups.of_others(sold)
    assert 20 <= len(times) <= 20 * (times[-1] - began + 1)
    assert node.call("validate", new.key).code == "VALID"


def test_a_customer_who_is_new_to_a_node_under_attack_waits_and_is_served(unlimited: Node) -> None:
    node, new = unlimited, sell(unlimited.database)
    stop = threading.Event()

    def attack(_: int) -> None:
        while not stop.is_set():
            node.call("validate", f"unknown-{uuid.uuid4().hex}")

    with ThreadPoolExecutor(2) as pool:
        for number in range(2):
            pool.submit(attack, number)
        time.sleep(0.5)
        try:
            answers = [node.call("validate", new.key).code for _ in range(3)]
        finally:
            stop.set()
    assert answers[-1] == "VALID"


def test_a_limited_address_does_not_wait_for_a_place(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node.runtime.unknown_keys, "_patience_s", 600.0)
    monkeypatch.setattr(node.runtime.unknown_keys, "_window_s", 600.0)
    told = [call(node, f"unknown-key-{number}") for number in range(25)]
    assert told == [(200, "NOT_FOUND")] * LIMIT + [LIMITED] * (25 - LIMIT)


def test_an_unknown_key_is_remembered_and_counted_without_asking_again(
    unlimited: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, look_ups = unlimited, LookUps(unlimited, monkeypatch)
    first = node.call("validate", "nobody-has-this-key")
    for _ in range(9):
        again = node.call("validate", "nobody-has-this-key")
        assert (again.code, again.body["as_of"]) == ("NOT_FOUND", first.body["as_of"])
    assert len(look_ups.at) == 1
    node.call("validate", "nobody-has-that-key")
    counted = [row["count"] for row in rows(node.database, tables.check_minutes, code="NOT_FOUND")]
    assert sum(counted) == 11


def test_a_key_that_is_made_meanwhile_is_found_at_once(unlimited: Node) -> None:
    node, key = unlimited, f"BYO-{uuid.uuid4().hex}"
    assert node.call("validate", key).code == "NOT_FOUND"
    sold = sell(node.database)
    with node.database.reading() as connection:
        policy = connection.execute(select(tables.licenses.c.policy).where(tables.licenses.c.id == sold.id)).scalar()
    made = node.http.post(
        "/v1/licenses", json={"policy": policy, "key": key}, headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}
    )
    assert made.status_code == 201, made.data
    assert node.call("validate", key).code == "VALID"
