"""The permitted signing keys from the command line, and the verification of saved answers."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import click
import pytest
from cryptography.hazmat.primitives import serialization

from api.cli.keys import public_key_in
from api.cli.verify import Inspector, inspect
from api.ledger import tables
from api.signing import Signer, SigningKey, SigningKeyError, generate, jwks, parse_signing_keys
from tests.support.cli import Cli
from tests.support.nodes import Node, environment, opened_ledger, rows, running_node, sell, signing_key
from tests.support.processes import running, until


@pytest.fixture
def cli(sqlite_url: str, tmp_path: Path) -> Cli:
    return Cli(environment(sqlite_url, tmp_path))


def _own() -> SigningKey:
    return parse_signing_keys(signing_key())[0]


def _public_pem(key: SigningKey) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.private.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def _statuses(cli: Cli) -> dict[str, str]:
    return {key["kid"]: key["status"] for key in cli.json("keys", "list")}


# -- the order of keys ------------------------------------------------------------------------------------------------


def test_a_key_is_added_activated_and_retired_and_a_running_node_follows(sqlite_url: str, tmp_path: Path) -> None:
    new = generate()
    cli = Cli(environment(sqlite_url, tmp_path))
    with running_node(sqlite_url, tmp_path, SIGNING_KEY=signing_key() + new.pem()) as node:
        # The node has founded its second key as the next one.
        assert _statuses(cli) == {_own().kid: "current", new.kid: "next"}
        cli.ok("keys", "activate", "--", new.kid)
        until(lambda: node.jwks()["keys"][0]["kid"] == new.kid, "the node signs with the new key")
        assert "signs now" in cli.fails("keys", "retire", "--", new.kid)
        cli.ok("keys", "retire", "--", _own().kid)
        until(lambda: [key["kid"] for key in node.jwks()["keys"]] == [new.kid], "the old key is no longer shown")
    assert _statuses(cli) == {new.kid: "current", _own().kid: "revoked"}
    assert "revoked" in cli.fails("keys", "activate", "--", _own().kid)
    types = [event["type"] for event in cli.json("events", "list")]
    assert types == ["key.activated", "key.retired"]


def test_the_first_key_is_this_nodes_own_even_before_a_node_has_started(cli: Cli) -> None:
    new = generate()
    cli.ok("keys", "add", "-", input=json.dumps(new.public_jwk))
    assert _statuses(cli) == {_own().kid: "current", new.kid: "next"}
    assert "already known" in cli.fails("keys", "add", "-", input=_public_pem(new))
    assert "does not hold it" in cli.run("keys", "activate", "--", new.kid).stderr


def test_a_change_of_keys_stamps_the_rows_with_its_event(cli: Cli, sqlite_url: str) -> None:
    cli.ok("keys", "add", "-", input=json.dumps(generate().public_jwk))
    with opened_ledger(sqlite_url) as ledger:
        (event,) = rows(ledger.database, tables.events, type="key.added")
        assert {key["status"]: key["seq"] for key in rows(ledger.database, tables.signing_keys)} == {
            "current": 0,
            "next": event["seq"],
        }


@pytest.mark.parametrize("form", ["jwk", "jwk without kid", "public pem", "private pem", "private pem in base64"])
def test_a_key_is_taken_in_any_form(form: str) -> None:
    key = generate()
    jwk: dict[str, Any] = dict(key.public_jwk)
    texts = {
        "jwk": json.dumps(jwk),
        "jwk without kid": json.dumps({name: value for name, value in jwk.items() if name != "kid"}),
        "public pem": _public_pem(key),
        "private pem": key.pem(),
        "private pem in base64": base64.b64encode(key.pem().encode()).decode(),
    }
    assert public_key_in(texts[form]) == key.public_jwk


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{}",
        json.dumps({**generate().public_jwk, "kid": "mine"}),
        json.dumps({**generate().public_jwk, "crv": "P-384"}),
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
        generate().pem() + generate().pem(),
    ],
)
def test_what_is_no_key_of_ours_is_refused(text: str) -> None:
    with pytest.raises(SigningKeyError):
        public_key_in(text)


# -- verification -----------------------------------------------------------------------------------------------------


@pytest.fixture
def node(sqlite_url: str, tmp_path: Path) -> Any:
    with running_node(sqlite_url, tmp_path) as node:
        yield node


def _answer(node: Node) -> dict[str, Any]:
    sold = sell(node.database, {"offline_ttl_s": 86_400})
    node.call("activate", sold.key, fingerprint="pc")
    return node.call("validate", sold.key, fingerprint="pc").body


def test_a_saved_answer_is_verified_with_the_ledgers_keys(cli: Cli, node: Node) -> None:
    answer = _answer(node)
    printed = cli.ok("keys", "verify", "-", input=json.dumps(answer))
    assert "verdict: signed by a permitted key" in printed
    assert "token: signed by a permitted key" in printed
    found = json.loads(cli.ok("keys", "verify", "-", "--json", input=json.dumps(answer)))
    assert (found["verdict"]["code"], found["verdict"]["nonce"]) == ("VALID", answer["nonce"])
    assert found["token"]["fp"] == "pc"


def test_a_key_that_was_retired_verifies_nothing(cli: Cli, node: Node) -> None:
    answer, new = _answer(node), generate()
    cli.ok("keys", "add", "-", input=new.pem())
    cli.ok("keys", "activate", "--", new.kid)
    cli.ok("keys", "verify", "-", input=json.dumps(answer))
    cli.ok("keys", "retire", "--", _own().kid)
    assert "the verdict is bad (kid)" in cli.fails("keys", "verify", "-", input=json.dumps(answer))


def test_pinned_keys_in_a_file_need_no_settings(node: Node, tmp_path: Path) -> None:
    answer, pinned = tmp_path / "answer.json", tmp_path / "jwks.json"
    answer.write_text(json.dumps(_answer(node)))
    pinned.write_text(json.dumps(node.jwks()))
    nobody = Cli({"PORT": "not a port"})
    assert "code      VALID" in nobody.ok("keys", "verify", str(answer), "--jwks", str(pinned))
    pinned.write_text(json.dumps(jwks(generate().public_jwk, ())))
    assert "the verdict is bad (kid)" in nobody.fails("keys", "verify", str(answer), "--jwks", str(pinned))
    assert "No such file" in nobody.fails("keys", "verify", str(answer), "--jwks", str(tmp_path / "none.json"))


def test_the_keys_are_fetched_from_a_running_node(node: Node, sqlite_url: str, tmp_path: Path) -> None:
    answer = json.dumps(_answer(node))
    with running("api/app.py", env=environment(sqlite_url, tmp_path), path="/readyz") as server:
        url = f"{server.url}/.well-known/jwks.json"
        Cli({}).ok("keys", "verify", "-", "--jwks", url, input=answer)
        assert "answers 404" in Cli({}).fails("keys", "verify", "-", "--jwks", f"{server.url}/nothing", input=answer)
    assert "does not answer" in Cli({}).fails("keys", "verify", "-", "--jwks", url, input=answer)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"verdict": None}, "no verdict"),
        ({"verdict": "a.b"}, "truncated"),
        ({"code": "BANNED"}, '"VALID" is signed'),
        ({"valid": False}, "true is signed"),
        ({"nonce": "another-nonce-of-somebody"}, "is signed"),
    ],
)
def test_an_answer_that_says_other_than_its_claims_is_bad(node: Node, change: dict[str, Any], says: str) -> None:
    answer = _answer(node) | change
    with pytest.raises(click.ClickException, match=says):
        inspect(answer, "verdict", Inspector(node.jwks()))


def test_a_verdict_and_a_token_are_never_taken_for_one_another(node: Node) -> None:
    answer = _answer(node)
    swapped = answer | {"verdict": answer["token"], "token": answer["verdict"]}
    for name in ("verdict", "token"):
        with pytest.raises(click.ClickException, match="typ"):
            inspect(swapped, name, Inspector(node.jwks()))


def test_a_token_is_good_until_its_end_and_a_verdict_whenever_it_is_read(node: Node) -> None:
    answer = _answer(node)
    inspector = Inspector(node.jwks())
    ends = inspect(answer, "token", inspector)["exp"]
    assert inspect(answer, "token", inspector, now=ends - 1)["exp"] == ends
    assert inspect(answer, "verdict", inspector, now=ends + 10**6)["code"] == "VALID"
    with pytest.raises(click.ClickException, match="expired"):
        inspect(answer, "token", inspector, now=ends)


def test_a_key_of_somebody_else_signs_nothing_of_ours(node: Node) -> None:
    answer = _answer(node)
    forged = Signer(generate())
    claims = Inspector(node.jwks()).verdict(answer["verdict"])
    with pytest.raises(click.ClickException, match="kid"):
        inspect(answer | {"verdict": forged.verdict(claims)}, "verdict", Inspector(node.jwks()))
