"""AutoHotkey clients and real nodes: the guide's three tests, seats, suspension, clocks, TLS, lost answers."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
import requests

from api.ledger import tables
from api.signing import parse_signing_keys
from tests.support.cluster import TOO_BUSY, Member, Site
from tests.support.nodes import PRODUCT, Sold, change_license, events_of, ledger_of, license_row, rows, sell, signed
from tests.support.processes import until
from tests.support.wine import LOGS, Json, Script
from tests.support.wine_client import anew, call, clock, machine, new, outcome, results
from tests.support.wine_tls import Authority
from tests.unit.clients.sockets import Conduct, Nasty, http, refused_url, silent

USED, FAILOVER, OFFLINE = LOGS
ONE_WORKER = {"WEB_CONCURRENCY": "1"}
VALID = (True, "VALID", "server")


class Shop(NamedTuple):
    """A site, and its one node."""

    site: Site
    node: Member

    def sell(self, **rules: object) -> Sold:
        return sell(self.site.database, rules)


@pytest.fixture(scope="module")
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    with ledger_of("postgres", request, folder) as url, contextlib.closing(Site(url, folder)) as site:
        yield Shop(site, site.node(1, **ONE_WORKER).ready())


def client_of(member: Member, sold: Sold, folder: Path, *urls: str, **changes: object) -> Json:
    """The step that makes a client of `member`'s secrets which asks `urls`, by default `member` alone."""
    pinned = [key.public_jwk for key in parse_signing_keys(member.env["SIGNING_KEY"])]
    given = {
        "product": PRODUCT, "key": sold.key, "publicKeys": "\n".join(map(json.dumps, pinned)),
        "apiKey": member.env["API_KEY"], "sharedSecret": member.env["SHARED_SECRET"],
    }  # fmt: skip
    return new(folder, *(urls or (member.server.url,)), **{**given, **changes})


def is_refused(member: Member) -> bool:
    with socket.socket() as probe:
        probe.settimeout(5)
        return probe.connect_ex(("127.0.0.1", member.server.port)) != 0


# -- the guide's three tests ------------------------------------------------------------------------------------------


def undisturbed(ahk: Script, made: Json, *calls: Json) -> tuple[list[Json], dict[str, list[list[str]]]]:
    """What the calls gave, and the lines of the log files without their times, which are there.

    The client has the budgets that it comes with, and remembers no server. What it says of nodes only where
    the machine is too busy for them is no part of the guide: then it is all done again.
    """
    for _ in range(10):
        ahk.wine.forget_logs()
        made["options"]["registry"] = anew()
        # The clock stands still: however slow this machine is, the 30 s for a server that failed do not pass.
        told = results(ahk.run([made, clock(0), *calls]))
        found = {name: [line.split("\t") for line in ahk.wine.log(name)] for name in LOGS}
        assert all(time.strptime(line[0], "%Y-%m-%dT%H:%M:%SZ") for lines in found.values() for line in lines)
        if not TOO_BUSY & {line[2] for line in found[FAILOVER]}:
            return told, {name: [line[1:] for line in lines] for name, lines in found.items()}
    raise AssertionError("this machine was too busy, ten times")


@pytest.mark.slow
def test_primary_up_then_down_then_all_down_then_back(ahk: Script, empty_postgres_url: str, tmp_path: Path) -> None:
    with contextlib.closing(Site(empty_postgres_url, tmp_path / "nodes")) as site:
        one, two = site.two(**ONE_WORKER)
        sold, folder = site.sell(), tmp_path / "client"
        first, second = one.server.url, two.server.url
        made = client_of(one, sold, folder, first, second, budgets=None)
        assert "budgets" not in made

        told, logged = undisturbed(ahk, made, call("Activate"), call("Validate"))
        assert [(outcome(answer), answer["server"]) for answer in told] == [(VALID, first)] * 2, logged
        assert logged == {USED: [[first, "activate VALID"], [first, "validate VALID"]], FAILOVER: [], OFFLINE: []}

        one.server.kill_tree()
        until(lambda: is_refused(one), "a port that is refused")
        told, logged = undisturbed(ahk, made, call("Validate"), call("Validate"))
        assert [(outcome(answer), answer["server"]) for answer in told] == [(VALID, second)] * 2, logged
        assert logged == {USED: [[second, "validate VALID"]] * 2, FAILOVER: [[first, "refused"]], OFFLINE: []}

        two.server.kill_tree()
        until(lambda: is_refused(two), "a port that is refused")
        told, logged = undisturbed(ahk, made, call("Validate"))
        assert [outcome(answer) for answer in told] == [(True, "OFFLINE_VALID", "offline")]
        # With a saved token nobody waits for a host to wake: two passes.
        refused = [[first, "refused"], [second, "refused"]] * 2
        assert logged == {USED: [], FAILOVER: refused, OFFLINE: [["offline", "validate OFFLINE_VALID"]]}
        told, logged = undisturbed(ahk, made, call("Usage"))
        assert [outcome(answer) for answer in told] == [(False, "NO_SERVER", "offline")]
        assert (logged[USED], logged[OFFLINE]) == ([], [])

        back = site.node(2, copy="again", **ONE_WORKER).ready()
        made = client_of(back, sold, folder, first, back.server.url, budgets=None)
        told, logged = undisturbed(ahk, made, call("Validate"))
        assert [(outcome(answer), answer["server"]) for answer in told] == [(VALID, back.server.url)], logged
        assert logged == {USED: [[back.server.url, "validate VALID"]], FAILOVER: [[first, "refused"]], OFFLINE: []}


