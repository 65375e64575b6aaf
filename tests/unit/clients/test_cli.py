"""The command line: settings from three places, exit statuses, and what is printed."""

from __future__ import annotations

import io
import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from license_client import cli, config
from tests.unit.clients.support import (
    FINGERPRINT,
    KEY,
    NOW,
    PRODUCT,
    SERVERS,
    STRANGER,
    VENDOR,
    Clock,
    Servers,
    client_of,
    denies,
    gone,
    lease,
    says,
)
from tests.vectors import jws

Printed = pytest.CaptureFixture[str]


class Desk:
    """Runs commands over servers without sockets; the settings are read as ever."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.clock, self.servers = folder, Clock(), Servers(says(token=lease()))
        (folder / "keys.json").write_text(json.dumps({"keys": [jws.jwk_of(VENDOR)]}))
        self.file = folder / "license-client.toml"
        self.settings(servers=[SERVERS[0]], product=PRODUCT, public_keys=["keys.json"], fingerprint=FINGERPRINT)
        monkeypatch.setenv("LICENSE_KEY", KEY)
        for name in ("LICENSE_API_KEY", "LICENSE_SHARED_SECRET"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(config, "LicenseClient", self._client)
        self.given: dict[str, Any] = {}

    def settings(self, **members: Any) -> None:
        # A JSON text and a JSON list of texts are TOML as well.
        self.file.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in members.items()))

    def run(self, *arguments: str) -> int:
        return cli.main([*arguments, "--config", str(self.file)])

    def _client(self, **given: Any) -> Any:
        self.given = given
        return client_of(self.servers, self.folder, self.clock, **given)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (["validate", "--version", "1.0", "--entitlement", "pro", "--entitlement", "studio"], "/v1/validate"),
        (["activate", "--name", "Desk", "--request-id", "request-0001"], "/v1/activate"),
        (["deactivate"], "/v1/deactivate"),
        (["ping"], "/v1/ping"),
        (["check-in"], "/v1/check-in"),
        (["usage", "--increment", "5"], "/v1/usage"),
        (["checkout", "--ttl", "600"], "/v1/checkout"),
    ],
)
def test_each_command_makes_its_call(arguments: list[str], path: str, desk: Desk, capsys: Printed) -> None:
    assert desk.run(*arguments) == cli.VALID
    assert [sent[0] for sent in desk.servers.sent] == [path]
    assert "code           VALID" in capsys.readouterr().out


def test_exit_statuses(desk: Desk) -> None:
    assert desk.run("validate") == 0
    desk.servers.behave[SERVERS[0]] = denies("OVERDUE")
    assert desk.run("validate") == 1
    desk.servers.behave[SERVERS[0]] = gone()
    assert desk.run("validate") == 0
    assert desk.run("usage") == 3
    desk.clock.now = NOW - 301
    assert desk.run("validate") == 4
    desk.clock.now = NOW + 604_800
    assert desk.run("validate") == 4
    desk.servers.behave[SERVERS[0]] = denies("BANNED", at=NOW + 604_800)
    assert desk.run("validate") == 1
    desk.servers.behave[SERVERS[0]] = gone()
    assert desk.run("validate") == 3
    assert desk.run("usage", "--increment", "0") == 2


def test_json_is_the_whole_result(desk: Desk, capsys: Printed) -> None:
    desk.run("validate", "--json")
    shown = json.loads(capsys.readouterr().out)
    assert (shown["valid"], shown["code"], shown["server"]) == (True, "VALID", SERVERS[0])
    assert shown["expires"] == "2025-12-24T16:00:00Z"


def test_who_was_tried_is_printed(desk: Desk, capsys: Printed) -> None:
    desk.servers.behave[SERVERS[0]] = gone()
    desk.run("validate")
    assert f"tried          {SERVERS[0]}: refused" in capsys.readouterr().out


def test_status_asks_no_server(desk: Desk, capsys: Printed) -> None:
    assert desk.run("status") == 3
    desk.run("validate")
    desk.servers.asked.clear()
    capsys.readouterr()
    assert desk.run("status", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["code"], shown["floor"], shown["servers"]) == ("OFFLINE_VALID", NOW, [SERVERS[0]])
    assert desk.servers.asked == []


# -- verify -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["bare", "answer", "saved", "stdin"])
def test_verify_takes_a_token_in_any_form(
    form: str, desk: Desk, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = desk.folder / "given"
    if form == "saved":
        desk.run("validate")
        (file,) = (desk.folder / "state").glob("*.lease.json")
    else:
        file.write_text(json.dumps({"token": lease()}) if form == "answer" else lease() + "\n")
    monkeypatch.setattr("sys.stdin", io.StringIO(lease()))
    capsys.readouterr()
    assert desk.run("verify", "-" if form == "stdin" else str(file), "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["valid"], shown["exp"], shown["aud"]) == (True, "2025-12-01T16:00:00Z", PRODUCT)


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (lease(private=STRANGER), "kid"),
        (lease(fp="0000"), "fp"),
        (lease(at=NOW - 604_800), "expired"),
        ("x", "truncated"),
    ],
)
def test_verify_says_what_is_wrong(token: str, reason: str, desk: Desk, capsys: Printed) -> None:
    (desk.folder / "given").write_text(token)
    assert desk.run("verify", str(desk.folder / "given"), "--json") == 4
    assert json.loads(capsys.readouterr().out) == {"valid": False, "reason": reason}


@pytest.mark.parametrize("text", ['{"token": null}', "[]", None])
def test_verify_of_no_token_is_misuse(text: str | None, desk: Desk, capsys: Printed) -> None:
    if text is not None:
        (desk.folder / "given").write_text(text)
    assert desk.run("verify", str(desk.folder / "given")) == 2
    assert capsys.readouterr().err.startswith("license-client: ")


# -- settings ---------------------------------------------------------------------------------------------------------


def test_options_win_over_the_environment_and_that_over_the_file(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"servers": [SERVERS[0]], "product": PRODUCT, "public_keys": ["keys.json"], "fingerprint": FINGERPRINT}
    desk.settings(**given, key="from-the-file", api_key="from-the-file", shared_secret="from-the-file")
    monkeypatch.setenv("LICENSE_API_KEY", "from-the-environment")
    desk.run("validate", "--key", KEY)
    assert desk.given["key"] == KEY
    assert desk.given["api_key"] == "from-the-environment"
    assert desk.given["shared_secret"] == "from-the-file"


def test_paths_in_the_file_are_the_files_neighbours(desk: Desk) -> None:
    given = {"servers": [SERVERS[0]], "product": PRODUCT, "public_keys": ["keys.json"], "state_dir": "kept"}
    desk.settings(**given, fingerprint=FINGERPRINT)
    desk.run("validate")
    assert desk.given["state_dir"] == desk.folder / "kept"


def test_keys_may_be_pem_in_a_file_or_in_the_settings(desk: Desk) -> None:
    pem = VENDOR.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (desk.folder / "key.pem").write_bytes(pem)
    assert desk.run("validate", "--public-key", str(desk.folder / "key.pem")) == 0
    given = {"servers": [SERVERS[0]], "product": PRODUCT, "fingerprint": FINGERPRINT}
    desk.settings(**given, public_keys=[pem.decode()])
    assert desk.run("validate") == 0


def test_without_a_fingerprint_there_is_one_of_this_machine(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "machine_fingerprint", lambda salt: f"this machine and {salt}")
    desk.settings(servers=[SERVERS[0]], product=PRODUCT, public_keys=["keys.json"])
    desk.run("validate")
    assert desk.given["fingerprint"] == f"this machine and {PRODUCT}"


def test_a_fingerprint_can_be_left_out(desk: Desk) -> None:
    desk.run("validate", "--no-fingerprint")
    assert "fingerprint" not in desk.given


WRONG: dict[str, dict[str, Any]] = {
    "servers: is not set": {"product": PRODUCT},
    "product: is not set": {"servers": [SERVERS[0]]},
    "public_keys: is not set": {"servers": [SERVERS[0]], "product": PRODUCT},
    "colour is not a setting": {"colour": "red"},
    "servers must be a list": {"servers": SERVERS[0]},
    "product must be a text": {"product": 5},
    "nowhere.json cannot be read": {"servers": [SERVERS[0]], "product": PRODUCT, "public_keys": ["nowhere.json"]},
    "holds neither PEM nor": {"servers": [SERVERS[0]], "product": PRODUCT, "public_keys": ["license-client.toml"]},
}


@pytest.mark.parametrize(("says_so", "settings"), WRONG.items(), ids=WRONG.keys())
def test_wrong_settings_are_named(says_so: str, settings: dict[str, Any], desk: Desk, capsys: Printed) -> None:
    desk.settings(**settings)
    assert desk.run("validate") == cli.MISUSED
    assert says_so in capsys.readouterr().err


def test_a_file_that_is_no_toml_is_named(desk: Desk, capsys: Printed) -> None:
    desk.file.write_text("= 5")
    assert desk.run("validate") == cli.MISUSED
    assert "license-client.toml" in capsys.readouterr().err


def test_without_any_file_nothing_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert config.gathered(Namespace(config=None, product="x"), {"LICENSE_KEY": ""}) == {"product": "x"}


def test_the_statuses_are_those_of_the_help(capsys: Printed) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    shown = capsys.readouterr().out
    assert all(
        f"\n  {status}  " in shown for status in (cli.VALID, cli.DENIED, cli.MISUSED, cli.NO_SERVER, cli.REFUSED)
    )
