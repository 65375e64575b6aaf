"""What a program gives the client, what it is given back, and what is raised at whom."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

import license_client
from license_client import (
    ActivationNeeded,
    ConfigurationError,
    Denied,
    KeyMalformed,
    LicenseClient,
    LicenseClientError,
    NoServer,
    NotLicensed,
    OfflineRefused,
    Undecided,
    looks_mistyped,
)
from license_client.texts import detail_of
from tests.unit.clients.support import (
    FINGERPRINT,
    KEY,
    NOW,
    PRODUCT,
    SERVERS,
    VENDOR,
    Behaviour,
    Clock,
    Servers,
    client_of,
    denies,
    gone,
    lease,
    says,
)
from tests.vectors import jws
from tests.vectors.keys import CHECKED

SOURCE = Path(license_client.__file__).parent
#: The members of each call's body, as the contract has them (section 1).
BODIES: dict[str, set[str]] = {
    "validate": {"product", "fingerprint"},
    "activate": {"product", "fingerprint", "name", "platform"},
    "deactivate": {"fingerprint"},
    "ping": {"fingerprint"},
    "check-in": set(),
    "usage": {"increment"},
    "checkout": {"fingerprint"},
}


# -- what is sent -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", BODIES)
def test_each_call_sends_what_the_contract_has_and_nothing_else(act: str, tmp_path: Path) -> None:
    servers = Servers(says())
    result = getattr(client_of(servers, tmp_path), act.replace("-", "_"))()
    ((path, body, headers, _),) = servers.sent
    assert (result.valid, result.act, path) == (True, act, f"/v1/{act}")
    assert body.keys() == {"key", "nonce", "client", *BODIES[act]}
    assert {"X-API-Key", "X-Request-Id", "X-Timestamp", "X-Signature", "Content-Type"} == headers.keys()


def test_what_is_asked_for_is_sent(tmp_path: Path) -> None:
    servers = Servers(says())
    client = client_of(servers, tmp_path)
    client.validate(version="1.2", entitlements=["pro"])
    client.activate(name="Desk", version="1.3")
    client.usage(7)
    client.checkout(600)
    bodies = [sent[1] for sent in servers.sent]
    assert (bodies[0]["version"], bodies[0]["entitlements"]) == ("1.2", ["pro"])
    assert (bodies[1]["name"], bodies[1]["version"]) == ("Desk", "1.3")
    assert (bodies[2]["increment"], bodies[3]["ttl"]) == (7, 600)


def test_servers_that_ask_for_no_credentials_get_none(tmp_path: Path) -> None:
    servers = Servers(says())
    client_of(servers, tmp_path, api_key=None, shared_secret=None).validate()
    assert servers.sent[0][2].keys() == {"Content-Type", "X-Request-Id"}


@pytest.mark.parametrize("act", ["deactivate", "ping", "check-in", "usage", "checkout"])
def test_an_unknown_key_is_denied_also_where_no_product_is_sent(act: str, tmp_path: Path) -> None:
    client = client_of(Servers(denies("NOT_FOUND", aud=None, sub=None)), tmp_path)
    assert getattr(client, act.replace("-", "_"))().code == "NOT_FOUND"


@pytest.mark.parametrize(
    "behave",
    [denies("BANNED", aud=None), denies("BANNED", aud=None, sub=None), denies("NOT_FOUND", aud=None), says(aud=None)],
    ids=["denied", "denied without a license", "not found and yet a license", "valid"],
)
def test_no_other_verdict_may_leave_the_product_out(behave: Behaviour, tmp_path: Path) -> None:
    assert client_of(Servers(behave), tmp_path).ping().code == "NO_SERVER"


# -- what is given back -----------------------------------------------------------------------------------------------


def test_a_result_is_made_of_the_claims(tmp_path: Path) -> None:
    result = client_of(Servers(gone(), says(token=lease())), tmp_path).validate()
    shown = result.to_dict()
    json.dumps(shown)
    assert shown == {
        "valid": True, "code": "VALID", "detail": "is valid", "source": "server", "act": "validate",
        "request_id": result.request_id, "server": SERVERS[1], "expires": "2025-12-24T16:00:00Z",
        "offline_until": "2025-12-01T16:00:00Z", "entitlements": ("pro",), "uses": 1, "max_uses": 10,
        "node": "node-1", "as_of": "2025-11-24T16:00:00Z", "attempts": ({"server": SERVERS[0], "reason": "refused"},),
    }  # fmt: skip


@pytest.mark.parametrize("lic_exp", [None, 2**53 - 1, -(2**53) + 1])
def test_an_end_that_no_calendar_holds_is_none(lic_exp: int | None, tmp_path: Path) -> None:
    assert client_of(Servers(says(lic_exp=lic_exp)), tmp_path).validate().expires is None


def test_a_license_of_another_product_is_said_to_be_one(tmp_path: Path) -> None:
    result = client_of(Servers(denies("PRODUCT_SCOPE_MISMATCH", aud="paint-pro")), tmp_path).validate()
    assert (result.valid, result.code) == (False, "NO_SERVER")
    assert "for another one" in result.detail


def test_a_code_that_is_not_known_yet_is_shown() -> None:
    assert detail_of("GEOFENCED", False) == "the server answered GEOFENCED"
    assert detail_of("EXPIRED", True) != detail_of("EXPIRED", False)


@pytest.mark.parametrize(
    ("key", "hint"),
    [(KEY, "compare it with the message"), (CHECKED, "compare it"), (CHECKED[:-1] + "F", "looks mistyped")],
)
def test_an_unknown_key_is_asked_about_whatever_it_looks_like_and_the_detail_says_what_to_look_at(
    key: str, hint: str, tmp_path: Path
) -> None:
    servers = Servers(denies("NOT_FOUND", sub=None))
    result = client_of(servers, tmp_path, key=key).validate()
    assert (result.code, result.source, hint in result.detail) == ("NOT_FOUND", "server", True)
    assert looks_mistyped(key) == ("mistyped" in hint)


# -- what is raised ---------------------------------------------------------------------------------------------------


OUTCOMES: dict[str, tuple[Behaviour, type[NotLicensed]]] = {
    "denied": (denies("BANNED"), Denied),
    "not activated": (denies("NO_MACHINES"), ActivationNeeded),
    "nobody": (gone(), NoServer),
}


@pytest.mark.parametrize(("behave", "raised"), OUTCOMES.values(), ids=OUTCOMES.keys())
def test_each_refusal_is_raised_at_whoever_can_do_something(
    behave: Behaviour, raised: type[NotLicensed], tmp_path: Path
) -> None:
    result = client_of(Servers(behave), tmp_path).validate()
    with pytest.raises(NotLicensed) as refused:
        result.require()
    assert type(refused.value) is raised
    assert refused.value.result is result


def test_a_token_that_does_not_do_is_raised_too(tmp_path: Path) -> None:
    servers, clock = Servers(says(token=lease())), Clock()
    client = client_of(servers, tmp_path, clock)
    client.validate()
    servers.behave[SERVERS[0]] = gone()
    clock.now = NOW - 301
    with pytest.raises(OfflineRefused, match="CLOCK_TAMPERED"):
        client.validate().require()


def test_a_valid_result_requires_nothing(tmp_path: Path) -> None:
    result = client_of(Servers(says()), tmp_path).validate()
    assert result.require() is result


def test_the_tree_of_exceptions() -> None:
    assert issubclass(ActivationNeeded, Denied)
    assert issubclass(NoServer, Undecided)
    assert issubclass(OfflineRefused, Undecided)
    assert not issubclass(Denied, Undecided)
    assert issubclass(KeyMalformed, ConfigurationError)
    assert issubclass(ConfigurationError, ValueError)
    assert all(issubclass(each, LicenseClientError) for each in (NotLicensed, ConfigurationError))


PEM = jws.pem_of(VENDOR)
FAULTS: dict[str, dict[str, Any]] = {
    "servers: a list": {"servers": "https://one.example"},
    "servers: a list of": {"servers": []},
    "servers: two.example needs https": {"servers": ["https://one.example", "http://two.example"]},
    "servers: 10.0.0.1 needs https": {"servers": ["http://10.0.0.1:5000"]},
    "servers: localhost.example needs https": {"servers": ["http://localhost.example"]},
    "comes twice": {"servers": ["https://one.example", "https://one.example/"]},
    "nothing more": {"servers": ["https://one.example/v1"]},
    "and nothing more": {"servers": ["https://user:word@one.example"]},
    "needs https; plain": {"servers": ["ftp://one.example"]},
    "like https://host": {"servers": ["one.example"]},
    "is no URL": {"servers": ["https://[one"]},
    "product: must be": {"product": ""},
    "fingerprint: must be": {"fingerprint": "x" * 129},
    "fingerprint: must not": {"fingerprint": "a\nb"},
    "at least one key": {"public_keys": []},
    "the key .* twice": {"public_keys": [jws.jwk_of(VENDOR)] * 2},
    "private key": {"public_keys": [PEM]},
    "neither a PEM text": {"public_keys": ["x"]},
    "PEM block is damaged": {"public_keys": ["-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"]},
    "not for ES256": {"public_keys": [{**jws.jwk_of(VENDOR), "alg": "HS256"}]},
    "point of P-256": {"public_keys": [{**jws.jwk_of(VENDOR), "x": "A" * 43}]},
    "does not list": {"public_keys": [{"keys": "x"}]},
    "kid is not": {"public_keys": [{**jws.jwk_of(VENDOR), "kid": 5}]},
    "each must be": {"public_keys": [5]},
}


@pytest.mark.parametrize(("says_so", "wrong"), FAULTS.items(), ids=FAULTS.keys())
def test_a_wrong_setting_is_named_at_once(says_so: str, wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=says_so):
        client_of(Servers(says()), tmp_path, **wrong)


@pytest.mark.parametrize("key", ["short", "x" * 129, " \u200b\u00a0 ", "lone \ud800 surrogate", "", None])
def test_a_text_that_can_be_no_key_is_not_sent_and_not_shown(key: Any, tmp_path: Path) -> None:
    with pytest.raises(KeyMalformed) as refused:
        client_of(Servers(says()), tmp_path, key=key)
    assert not key or key not in str(refused.value)


@pytest.mark.parametrize("number", [0, -1, 1_000_001, 1.0, True, "1"])
def test_what_every_server_would_refuse_is_not_sent(number: Any, tmp_path: Path) -> None:
    servers = Servers(says())
    with pytest.raises(ConfigurationError, match="increment"):
        client_of(servers, tmp_path).usage(number)
    assert servers.asked == []


@pytest.mark.parametrize("version", ["", "one", "1.2 final", "1.2\n", "1..2"])
def test_a_version_that_servers_would_refuse_is_refused(version: str, tmp_path: Path) -> None:
    client = client_of(Servers(says()), tmp_path)
    for call in (client.validate, client.activate):
        with pytest.raises(ConfigurationError, match="version"):
            call(version=version)


@pytest.mark.parametrize("version", ["1", "1.2", "v1!2.0rc1.post2.dev3+local.1", "2024.1-beta"])
def test_a_version_that_servers_take_is_sent(version: str, tmp_path: Path) -> None:
    servers = Servers(says())
    assert client_of(servers, tmp_path).validate(version=version).valid
    assert servers.sent[0][1]["version"] == version


def test_a_name_is_sent_without_what_no_server_takes(tmp_path: Path) -> None:
    servers = Servers(says())
    assert client_of(servers, tmp_path).activate(name="Desk\t1 \udc80é\x9f").valid
    assert servers.sent[0][1]["name"] == "Desk 1  é "


@pytest.mark.parametrize("act", ["activate", "deactivate", "ping", "checkout"])
def test_calls_about_a_machine_need_a_fingerprint(act: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="fingerprint"):
        getattr(client_of(Servers(says()), tmp_path, fingerprint=None), act)()


@pytest.mark.parametrize("request_id", ["short", "x" * 65, "with space", "ends\n123"])
def test_a_request_id_that_servers_would_refuse_is_refused(request_id: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="request_id"):
        client_of(Servers(says()), tmp_path).usage(request_id=request_id)


def test_loopback_may_be_plain_and_a_slash_at_the_end_is_nothing(tmp_path: Path) -> None:
    given = ["http://localhost:5000/", "http://127.0.0.1:5001", "http://[::1]:5002", "https://one.example:8443/"]
    client = LicenseClient(
        given, product=PRODUCT, key=KEY, public_keys=[jws.jwk_of(VENDOR)], state_dir=tmp_path, fingerprint=FINGERPRINT
    )
    assert client.server_order() == [url.rstrip("/") for url in given]
    client.close()


def test_leaving_the_context_closes_the_transport(tmp_path: Path) -> None:
    servers = Servers(says())
    with client_of(servers, tmp_path) as client:
        client.validate()
    assert servers.closed


# -- the package ------------------------------------------------------------------------------------------------------


def test_all_that_is_public_is_there_and_listed() -> None:
    assert sorted(license_client.__all__) == sorted(set(license_client.__all__))
    assert all(hasattr(license_client, name) for name in license_client.__all__)
    assert (SOURCE / "py.typed").is_file()


def test_nothing_of_the_server_is_imported() -> None:
    imported = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else alias.name
        for path in SOURCE.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert {name.partition(".")[0] for name in imported}.isdisjoint({"api", "failover", "flask", "msgspec"})