def test_the_log_files_hold_no_key(ahk: Script, shop: Shop, tmp_path: Path) -> None:
    sold = shop.sell()
    ahk.run([client_of(shop.node, sold, tmp_path), call("Activate"), call("Validate"), call("Usage")])
    with refused_url() as gone:
        ahk.run([client_of(shop.node, sold, tmp_path, gone), call("Validate")])
    written = [line for name in LOGS for line in ahk.wine.log(name)]
    assert all(ahk.wine.log(name) for name in LOGS)
    assert sold.key not in "".join(written)


# -- what nodes decide ------------------------------------------------------------------------------------------------


def test_seats_are_taken_up_to_the_limit_and_given_back(ahk: Script, shop: Shop, tmp_path: Path) -> None:
    sold = shop.sell(max_machines=2)

    def on(number: int, *methods: str) -> list[Json]:
        made = [machine(f"guid-{number}", "disk", "board"), client_of(shop.node, sold, tmp_path / f"machine-{number}")]
        return [*made, *map(call, methods)]

    told = ahk.run(
        [*on(0, "Validate", "Activate"), *on(1, "Activate"), *on(2, "Activate", "Validate", "Status"),
         *on(0, "Activate", "Validate", "Deactivate", "Status", "Validate"), *on(2, "Activate", "Validate", "Status")]
    )  # fmt: skip
    assert [answer["code"] for answer in results(told)] == [
        "NO_MACHINES", "VALID", "VALID", "MACHINE_LIMIT_EXCEEDED", "FINGERPRINT_SCOPE_MISMATCH", "NO_SERVER",
        "VALID", "VALID", "VALID", "NO_SERVER", "FINGERPRINT_SCOPE_MISMATCH", "VALID", "VALID", "OFFLINE_VALID",
    ]  # fmt: skip


def test_a_suspended_license_is_denied_and_its_token_goes(ahk: Script, shop: Shop, tmp_path: Path) -> None:
    sold = shop.sell()
    made = client_of(shop.node, sold, tmp_path)
    assert [answer["code"] for answer in results(ahk.run([made, call("Activate"), call("Status")]))] == [
        "VALID", "OFFLINE_VALID",
    ]  # fmt: skip
    change_license(shop.site.database, sold, status="suspended")
    denied, status = results(ahk.run([made, call("Validate"), call("Status")]))
    assert (outcome(denied), status["code"]) == ((False, "SUSPENDED", "server"), "NO_SERVER")


def test_every_call_is_answered_with_a_verdict_that_holds(ahk: Script, shop: Shop, tmp_path: Path) -> None:
    sold = shop.sell(max_uses=10, entitlements=["pro"])
    calls = [
        call("Activate", "Escritório"), call("Validate", ["pro"]), call("Validate", ["studio"]), call("Ping"),
        call("CheckIn"), call("Usage", 4), call("Usage", 7), call("Checkout", 3_600), call("Deactivate"),
    ]  # fmt: skip
    told = results(ahk.run([client_of(shop.node, sold, tmp_path, version="1.2"), *calls]))
    assert [answer["code"] for answer in told] == [
        "VALID", "VALID", "ENTITLEMENTS_MISSING", "VALID", "VALID", "VALID", "USES_EXHAUSTED", "VALID", "VALID",
    ]  # fmt: skip
    assert (told[1]["entitlements"], told[5]["uses"], told[5]["maxUses"]) == (["pro"], 4, 10)
    assert told[7]["offlineUntil"] < told[1]["offlineUntil"]
    (seat,) = rows(shop.site.database, tables.machines, license_id=sold.id)
    assert seat["name"] == "Escritório"


