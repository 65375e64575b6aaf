"""The Python client and real nodes: the guide's three tests, seats, suspension, a wrong clock, lost answers."""

from __future__ import annotations

import contextlib
import errno
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests

from api.ledger import tables
from api.signing import parse_signing_keys
from license_client import LicenseClient, Result
from license_client.calls import Call, Credentials
from tests.support.cluster import TOO_BUSY, Member, Site
from tests.support.nodes import PRODUCT, Sold, change_license, events_of, ledger_of, license_row, rows, sell
from tests.support.processes import until
from tests.unit.clients.sockets import Nasty, silent
from tests.unit.clients.support import Clock, lines

USED, FAILOVER, OFFLINE = "license_server_used.txt", "license_server_failover.txt", "license_offline_success.txt"

#: Two noisy cores: a node may need longer than 2 s for its first answers. The order of the servers is what is tested.
CALM = (20.0, 30.0)

#: A node that is ready once is ready: with several workers another one may still be starting.
ONE_WORKER = {"WEB_CONCURRENCY": "1"}


class Shop(NamedTuple):
    """A site, and its one node."""

    site: Site
    node: Member

    def sell(self, **rules: Any) -> Sold:
        return sell(self.site.database, rules)


@pytest.fixture(scope="module")
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    with ledger_of("postgres", request, folder) as url, contextlib.closing(Site(url, folder)) as site:
        yield Shop(site, site.node(1, **ONE_WORKER).ready())


def client_of(member: Member, sold: Sold, folder: Path, *urls: str, **changes: Any) -> LicenseClient:
    """A client of `member`'s secrets that asks `urls`, by default `member` alone. None: as it comes."""
    pinned = [key.public_jwk for key in parse_signing_keys(member.env["SIGNING_KEY"])]
    given: dict[str, Any] = {
        "product": PRODUCT, "key": sold.key, "public_keys": pinned, "fingerprint": "machine-1", "log_dir": folder,
        "api_key": member.env["API_KEY"], "shared_secret": member.env["SHARED_SECRET"], "state_dir": folder / "state",
        "budgets": CALM,
    }  # fmt: skip
    settings = {name: value for name, value in {**given, **changes}.items() if value is not None}
    return LicenseClient(list(urls) or [member.server.url], **settings)


def outcome(result: Result) -> tuple[bool, str, str | None]:
    return result.valid, result.code, result.server


def logged(folder: Path) -> dict[str, list[list[str]]]:
    """The three files without their times, which are there."""
    found = {name: lines(folder, name) for name in (USED, FAILOVER, OFFLINE)}
    for line in (line for every in found.values() for line in every):
        assert time.strptime(line[0], "%Y-%m-%dT%H:%M:%SZ")
    return {name: [line[1:] for line in every] for name, every in found.items()}


def kill(member: Member) -> None:
    """SIGKILL the node with all its processes, and wait until its port is refused."""
    member.server.kill_tree()

    def is_refused() -> bool:
        with socket.socket() as probe:
            probe.settimeout(5)
            return probe.connect_ex(("127.0.0.1", member.server.port)) == errno.ECONNREFUSED

    until(is_refused, "a port that is refused")


# -- the guide's three tests ------------------------------------------------------------------------------------------


def undisturbed(
    member: Member, sold: Sold, folder: Path, urls: list[str], *acts: str
) -> tuple[list[Result], dict[str, list[list[str]]]]:
    """What the calls gave, and the lines of the log files.

    The client has the budgets that it comes with, and remembers no server. What it says of nodes only where
    the machine is too busy for them is no part of the guide: then it is all done again.
    """
    for _ in range(10):
        (folder / "state" / "servers.json").unlink(missing_ok=True)
        logs = folder / uuid.uuid4().hex
        logs.mkdir(parents=True)
        # The clock stands still: however slow this machine is, the 30 s for a server that failed do not pass.
        still = Clock(time.time())
        with client_of(member, sold, folder, *urls, log_dir=logs, now=still, budgets=None) as client:
            results = [getattr(client, act)() for act in acts]
        found = logged(logs)
        if not TOO_BUSY & {reason for _, reason in found[FAILOVER]}:
            return results, found
    raise AssertionError("this machine was too busy, ten times")


@pytest.mark.slow
def test_primary_up_then_down_then_all_down_then_back(empty_postgres_url: str, tmp_path: Path) -> None:
    with contextlib.closing(Site(empty_postgres_url, tmp_path)) as site:
        one, two = site.two(**ONE_WORKER)
        sold, folder = site.sell(), tmp_path / "client"
        first, second = one.server.url, two.server.url

        def told(*acts: str) -> tuple[list[Result], dict[str, list[list[str]]]]:
            return undisturbed(one, sold, folder, [first, second], *acts)

        results, found = told("activate", "validate")
        assert [outcome(result) for result in results] == [(True, "VALID", first)] * 2, found
        assert found == {USED: [[first, "activate VALID"], [first, "validate VALID"]], FAILOVER: [], OFFLINE: []}

        kill(one)
        results, found = told("validate", "validate")
        assert [outcome(result) for result in results] == [(True, "VALID", second)] * 2, found
        assert found == {USED: [[second, "validate VALID"]] * 2, FAILOVER: [[first, "refused"]], OFFLINE: []}

        kill(two)
        results, found = told("validate")
        assert [outcome(result) for result in results] == [(True, "OFFLINE_VALID", None)]
        # With a saved token nobody waits for a host to wake: two passes.
        refused = [[first, "refused"], [second, "refused"]] * 2
        assert found == {USED: [], FAILOVER: refused, OFFLINE: [["offline", "validate OFFLINE_VALID"]]}
        (usage,), found = told("usage")
        assert outcome(usage) == (False, "NO_SERVER", None)
        assert (found[USED], found[OFFLINE]) == ([], [])

        back = site.node(2, copy="again", **ONE_WORKER).ready()
        results, found = undisturbed(back, sold, folder, [first, back.server.url], "validate")
        assert [outcome(result) for result in results] == [(True, "VALID", back.server.url)]
        assert found == {USED: [[back.server.url, "validate VALID"]], FAILOVER: [[first, "refused"]], OFFLINE: []}
        assert sold.key not in "".join(path.read_text() for path in folder.rglob("*") if path.is_file())


