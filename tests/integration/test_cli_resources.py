"""Products, policies, licenses and tokens from the command line."""

from __future__ import annotations

import csv
import json
import stat
from pathlib import Path

import pytest

from api.admin.kinds import Kind
from api.admin.schemas import BODIES, LicenseBody, PolicyBody
from api.cli.context import context_of
from api.cli.root import create_cli
from api.config.settings import Settings
from tests.support.cli import Cli, Program, make_policy
from tests.support.nodes import environment, running_node
from tests.support.processes import free_port


@pytest.fixture
def cli(sqlite_url: str, tmp_path: Path) -> Cli:
    return Cli(environment(sqlite_url, tmp_path))


def test_a_shop_is_set_up_from_nothing_and_its_first_license_is_valid(tmp_path: Path) -> None:
    cli = Program({"DATA_DIR": str(tmp_path / "new")})
    product = cli.json("product", "create", "--code", "app", "--name", "App")
    policy = cli.json(
        "policy", "create", "--product", "app", "--name", "Pro", "--max-machines", "3", "--entitlement", "a"
    )
    license = cli.json("license", "create", "--policy", policy["id"], "--email", "ann@example.org")
    assert cli.json("product", "list") == [product]
    assert (policy["max_machines"], policy["entitlements"]) == (3, ["a"])
    secrets = json.loads((tmp_path / "new/secrets.json").read_text())
    with running_node(
        f"sqlite:///{tmp_path}/new/protecao.db", tmp_path / "new", SIGNING_KEY=secrets["SIGNING_KEY"]
    ) as node:
        here = {"product": "app", "fingerprint": "here"}
        assert node.call("activate", license["key"], **here).code == "VALID"
        assert node.call("validate", license["key"], entitlements=["a"], **here).code == "VALID"
        assert node.call("validate", license["key"], product="app").code == "FINGERPRINT_SCOPE_REQUIRED"


def test_the_command_line_works_on_postgres(postgres_url: str, tmp_path: Path) -> None:
    cli = Program(environment(postgres_url, tmp_path))
    policy = make_policy(cli.env)
    license = cli.json("license", "create", "--policy", policy["id"])
    assert [one["id"] for one in cli.json("license", "list", "--policy", policy["id"])] == [license["id"]]
    assert "Seats and log agree." in cli.ok("db", "check")


def test_a_table_is_printed_for_people(cli: Cli) -> None:
    cli.ok("product", "create", "--code", "app", "--name", "The App")
    head, row = cli.ok("product", "list").splitlines()
    assert head.split() == ["id", "code", "name", "created_at"]
    assert "  app   The App  " in row


@pytest.mark.parametrize(("group", "body"), [("policy", PolicyBody), ("license", LicenseBody)])
def test_every_field_that_the_interface_takes_is_an_option(group: str, body: type) -> None:
    commands = create_cli().cli.commands[group].commands
    for name in ("create", "update"):
        options = {parameter.name for parameter in commands[name].params}
        assert set(body.__struct_fields__) - options <= ({"key"} if (group, name) == ("license", "update") else set())


def test_create_asks_for_what_the_interface_requires() -> None:
    groups = create_cli().cli.commands
    for kind in (Kind.PRODUCT, Kind.POLICY, Kind.LICENSE):
        parameters = groups[kind].commands["create"].params
        assert {one.name for one in parameters if one.required} == set(BODIES[kind].REQUIRED)


def test_an_update_changes_what_is_named_and_none_means_null(cli: Cli) -> None:
    policy = make_policy(cli.env, max_machines=3, entitlements=["a"], duration_days=30)
    flags = ("--max-machines", "none", "--entitlement", "none", "--floating", "--overage", "none")
    changed = cli.json("policy", "update", policy["id"], *flags)
    expected = {"max_machines": None, "entitlements": [], "floating": True, "overage": "none", "duration_days": 30}
    assert {name: changed[name] for name in expected} == expected
    assert cli.json("policy", "show", policy["id"]) == changed


def test_a_license_goes_through_its_actions(cli: Cli) -> None:
    license = cli.json("license", "create", "--policy", make_policy(cli.env, duration_days=30)["id"])
    assert cli.json("license", "suspend", license["id"])["status"] == "suspended"
    assert cli.json("license", "reinstate", license["id"])["status"] == "active"
    assert cli.json("license", "renew", license["id"], "--days", "10")["expires_at"] > license["expires_at"]
    assert cli.json("license", "reissue", license["id"])["key"] != license["key"]
    cli.ok("license", "check-in", license["id"])
    assert cli.json("license", "ban", license["id"])["status"] == "banned"
    assert "the license is banned, which is final" in cli.fails("license", "reinstate", license["id"])
    types = [event["type"] for event in cli.json("events", "list", "--license", license["id"])]
    actions = ["created", "suspended", "reinstated", "renewed", "reissued", "checked-in", "banned"]
    assert types == [f"license.{action}" for action in actions]


def test_a_deletion_asks_first(cli: Cli) -> None:
    policy = make_policy(cli.env)
    cli.fails("policy", "delete", policy["id"], input="n\n")
    assert len(cli.json("policy", "list")) == 1
    cli.ok("policy", "delete", policy["id"], "--yes")
    assert cli.json("policy", "list") == []


