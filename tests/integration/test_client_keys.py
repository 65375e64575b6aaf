"""The signing keys that the ledger permits: who may serve, and how a rotation is followed."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from api.ledger import permitted_keys
from api.ledger.database import Database
from api.signing import KeyStatus, SigningKey, generate, parse_signing_keys
from tests.support.nodes import Node, running_node, sell, starting_node
from tests.support.processes import until

#: A node looks once a second; the rest is for noisy machines.
_FOLLOWED_WITHIN_S = 2 + 18


def set_status(database: Database, **kids: tuple[SigningKey, KeyStatus]) -> None:
    with database.writing() as connection:
        for key, status in kids.values():
            permitted_keys.write(connection, key.kid, status, 1.0)


def followed(condition: Callable[[], bool], why: str) -> None:
    until(condition, why, _FOLLOWED_WITHIN_S)


def kid_of(node: Node, key: str) -> str:
    verdict = node.call("validate", key).body["verdict"]
    header = verdict.split(".")[0]
    return str(json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))["kid"])


def kids(node: Node) -> list[str]:
    return [jwk["kid"] for jwk in node.jwks()["keys"]]


def test_the_first_node_founds_the_keys_its_first_one_current(empty_ledger_url: str, tmp_path: Path) -> None:
    first, second = generate(), generate()
    with running_node(empty_ledger_url, tmp_path, SIGNING_KEY=first.pem() + second.pem()) as node:
        sold = sell(node.database)
        assert kids(node) == [first.kid, second.kid]
        assert kid_of(node, sold.key) == first.kid
        assert all(set(jwk) >= {"kty", "crv", "x", "y", "kid"} and "d" not in jwk for jwk in node.jwks()["keys"])


def test_a_rotation_is_followed_without_a_restart(ledger_url: str, tmp_path: Path) -> None:
    old, new = generate(), generate()
    with running_node(ledger_url, tmp_path, SIGNING_KEY=old.pem() + new.pem()) as node:
        sold = sell(node.database)
        assert kid_of(node, sold.key) == old.kid
        set_status(node.database, old=(old, KeyStatus.PREVIOUS), new=(new, KeyStatus.CURRENT))
        followed(lambda: kid_of(node, sold.key) == new.kid, "the new key signs")
        assert kids(node) == [new.kid, old.kid]  # what the old one signed is still verified
        set_status(node.database, old=(old, KeyStatus.REVOKED))
        followed(lambda: kids(node) == [new.kid], "the old key is gone")
        assert node.call("validate", sold.key).code == "VALID"


def test_a_node_with_another_key_says_so_and_serves_once_its_key_is_current(ledger_url: str, tmp_path: Path) -> None:
    ours, theirs = generate(), generate()
    with (
        running_node(ledger_url, tmp_path / "one", SIGNING_KEY=ours.pem()) as node,
        starting_node(ledger_url, tmp_path / "two", SIGNING_KEY=theirs.pem()) as stranger,
    ):
        sold = sell(node.database)
        until(lambda: ours.kid in stranger.http.get("/readyz").json["waiting_for"], "the reason")  # type: ignore[index]
        refused = stranger.call("validate", sold.key)
        assert (refused.status, refused.code) == (503, "STARTING")
        for named in (f"the current signing key is {ours.kid}", theirs.kid, "flask keys"):
            assert named in refused.body["detail"]
        assert refused.response.headers["Retry-After"]
        assert stranger.http.get("/livez").status_code == 200
        with node.database.writing() as connection:
            permitted_keys.write(connection, theirs.kid, KeyStatus.CURRENT, 1.0, theirs.public_jwk)
            permitted_keys.write(connection, ours.kid, KeyStatus.PREVIOUS, 1.0)
        followed(lambda: stranger.http.get("/readyz").status_code == 200, "the stranger serves")
        assert kid_of(stranger, sold.key) == theirs.kid
        # Not by calls: one that is answered while the keys change is read with keys that are not there any more.
        followed(lambda: node.http.get("/readyz").status_code == 503, "the first node stops signing")
        assert node.call("validate", sold.key).code == "STARTING"


@pytest.mark.parametrize("held", [1, 2])
def test_nodes_that_found_at_once_agree_on_one_current_key(empty_postgres_url: str, tmp_path: Path, held: int) -> None:
    pems = [generate().pem() for _ in range(2)]
    with (
        starting_node(empty_postgres_url, tmp_path / "one", SIGNING_KEY="".join(pems[:held])) as one,
        starting_node(empty_postgres_url, tmp_path / "two", SIGNING_KEY="".join(pems[::-1][:held])) as two,
    ):

        def settled() -> bool:
            waiting = [node.http.get("/readyz").json["waiting_for"] for node in (one, two)]  # type: ignore[index]
            return all(reason is None or "signing key" in reason for reason in waiting) and None in waiting

        until(settled, "both know the keys")
        with one.database.reading() as connection:
            statuses = permitted_keys.load(connection).statuses
    known = {key.kid for pem in pems for key in parse_signing_keys(pem)}
    assert set(statuses) <= known
    assert list(statuses.values()).count("current") == 1
    assert len(statuses) == held
