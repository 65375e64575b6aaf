"""`license-admin` and its surroundings: servers that do not answer, settings, consoles, exit statuses."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.admin.csv_text import BROKEN_OFF
from license_admin.cli import program
from license_admin.errors import EXIT_STATUSES
from license_admin.session import Start
from license_client.transport import Reply
from tests.support.license_admin import InProcess, Vendor, refusing, sold
from tests.support.nodes import Node, node_on
from tests.support.processes import ROOT

ONE, TWO = "https://one.example", "https://two.example"
pytestmark = pytest.mark.usefixtures("own_folders")


@pytest.fixture(scope="module")
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with node_on("sqlite", request, tmp_path_factory.mktemp("node")) as node:
        yield node


# -- the walk ---------------------------------------------------------------------------------------------------------


def test_what_does_not_answer_is_passed_over_and_a_write_is_done_once(node: Node, tmp_path: Path) -> None:
    lost: list[str] = []

    def done_but_not_answered(method: str, target: str) -> Reply:
        """Does what is asked, and its answer is lost."""
        if method == "POST":
            lost.append(target)
        raise_timeout = refusing("timeout")
        transport.request(method, TWO + target, transport.bodies[-1], transport.heads[-1], 1.0, 1 << 20)
        return raise_timeout(method, target)

    class Recording(InProcess):
        def __init__(self, servers: Any) -> None:
            super().__init__(servers)
            self.bodies: list[bytes | None] = []
            self.heads: list[Any] = []

        def request(self, method: str, url: str, body: bytes | None, headers: Any, timeout: float, limit: int) -> Reply:
            self.bodies.append(body)
            self.heads.append(headers)
            return super().request(method, url, body, headers, timeout, limit)

    transport = Recording({ONE: done_but_not_answered, TWO: node})
    vendor = Vendor([ONE, TWO], tmp_path, transport=transport)
    made = vendor.json("products", "create", "--code", "walked", "--name", "Walked")
    assert lost == ["/v1/products"]
    assert [one["id"] for one in vendor.json("products", "list") if one["code"] == "walked"] == [made["id"]]
    assert len(set(transport.keys)) == 1
    vendor.environ["LICENSE_SERVERS"] = f"{ONE},{TWO}"
    (tmp_path / "XDG_STATE_HOME/protecao-license/license-admin-servers.json").unlink()
    vendor.ok("products", "delete", made["id"], "--yes")


@pytest.mark.parametrize(
    "reply",
    [
        Reply(503, b'{"code": "LEDGER_UNAVAILABLE"}'),
        Reply(502, b"<html>"),
        Reply(200, b"<html>"),
        Reply(404, b'{"message": "Application not found"}'),
        Reply(302, b""),
        Reply(429, b'{"code": "RATE_LIMITED"}'),
        Reply(404, b'{"code": "ROUTE_NOT_FOUND"}'),
        Reply(401, b"<html>"),
    ],
)
def test_only_a_nodes_own_answer_decides(node: Node, tmp_path: Path, reply: Reply) -> None:
    transport = InProcess({ONE: lambda method, target: reply, TWO: node})
    vendor = Vendor([ONE, TWO], tmp_path, transport=transport)
    done = vendor.run("nodes", "list", "--verbose")
    assert done.status == 0
    assert f"{ONE} did not answer: status {reply.status}" in done.err
    # The next command asks the one that answered first.
    vendor.ok("stats")
    assert transport.calls[-1][0] == TWO


def test_without_any_server_each_is_named_and_a_write_can_be_repeated(tmp_path: Path) -> None:
    transport = InProcess({ONE: refusing(), TWO: refusing("timeout")})
    vendor = Vendor([ONE, TWO], tmp_path, transport=transport)
    said = vendor.fails(3, "products", "create", "--code", "x", "--name", "x")
    assert f"{ONE}: refused" in said
    assert f"{TWO}: timeout" in said
    assert f"--request-id {transport.keys[0]}" in said
    assert len(transport.keys) == 6
    assert json.loads(vendor.fails(3, "stats", "--json"))["code"] == "NO_SERVER"


def test_an_export_that_broke_off_is_asked_for_again(node: Node, tmp_path: Path) -> None:
    broken = f"policy,status\r\nx,active\r\n{BROKEN_OFF}".encode()
    transport = InProcess({ONE: lambda method, target: Reply(200, broken), TWO: node})
    vendor = Vendor([ONE, TWO], tmp_path, transport=transport)
    assert "INCOMPLETE" not in vendor.ok("export")
    alone = Vendor([ONE], tmp_path, transport=transport)
    assert "broke off" in alone.fails(3, "export", "--out", str(tmp_path / "x.csv"))
    assert not (tmp_path / "x.csv").exists()


# -- settings, consoles, statuses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["cp1252", "cp850", "utf-8", "ascii"])
def test_any_console_shows_any_name(node: Node, tmp_path: Path, encoding: str) -> None:
    vendor = Vendor([ONE], tmp_path, transport=InProcess({ONE: node}), encoding=encoding)
    name = "Jo\u00e3o \u0141ukasz \u674e \U0001f600 [red]x[/red]"
    license = sold(vendor, name=name)
    assert "Jo" in vendor.ok("licenses", "list")
    assert "[red]x[/red]" in vendor.ok("licenses", "show", license["id"])
    assert vendor.json("licenses", "show", license["id"])["name"] == name
    assert license["id"] in vendor.ok("licenses", "list")


def test_settings_come_from_options_the_environment_and_a_file(node: Node, tmp_path: Path) -> None:
    transport = InProcess({ONE: node, TWO: node})
    vendor = Vendor([ONE], tmp_path, transport=transport)
    token = tmp_path / "token.txt"
    token.write_text(vendor.environ["LICENSE_ADMIN_TOKEN"] + "\r\n", encoding="utf-8-sig")
    nothing = Start(environ={}, transport=transport)
    assert vendor.run("stats", start=nothing).status == 2
    assert vendor.run("--server", TWO, "stats", start=Start(environ={}, transport=transport)).status == 2
    given = ("--server", TWO, "--token-file", str(token))
    assert vendor.run("stats", *given, start=Start(environ={}, transport=transport)).status == 0
    assert vendor.run(*given, "stats", start=Start(environ={}, transport=transport)).status == 0
    assert transport.calls[-1][0] == TWO
    assert vendor.run("configure", *given, start=Start(environ={}, transport=transport)).status == 0
    written = tmp_path / "XDG_CONFIG_HOME/protecao-license/license-admin.toml"
    assert written.stat().st_mode & 0o077 == 0
    assert vendor.run("stats", start=Start(environ={}, transport=transport)).status == 0
    assert "https" in vendor.fails(2, "stats", "--server", "http://example.com")
    assert "characters" in Vendor([ONE], tmp_path, "a\u00e9", transport).fails(2, "stats")
    written.write_text('server = "x"\n', encoding="utf-8")
    assert "server is not a setting" in vendor.fails(2, "stats")


def test_no_option_takes_a_token_and_every_option_and_command_has_help() -> None:
    def walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
        yield path, command
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, f"{path} {name}")

    seen = 0
    for path, command in walk(program, "license-admin"):
        assert command.help, path
        for param in command.params:
            if param.param_type_name == "option":
                assert param.help, (path, param.name)
                assert "--token" not in param.opts, path
                seen += 1
    assert seen > 200


def test_each_exit_status_is_in_the_help(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vendor = Vendor([ONE], tmp_path, transport=InProcess({ONE: node}))
    text, documented = vendor.ok("--help"), (ROOT / "docs" / "admin.md").read_text(encoding="utf-8")
    assert [name for name in program.commands if f"`{name}" not in documented and f" `{name}`" not in documented] == []
    for status, meaning in EXIT_STATUSES.items():
        assert f"{status:>3}  {meaning}" in text
        assert f"\n| {status} | " in documented
    assert vendor.run("no-such-command").status == 2
    assert vendor.run("licenses", "create").status == 2
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert vendor.run("licenses", "ban", sold(vendor)["id"]).status == 130