def test_a_key_that_nobody_knows_is_denied(ahk: Script, shop: Shop, tmp_path: Path) -> None:
    made = client_of(shop.node, Sold("", "KEY-that-nobody-knows"), tmp_path)
    told = results(ahk.run([made, *map(call, ("Validate", "Ping", "Usage", "CheckIn"))]))
    assert [outcome(answer) for answer in told] == [(False, "NOT_FOUND", "server")] * 4


def test_wrong_clocks_and_wrong_secrets_deny_nobody(ahk: Script, shop: Shop, tmp_path: Path) -> None:
    sold = shop.sell()
    right = client_of(shop.node, sold, tmp_path)
    clocks = [step for by in (86_400, -86_400) for step in (right, clock(by), call("Validate"))]
    wrong = [client_of(shop.node, sold, tmp_path, **{name: "wrong"}) for name in ("apiKey", "sharedSecret")]
    told = results(ahk.run([right, call("Activate"), *clocks, wrong[0], call("Validate"), wrong[1], call("Validate")]))
    assert [outcome(answer) for answer in told] == [VALID] * 3 + [(True, "OFFLINE_VALID", "offline")] * 2
    assert [answer["attempts"][0][1] for answer in told[3:]] == [
        "status 401 API_KEY_INVALID", "status 401 SIGNATURE_INVALID",
    ]  # fmt: skip


# -- what is between them ---------------------------------------------------------------------------------------------


def passes_on(shop: Shop, request_id: str | None = None, *, swallows: bool = False) -> Conduct:
    """A front of the node that signs each call again, under `request_id` if one is given; it may keep the answer."""

    def conduct(connection: socket.socket, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        named = request_id or headers["X-Request-Id"]
        sent = signed("POST", path, body, secrets=(shop.node.env["SHARED_SECRET"],), request_id=named)
        sent["X-API-Key"] = shop.node.env["API_KEY"]
        answer = requests.post(shop.node.server.url + path, data=body, headers=sent, timeout=60)
        if swallows:
            assert answer.status_code == 200
            silent(connection, path, body, headers)
        else:
            connection.sendall(http(answer.status_code, answer.content))

    return conduct


def test_a_node_behind_tls_is_asked_by_its_name(ahk: Script, shop: Shop, tmp_path: Path) -> None:
    authority, file = Authority("the vendor's host"), tmp_path / "authority.der"
    file.write_bytes(authority.der)
    ahk.wine.trust(file)
    with Nasty(passes_on(shop), tls=authority.tls(tmp_path, "localhost")) as front:
        url = front.url.replace("127.0.0.1", "localhost")
        told = results(ahk.run([client_of(shop.node, shop.sell(), tmp_path, url), call("Activate"), call("Validate")]))
    assert [(outcome(answer), answer["server"]) for answer in told] == [(VALID, url)] * 2, told


def test_a_relay_that_gives_every_call_one_id_gains_nothing(ahk: Script, shop: Shop, tmp_path: Path) -> None:
    """The node counts the calls as one and answers each: none of the answers is to the call that was made."""
    sold = shop.sell(max_machines=1, max_uses=10)
    with Nasty(passes_on(shop, "one-id-for-all-of-them")) as relay:
        made = client_of(shop.node, sold, tmp_path, relay.url, budgets=(60_000,))
        told = results(ahk.run([made, call("Activate"), *[call("Usage", 1)] * 3, call("Status")]))
    assert [answer["code"] for answer in told] == ["NO_SERVER"] * 5
    assert {why for answer in told for _, why in answer["attempts"]} == {"verdict refused: rid"}


def test_an_effect_whose_answer_was_lost_is_one_effect(ahk: Script, shop: Shop, tmp_path: Path) -> None:
    """The first server passes the call on to the node and keeps the answer: the second is asked the same."""
    sold = shop.sell(max_uses=10)
    budgets = (3_000, 60_000)
    with (
        Nasty(passes_on(shop, swallows=True)) as one,
        Nasty(passes_on(shop, swallows=True)) as two,
    ):
        told = ahk.run(
            [client_of(shop.node, sold, tmp_path, one.url, shop.node.server.url, budgets=budgets),
             call("Activate", "name", "request-of-activate"),
             client_of(shop.node, sold, tmp_path, two.url, shop.node.server.url, budgets=budgets, registry=anew()),
             call("Usage", 1, "request-of-usage")]
        )  # fmt: skip
    assert [(outcome(answer), answer["server"]) for answer in results(told)] == [(VALID, shop.node.server.url)] * 2
    assert license_row(shop.site.database, sold)["uses"] == 1
    assert len(rows(shop.site.database, tables.machines, license_id=sold.id)) == 1
    assert [event["type"] for event in events_of(shop.site.database, sold)] == ["activate", "usage"]