def test_a_list_is_taken_to_its_last_page_or_to_its_limit(cli: Cli) -> None:
    policy = make_policy(cli.env)
    cli.ok("license", "create", "--policy", policy["id"], "--count", "230")
    assert len({one["id"] for one in cli.json("license", "list")}) == 230
    assert len(cli.json("license", "list", "--limit", "130")) == 130


def test_the_machines_of_a_license_are_listed(sqlite_url: str, tmp_path: Path) -> None:
    cli = Cli(environment(sqlite_url, tmp_path))
    license = cli.json("license", "create", "--policy", make_policy(cli.env)["id"])
    with running_node(sqlite_url, tmp_path) as node:
        node.call("activate", license["key"], fingerprint="this-pc", name="Ann's")
    (machine,) = cli.json("license", "machines", license["id"])
    assert (machine["fingerprint"], machine["name"], machine["alive"]) == ("this-pc", "Ann's", True)
    assert "there is no such license" in cli.fails("license", "machines", "nobody")


def test_many_keys_go_to_a_new_file_that_only_its_owner_reads(cli: Cli, tmp_path: Path) -> None:
    policy, file = make_policy(cli.env)["id"], tmp_path / "out.csv"
    printed = cli.ok("license", "create", "--policy", policy, "--count", "500", "--csv", str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    keys = {row["key"] for row in csv.DictReader(file.read_text().splitlines())}
    assert len(keys) == 500
    assert not any(key in printed for key in keys)
    before = file.read_bytes()
    assert "exists already" in cli.fails("license", "create", "--policy", policy, "--csv", str(file))
    assert file.read_bytes() == before
    assert len(cli.json("license", "list")) == 500


def test_no_file_is_left_where_no_license_was_made(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "out.csv"
    assert "policy" in cli.fails("license", "create", "--policy", "nobody", "--count", "5", "--csv", str(file))
    assert not file.exists()


def test_a_token_is_shown_once_and_can_be_revoked(cli: Cli) -> None:
    made = cli.json("token", "create", "--name", "grafana", "--scope", "stats:read")
    assert made["token"] not in cli.ok("token", "list", "--json")
    assert [one["id"] for one in cli.json("token", "list")] == [made["id"]]
    cli.ok("token", "revoke", made["id"])
    assert cli.json("token", "list") == []
    assert "stats:read" in cli.fails("token", "create", "--name", "x", "--scope", "everything")


def test_events_come_as_a_table_as_json_and_as_csv(cli: Cli) -> None:
    make_policy(cli.env)
    assert [line.split()[2] for line in cli.ok("events", "list").splitlines()] == [
        "type",
        "policy.created",
        "product.created",
    ]
    assert [event["seq"] for event in cli.json("events", "list", "--type", "policy.created")] == [2]
    assert cli.json("events", "list", "--type", "nothing") == []
    (row,) = csv.DictReader(cli.ok("events", "list", "--csv", "--limit", "1").splitlines())
    assert (row["seq"], row["type"]) == ("1", "product.created")
    assert "since: must be RFC 3339" in cli.fails("events", "list", "--since", "yesterday")


def test_a_node_shows_what_its_settings_make_it(cli: Cli) -> None:
    cli.env["NODE_ID"] = "railway-1"
    assert cli.json("node", "list") == []
    own = cli.json("node", "show")
    assert (own["id"], own["rank"], own["disk"]) == ("railway-1", 1, own["disk"])
    assert "no node of this id" in cli.fails("node", "show", "nobody")


def test_all_faulty_settings_are_named_with_exit_status_2(cli: Cli) -> None:
    said = Program(cli.env | {"PORT": "x", "RATE_LIMIT": "often"}).fails("product", "list", status=2)
    assert "PORT: " in said
    assert "RATE_LIMIT: " in said


def test_a_ledger_out_of_reach_is_said_with_exit_status_1(tmp_path: Path) -> None:
    env = environment(f"postgresql://nobody:secret-word@127.0.0.1:{free_port()}/nothing", tmp_path)
    said = Program(env).fails("license", "list")
    assert "the ledger cannot be reached" in said
    assert "secret-word" not in said


def test_secrets_are_made_where_the_settings_are_still_missing() -> None:
    printed = Program({"DATABASE_URL": "postgresql://shared.example/ledger"}).ok("secrets")
    for name in ("API_KEY=", "SHARED_SECRET=", "ADMIN_TOKEN=", "SIGNING_KEY=", "SPARE_SIGNING_KEY="):
        assert f"\n{name}" in printed


def test_the_secrets_of_compose_are_written_without_the_spare_key(cli: Cli, tmp_path: Path) -> None:
    assert "offline" not in cli.ok("secrets", "--dotenv", "--out", str(tmp_path / ".env"))
    text = (tmp_path / ".env").read_text()
    assert "\nPOSTGRES_PASSWORD=" in text
    assert "SPARE" not in text


def test_a_seat_is_freed(cli: Cli) -> None:
    license = cli.json("license", "create", "--policy", make_policy(cli.env, max_machines=1)["id"])
    with context_of(Settings.from_env(cli.env)) as context:
        machine = context.resources.create(Kind.MACHINE, {"license": license["id"], "fingerprint": "here"})
    cli.ok("license", "free", machine["id"])
    assert cli.json("license", "machines", license["id"]) == []
    assert "no such machine" in cli.fails("license", "free", machine["id"])
