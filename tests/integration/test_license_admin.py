"""`license-admin` at a node, on both ledgers: what every command does, in its tables and its JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.signing import generate
from tests.support.license_admin import InProcess, Vendor, rows_of, sold
from tests.support.nodes import Node, node_on, signing_key

ONE = "https://one.example"
_SPARE = generate()


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("node")
    with node_on(request.param, request, folder, SIGNING_KEY=signing_key() + _SPARE.pem()) as node:
        yield node


@pytest.fixture
def vendor(node: Node, tmp_path: Path, own_folders: None) -> Vendor:
    return Vendor([ONE], tmp_path, transport=InProcess({ONE: node}))


def test_products_and_policies_are_made_listed_changed_and_deleted(vendor: Vendor) -> None:
    made = vendor.json("products", "create", "--code", "catalogue", "--name", "An editor")
    assert vendor.json("products", "show", "catalogue") == made
    assert vendor.json("products", "update", made["id"], "--name", "The editor")["name"] == "The editor"
    assert "The editor" in vendor.ok("products", "list")
    policy = vendor.json(
        "policies", "create", "--product", "catalogue", "--name", "basic", "--entitlement", "a", "--entitlement", "b",
        "--no-floating", "--max-machines", "none", "--expiry-strategy", "maintain",
    )  # fmt: skip
    assert (policy["entitlements"], policy["floating"], policy["max_machines"]) == (["a", "b"], False, None)
    assert vendor.json("policies", "list", "--product", "catalogue") == [policy]
    assert "polic" in vendor.fails(1, "products", "delete", "catalogue", "--yes")
    assert vendor.ok("policies", "delete", "basic", "--yes") == "Deleted.\n"
    vendor.ok("products", "delete", "catalogue", "--yes")
    assert "catalogue" in vendor.fails(4, "products", "show", "catalogue")


def test_a_license_is_found_by_whatever_people_have_of_it(vendor: Vendor) -> None:
    license = sold(vendor, email="ada@example.com", external_ref="payment-17", name="Ada")
    id = license["id"]
    pasted = f"\u201c{license['key'].lower().replace('-', ' ')}\u201d"
    for text in (id, license["key"], pasted, license["key_hint"], "ADA@example.com", "payment-17"):
        assert vendor.json("licenses", "show", text)["id"] == id
    assert id in vendor.ok("licenses", "find", "pay")
    said = vendor.run("licenses", "show", "Ad")
    assert said.status == 4
    assert id in said.out
    sold(vendor, email="ada@example.com")
    refused = vendor.run("licenses", "suspend", "ada@example.com", "--json")
    assert refused.status == 4
    assert len(json.loads(refused.err)["candidates"]) == 2
    assert vendor.json("licenses", "show", id)["status"] == "active"
    calls = [target for _, _, target in vendor.transport.calls]  # type: ignore[union-attr]
    assert not [target for target in calls if license["key"] in target or "%20" in target]


def test_what_is_done_to_a_license(vendor: Vendor) -> None:
    license = sold(vendor, name="=1+1")
    id = license["id"]
    assert vendor.json("licenses", "suspend", id)["status"] == "suspended"
    assert vendor.json("licenses", "reinstate", id)["status"] == "active"
    assert vendor.json("licenses", "renew", id, "--days", "30")["expires_at"] > license["expires_at"]
    changed = vendor.json("licenses", "update", id, "--name", "none", "--metadata", '{"a": [1]}', "--max-uses", "7")
    assert (changed["name"], changed["metadata"], changed["max_uses"]) == (None, {"a": [1]}, 7)
    key = vendor.json("licenses", "reissue", id)["key"]
    assert vendor.json("licenses", "show", key)["id"] == id
    assert vendor.json("licenses", "check-in", id)["id"] == id
    machine = vendor.json("machines", "create", "--license", id, "--fingerprint", "pc-1", "--name", "Office")
    assert vendor.json("machines", "show", machine["id"])["alive"]
    assert vendor.json("machines", "update", machine["id"], "--platform", "Windows")["platform"] == "Windows"
    assert [one["id"] for one in vendor.json("machines", "list", "--license", key)] == [machine["id"]]
    assert vendor.ok("machines", "free", "--license", id, "--fingerprint", "pc-1") == "The seat is free.\n"
    assert "no such machine" in vendor.fails(4, "machines", "free", "--license", id)
    assert vendor.json("licenses", "ban", id, "--yes")["status"] == "banned"
    assert "final" in vendor.fails(1, "licenses", "reinstate", id)
    vendor.ok("licenses", "delete", id, "--yes")
    assert "no license" in vendor.fails(4, "licenses", "show", id)


def test_many_are_made_to_a_file_and_repeated_to_another(vendor: Vendor, tmp_path: Path) -> None:
    policy, file = sold(vendor)["policy"], tmp_path / "out.csv"
    arguments = ("licenses", "create", "--policy", policy, "--count", "502", "--request-id", f"batch-{policy}")
    assert "502 licenses were made" in vendor.ok(*arguments, "--csv", str(file))
    rows = rows_of(file)
    assert len({row["key"] for row in rows}) == 502
    assert tuple(rows[0]) == ("id", "key", "policy", "name", "email", "expires_at")
    assert "exists already" in vendor.fails(2, *arguments, "--csv", str(file))
    vendor.ok(*arguments, "--csv", str(tmp_path / "again.csv"))
    assert (tmp_path / "again.csv").read_bytes() == file.read_bytes()
    assert len(vendor.json("licenses", "list", "--policy", policy)) == 503
    vendor.ok("licenses", "list", "--policy", policy, "--csv", str(tmp_path / "list.csv"))
    assert len(rows_of(tmp_path / "list.csv")) == 503


def test_an_import_is_checked_whole_taken_once_and_exported_again(vendor: Vendor, tmp_path: Path) -> None:
    policy, file = sold(vendor)["policy"], tmp_path / "old.csv"
    keys = [f"old-{policy}-{number:04}" for number in range(1_100)]
    lines = [f"{key};Jos\u00e9 {number};{number + 1}" for number, key in enumerate(keys)]
    file.write_bytes("\r\n".join(["\ufeffkey;name;max_uses", *lines]).encode())
    bad = tmp_path / "bad.csv"
    bad.write_text("\n".join(["key;name;max_uses", *lines, f"{keys[3]};twice;1", "short;x;1", "new-key-0001;y;none"]))
    said = vendor.fails(1, "import", str(bad), "--policy", policy)
    assert [line.split(":")[0] for line in said.splitlines()[1:]] == ["line 1102", "line 1103", "line 1104"]
    assert "nothing was imported" in said
    for _ in range(2):
        assert vendor.json("import", str(file), "--policy", policy) == {"imported": 1_100}
    assert vendor.json("licenses", "show", keys[1_099])["name"] == "Jos\u00e9 1099"
    out = tmp_path / "export.ndjson"
    vendor.ok("export", "--out", str(out), "--format", "ndjson", "--with-hashes")
    exported = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len([row for row in exported if row["policy"] == policy]) == 1_101
    assert {"key_hash", "name"} <= exported[0].keys()
    assert vendor.ok("export").startswith("policy,status,")


def test_tokens_and_keys(vendor: Vendor, tmp_path: Path) -> None:
    made = vendor.json("tokens", "create", "--name", "colleague", "--scope", "licenses:read")
    lesser = Vendor([ONE], tmp_path, made["token"], vendor.transport)
    assert lesser.json("licenses", "list") is not None
    assert "licenses:write" in lesser.fails(5, "products", "create", "--code", "x", "--name", "x")
    assert made["id"] in vendor.ok("tokens", "list")
    assert vendor.ok("tokens", "revoke", "colleague") == "Revoked.\n"
    assert "token" in lesser.fails(5, "licenses", "list")
    foreign = generate()
    (tmp_path / "key.json").write_text(json.dumps(foreign.public_jwk))
    (tmp_path / "private.pem").write_text(foreign.pem())
    assert "private" in vendor.fails(2, "keys", "add", str(tmp_path / "private.pem"))
    assert vendor.json("keys", "add", str(tmp_path / "key.json"))["kid"] == foreign.kid
    assert "does not hold" in vendor.fails(1, "keys", "activate", foreign.kid)
    assert vendor.json("keys", "retire", foreign.kid[:12], "--yes")["status"] == "revoked"
    assert vendor.json("keys", "activate", _SPARE.kid)["status"] == "current"
    own = [key["kid"] for key in vendor.json("keys", "list") if key["status"] == "previous"]
    assert vendor.json("keys", "activate", own[0])["status"] == "current"
    assert foreign.kid in vendor.ok("keys", "list")


def test_what_goes_on(vendor: Vendor, tmp_path: Path) -> None:
    license = sold(vendor)
    assert vendor.json("stats")["licenses"]["total"] >= 1
    assert "leads" in vendor.ok("stats")
    (node,) = vendor.json("nodes", "list")
    assert node["id"] in vendor.ok("nodes", "list")
    assert "lease already" in vendor.fails(1, "switchover", node["id"])
    assert "no node" in vendor.fails(1, "nodes", "promote", "nobody")
    listed = vendor.json("events", "list", "--license", license["id"])
    assert [event["type"] for event in listed] == ["license.created"]
    assert len(vendor.json("events", "list", "--last", "2")) == 2
    vendor.ok("events", "list", "--last", "2", "--csv", str(tmp_path / "events.csv"))
    followed = vendor.ok("events", "follow", "--last", "2", "--count", "2", "--json").splitlines()
    assert [json.loads(line)["type"] for line in followed] == ["policy.created", "license.created"]
    assert "license.created" in vendor.ok("events", "follow", "--last", "1", "--count", "1")
    assert vendor.json("findings") == []
