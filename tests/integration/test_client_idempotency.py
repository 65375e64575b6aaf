"""Activate, deactivate and usage are one effect per call, key and request id, whichever node the retries meet."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from api.ledger import tables
from api.ledger.database import Database
from tests.support.nodes import (
    Node,
    change_license,
    events_of,
    ledger_of,
    license_row,
    node_on,
    running_node,
    sell,
)

_CALLS: dict[str, dict[str, Any]] = {
    "activate": {"fingerprint": "here", "name": "Desk"},
    "deactivate": {"fingerprint": "here"},
    "usage": {"increment": 2},
}


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with node_on(request.param, request, tmp_path_factory.mktemp("node")) as node:
        yield node


@pytest.fixture
def two_nodes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    with (
        ledger_of("postgres", request, tmp_path) as url,
        running_node(url, tmp_path / "one", NODE_ID="one") as one,
        running_node(url, tmp_path / "two", NODE_ID="two") as two,
    ):
        yield one, two


@pytest.mark.parametrize("act", _CALLS)
def test_a_retry_gives_the_first_outcome_over_the_new_nonce(node: Node, act: str) -> None:
    sold = sell(node.database, {"max_uses": 3})
    node.call("activate", sold.key, fingerprint="there")
    first = node.call(act, sold.key, request_id="request-1", **_CALLS[act])
    if act == "usage":
        node.call("usage", sold.key)  # what happens meanwhile does not change the first outcome
    retry = node.call(act, sold.key, request_id="request-1", client={"app": "x"}, **_CALLS[act])
    assert (retry.status, retry.code, retry.body["detail"]) == (200, first.code, first.body["detail"])
    assert retry.body["nonce"] != first.body["nonce"]
    assert retry.body["machine"] == first.body["machine"]
    assert (retry.claims or {})["uses"] == (first.claims or {})["uses"]
    assert (retry.claims or {})["jti"] != (first.claims or {})["jti"]
    assert Counter(row["type"] for row in events_of(node.database, sold))[act] == (2 if act != "deactivate" else 1)


def test_a_retry_of_an_activation_gives_its_token_again(node: Node) -> None:
    sold = sell(node.database)
    answers = [node.call("activate", sold.key, request_id="request-1", fingerprint="here") for _ in range(2)]
    assert all(answer.lease is not None for answer in answers)


def test_a_refused_call_stays_refused_for_its_retries(node: Node) -> None:
    sold = sell(node.database, {"max_machines": 1})
    node.call("activate", sold.key, fingerprint="there")
    for _ in range(2):
        assert (
            node.call("activate", sold.key, request_id="request-1", fingerprint="here").code == "MACHINE_LIMIT_EXCEEDED"
        )
        node.call("deactivate", sold.key, fingerprint="there")
    assert node.call("activate", sold.key, request_id="request-2", fingerprint="here").code == "VALID"


def test_a_retried_denial_that_no_longer_holds_is_as_old_as_the_first(node: Node) -> None:
    sold = sell(node.database, {"max_machines": 1})
    node.call("activate", sold.key, fingerprint="there")
    node.call("activate", sold.key, request_id="request-1", fingerprint="here")
    change_license(node.database, sold, status="suspended")
    node.call("activate", sold.key, request_id="request-2", fingerprint="here")
    for event in events_of(node.database, sold):
        change_event(node.database, event, occurred_at=1_000.5)
    today = node.call("activate", sold.key, request_id="request-2", fingerprint="here")
    change_license(node.database, sold, status="active")
    node.call("deactivate", sold.key, fingerprint="there")
    seat, stop = (node.call("activate", sold.key, request_id=f"request-{i}", fingerprint="here") for i in (1, 2))
    assert [(answer.code, (answer.claims or {})["as_of"]) for answer in (seat, stop)] == [
        ("MACHINE_LIMIT_EXCEEDED", 1_000),
        ("SUSPENDED", 1_000),
    ]
    assert (today.code, (today.claims or {})["as_of"] > 1_000) == ("SUSPENDED", True)


def change_event(database: Database, event: dict[str, Any], **columns: Any) -> None:
    with database.writing() as connection:
        connection.execute(tables.events.update().where(tables.events.c.seq == event["seq"]).values(**columns))


@pytest.mark.parametrize(
    ("act", "other"),
    [
        ("activate", {"fingerprint": "there"}),
        ("activate", {"fingerprint": "here"}),
        ("activate", {"fingerprint": "here", "name": "Desk", "platform": "windows"}),
        ("deactivate", {"fingerprint": "there"}),
        ("usage", {"increment": 3}),
        ("usage", {}),
    ],
)
def test_another_body_under_one_request_id_is_refused(node: Node, act: str, other: dict[str, Any]) -> None:
    sold = sell(node.database, {"max_uses": 5})
    node.call(act, sold.key, request_id="request-1", **_CALLS[act])
    before = (license_row(node.database, sold), len(events_of(node.database, sold)))
    refused = node.call(act, sold.key, request_id="request-1", **other)
    assert (refused.status, refused.code, refused.body["request_id"]) == (422, "REQUEST_ID_REUSED", "request-1")
    assert (license_row(node.database, sold), len(events_of(node.database, sold))) == before


def test_the_same_body_spelled_otherwise_is_the_same_call(node: Node) -> None:
    sold = sell(node.database)
    spellings = [
        f'{{"key":"{sold.key}","nonce":"{"a" * 16}","increment":1}}',
        f'{{ "increment" : 1, "nonce":"{"b" * 16}", "client":{{"app":"x"}}, "key":"{sold.key}" }}',
        f'{{"nonce":"{"c" * 16}","key":"{sold.key}"}}',
    ]
    for spelling in spellings:
        assert node.send("usage", spelling.encode(), request_id="request-1").code == "VALID"
    assert license_row(node.database, sold)["uses"] == 1


def test_one_request_id_ties_neither_two_calls_nor_two_keys(node: Node) -> None:
    one, two = sell(node.database), sell(node.database)
    for sold in (one, two):
        for act, fields in _CALLS.items():
            assert node.call(act, sold.key, request_id="request-1", **fields).code == "VALID"
        assert len(events_of(node.database, sold)) == 3
        assert license_row(node.database, sold)["uses"] == 2


@pytest.mark.parametrize(
    ("code", "columns"),
    [
        ("BANNED", {"status": "banned"}),
        ("SUSPENDED", {"status": "suspended"}),
        ("EXPIRED", {"expires_at": 1.0}),
    ],
)
@pytest.mark.parametrize("act", ["activate", "usage"])
def test_a_retry_after_the_license_was_stopped_gives_todays_denial(
    node: Node, act: str, code: str, columns: dict[str, Any]
) -> None:
    sold = sell(node.database)
    node.call(act, sold.key, request_id="request-1", **_CALLS[act])
    change_license(node.database, sold, **columns)
    retry = node.call(act, sold.key, request_id="request-1", **_CALLS[act])
    assert (retry.code, retry.body["valid"], retry.lease) == (code, False, None)
    change_license(node.database, sold, status="active", expires_at=None)
    assert node.call(act, sold.key, request_id="request-1", **_CALLS[act]).code == "VALID"


def test_one_request_id_pinned_by_a_relay_seats_one_machine_at_a_time(node: Node) -> None:
    sold = sell(node.database, {"max_machines": 1})
    told = []
    for fingerprint in ("first", "second"):
        told.append(node.call("activate", sold.key, request_id=f"pinned-{fingerprint}", fingerprint=fingerprint).code)
        node.call("deactivate", sold.key, fingerprint=fingerprint)
    node.call("activate", sold.key, fingerprint="third")
    again = node.call("activate", sold.key, request_id="pinned-first", fingerprint="first")
    assert (told, again.code, again.lease) == (["VALID", "VALID"], "FINGERPRINT_SCOPE_MISMATCH", None)


def test_a_retried_deactivation_does_not_free_the_seat_that_was_taken_again(node: Node) -> None:
    sold = sell(node.database)
    node.call("activate", sold.key, fingerprint="here")
    node.call("deactivate", sold.key, request_id="request-1", fingerprint="here")
    node.call("activate", sold.key, fingerprint="here")
    assert node.call("deactivate", sold.key, request_id="request-1", fingerprint="here").code == "VALID"
    assert node.call("validate", sold.key, fingerprint="here").code == "VALID"


def test_without_a_request_id_every_call_is_its_own(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    with node_on("sqlite", request, tmp_path, REQUIRE_SIGNATURE="false") as node:
        sold = sell(node.database)
        for nothing in ({"X-Request-Id": ""}, {"X-Request-Id": None}):
            headers = {"X-API-Key": "api-key-for-tests", **{n: t for n, t in nothing.items() if t is not None}}
            for number in range(2):
                body = {"key": sold.key, "nonce": "n" * 16, "increment": number + 1}
                assert node.http.post("/v1/usage", json=body, headers=headers).status_code == 200
        assert license_row(node.database, sold)["uses"] == 6


def test_a_retry_on_another_node_meets_the_first_outcome(two_nodes: tuple[Node, Node]) -> None:
    one, two = two_nodes
    sold = sell(one.database, {"max_uses": 2})
    answers = [node.call("usage", sold.key, request_id="request-1", increment=2) for node in (one, two, one)]
    assert {(answer.code, answer.body["license"]["uses"]) for answer in answers} == {("VALID", 2)}
    assert two.call("usage", sold.key, request_id="request-1", increment=1).code == "REQUEST_ID_REUSED"
    (event,) = events_of(one.database, sold)
    assert event["node"] == "one"


@pytest.mark.parametrize("act", _CALLS)
def test_200_retries_over_two_nodes_are_one_event_and_one_effect(two_nodes: tuple[Node, Node], act: str) -> None:
    sold = sell(two_nodes[0].database, {"max_machines": 1, "max_uses": 2})
    start = threading.Barrier(32)

    def retry(number: int) -> tuple[int, str]:
        if number < 32:
            start.wait(60)
        answer = two_nodes[number % 2].insist(act, sold.key, request_id="request-1", **_CALLS[act])
        return answer.status, answer.code

    with ThreadPoolExecutor(32) as pool:
        outcomes = Counter(pool.map(retry, range(200)))
    assert outcomes == {(200, "VALID"): 200}
    assert len(events_of(two_nodes[0].database, sold)) == 1
    row = license_row(two_nodes[0].database, sold)
    assert (row["seats"], row["uses"]) == {"activate": (1, 0), "deactivate": (0, 0), "usage": (0, 2)}[act]


def test_a_first_validation_of_many_at_once_starts_the_clock_once(two_nodes: tuple[Node, Node]) -> None:
    sold = sell(two_nodes[0].database, {"duration_days": 10, "expiry_basis": "first_validation"})
    began = time.time()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda i: two_nodes[i % 2].call("validate", sold.key), range(40)))
    assert {answer.code for answer in answers} == {"VALID"}
    assert {(answer.claims or {})["lic_exp"] for answer in answers} == {int(license_row_expiry(two_nodes[0], sold))}
    assert license_row_expiry(two_nodes[0], sold) < began + 10 * 86_400 + 60


def license_row_expiry(node: Node, sold: Any) -> float:
    return float(license_row(node.database, sold)["expires_at"])