# -- what nodes decide ------------------------------------------------------------------------------------------------


def test_seats_are_taken_up_to_the_limit_and_given_back(shop: Shop, tmp_path: Path) -> None:
    sold = shop.sell(max_machines=2)
    machines = [
        client_of(shop.node, sold, tmp_path, fingerprint=f"machine-{n}", state_dir=tmp_path / str(n)) for n in range(3)
    ]
    assert machines[0].validate().code == "NO_MACHINES"
    assert [each.activate().code for each in machines] == ["VALID", "VALID", "MACHINE_LIMIT_EXCEEDED"]
    assert machines[0].activate().code == "VALID"
    assert [each.validate().code for each in machines] == ["VALID", "VALID", "FINGERPRINT_SCOPE_MISMATCH"]
    assert [each.status().code for each in machines] == ["OFFLINE_VALID", "OFFLINE_VALID", "NO_SERVER"]
    assert machines[0].deactivate().valid
    assert machines[0].status().code == "NO_SERVER"
    assert machines[2].activate().valid
    for each in machines:
        each.close()


def test_a_suspended_license_is_denied_and_its_token_goes(shop: Shop, tmp_path: Path) -> None:
    sold = shop.sell()
    with client_of(shop.node, sold, tmp_path) as client:
        client.activate()
        change_license(shop.site.database, sold, status="suspended")
        result = client.validate()
        assert (result.valid, result.code, result.source) == (False, "SUSPENDED", "server")
        assert client.status().code == "NO_SERVER"


def test_every_call_is_answered_with_a_verdict_that_holds(shop: Shop, tmp_path: Path) -> None:
    with client_of(shop.node, shop.sell(max_uses=10, entitlements=["pro"]), tmp_path) as client:
        client.activate(name="Escritório", version="1.2")
        assert client.validate(version="1.2", entitlements=["pro"]).entitlements == ("pro",)
        assert client.validate(entitlements=["studio"]).code == "ENTITLEMENTS_MISSING"
        assert (client.ping().code, client.check_in().code) == ("VALID", "VALID")
        assert (client.usage(4).uses, client.usage(7).code) == (4, "USES_EXHAUSTED")
        given = client.checkout(3_600)
        assert given.offline_until is not None
        assert 3_500 < given.offline_until.timestamp() - time.time() < 3_700


@pytest.mark.parametrize("act", ["validate", "ping", "usage"])
def test_a_key_that_nobody_knows_is_denied(act: str, shop: Shop, tmp_path: Path) -> None:
    with client_of(shop.node, Sold("", "KEY-that-nobody-knows"), tmp_path) as client:
        assert getattr(client, act)().code == "NOT_FOUND"


@pytest.mark.parametrize("wrong_by", [-86_400, 86_400])
def test_a_customers_wrong_clock_is_no_reason_to_refuse(wrong_by: int, shop: Shop, tmp_path: Path) -> None:
    with client_of(shop.node, shop.sell(), tmp_path, now=lambda: time.time() + wrong_by) as client:
        assert client.activate().code == "VALID"
        assert client.validate().code == "VALID"


@pytest.mark.parametrize("wrong", [{"api_key": "wrong"}, {"shared_secret": "wrong"}])
def test_wrong_secrets_deny_nobody(wrong: dict[str, str], shop: Shop, tmp_path: Path) -> None:
    sold = shop.sell()
    with client_of(shop.node, sold, tmp_path) as client:
        client.activate()
    with client_of(shop.node, sold, tmp_path, **wrong) as client:
        result = client.validate()
        assert result.code == "OFFLINE_VALID"
        assert {attempt.reason.split()[1] for attempt in result.attempts} <= {"401", "429"}


# -- answers that get lost --------------------------------------------------------------------------------------------


def test_an_effect_whose_answer_was_lost_is_one_effect(shop: Shop, tmp_path: Path) -> None:
    """The first server passes the call on to the node, and its answer never comes: the second is asked the same."""
    sold = shop.sell(max_uses=10)
    credentials = Credentials(shop.node.env["API_KEY"], shop.node.env["SHARED_SECRET"])
    request_ids: list[str] = []

    def swallow(connection: socket.socket, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        call = Call(act=path.removeprefix("/v1/"), key=sold.key, fields={}, request_id=request_ids[-1])
        sent = credentials.headers(call, body, int(time.time()))
        answer = requests.post(shop.node.server.url + path, data=body, headers=sent, timeout=30)
        assert answer.status_code == 200
        silent(connection, path, body, headers)

    with Nasty(swallow) as lossy:
        for act in ("activate", "usage"):
            request_ids.append(f"request-of-{act}")
            folder, urls = tmp_path / act, (lossy.url, shop.node.server.url)
            with client_of(shop.node, sold, folder, *urls, budgets=(4.0, 30.0)) as client:
                result = getattr(client, act)(request_id=request_ids[-1])
            assert (result.code, result.server) == ("VALID", shop.node.server.url)
    assert license_row(shop.site.database, sold)["uses"] == 1
    assert len(rows(shop.site.database, tables.machines, license_id=sold.id)) == 1
    assert [event["type"] for event in events_of(shop.site.database, sold)] == ["activate", "usage"]
