"""Licenses from files and to files: spreadsheets of many kinds, all of a file or none of it."""

from __future__ import annotations

import csv
import stat
import time
from pathlib import Path

import click
import pytest

from api.cli.license_files import read_rows
from tests.support.cli import Cli, make_policy
from tests.support.nodes import environment, running_node

#: It takes a second where nothing else runs.
_SECONDS_FOR_10_000 = 30.0


@pytest.fixture
def cli(sqlite_url: str, tmp_path: Path) -> Cli:
    return Cli(environment(sqlite_url, tmp_path))


@pytest.fixture
def policy(cli: Cli) -> str:
    return str(make_policy(cli.env)["id"])


def test_imported_keys_are_valid_and_kept_as_hashes_only(
    cli: Cli, policy: str, sqlite_url: str, tmp_path: Path
) -> None:
    assert "1 licenses" in cli.ok("license", "import", "-", input=f"policy,key\n{policy},LEGACY-KEY-0001\n")
    with running_node(sqlite_url, tmp_path) as node:
        assert node.call("validate", "LEGACY-KEY-0001", product="app").code == "VALID"
    written = [path.read_bytes() for path in tmp_path.iterdir() if path.is_file()]
    assert written
    assert not any(b"LEGACY-KEY-0001" in content for content in written)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "with a mark"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_a_spreadsheet_of_any_kind_is_read(mark: bytes, separator: str, ends: str) -> None:
    lines = [
        ["Policy", " key", "name"],
        ["p", "k-1", '"Miller; ""Sons"", Ltd"'],
        ["", "", ""],
        ["p", "k-2", '"a\nb"'],
        ["p", "k-3", ""],
    ]
    raw = mark + ends.join(separator.join(cells) for cells in lines).encode()
    rows = read_rows(raw)
    assert [row.cells for row in rows] == [
        {"policy": "p", "key": "k-1", "name": 'Miller; "Sons", Ltd'},
        {"policy": "p", "key": "k-2", "name": "a\nb"},
        {"policy": "p", "key": "k-3", "name": ""},
    ]
    assert [row.line for row in rows] == [2, 5, 6]


def test_every_bad_row_is_named_by_its_line_and_nothing_is_taken(cli: Cli, policy: str) -> None:
    rows = [
        "policy;key;email;max_machines",
        f"{policy};GOOD-KEY-0001;ann@example.org;3",
        f"{policy};short;;",
        f"{policy};GOOD-KEY-0002;nobody;",
        "",
        f"{policy};GOOD-KEY-0003;;many",
        f";{'GOOD-KEY-0004'};;",
    ]
    said = cli.fails("license", "import", "-", input="\r\n".join(rows))
    named = [line.split(":")[:2] for line in said.splitlines()[1:]]
    assert named == [["line 3", " key"], ["line 4", " email"], ["line 6", " max_machines"], ["line 7", " policy"]]
    assert cli.json("license", "list") == []


def test_keys_and_policies_that_cannot_be_are_named_too(cli: Cli, policy: str) -> None:
    rows = [
        "policy,key",
        f"{policy},THE-SAME-KEY",
        f"{policy},ANOTHER-KEY",
        f"{policy},THE-SAME-KEY",
        f"{policy},ANOTHER-KEY",
    ]
    said = cli.fails("license", "import", "-", input="\n".join(rows))
    assert [line.split(":")[0] for line in said.splitlines()[1:]] == ["line 4", "line 5"]
    rows = ["policy,key", "nobody,KEY-OF-NOBODY", f"{policy},ANOTHER-KEY", "no-one,KEY-OF-NO-ONE"]
    said = cli.fails("license", "import", "-", input="\n".join(rows))
    assert [line.split(":")[0] for line in said.splitlines()[1:]] == ["line 2", "line 4"]
    cli.ok("license", "import", "-", input=f"policy,key\n{policy},THE-SAME-KEY\n")
    said = cli.fails("license", "import", "-", input=f"policy,key\n{policy},A-NEW-KEY-1\n{policy},THE-SAME-KEY\n")
    assert "line 3: key: is another license's" in said
    assert len(cli.json("license", "list")) == 1


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "line 1"),
        (b"policy,key,colour\n", "line 1: these are no columns of a license: colour"),
        (b"policy,key,key\n", "line 1: a column is named twice"),
        (b"policy,key\np,k\np,k,more\np\n", "line 3: has 3 cells, and the first line has 2\nline 4: has 1"),
        (b"policy,key\np,caf\xe9\n", "line 2: the file is not UTF-8"),
        (b'policy,key\np,"open\n', "line 2: unexpected end of data"),
    ],
)
def test_a_file_that_is_no_table_is_refused_with_its_line(raw: bytes, says: str) -> None:
    with pytest.raises(click.ClickException) as refused:
        read_rows(raw)
    assert says in refused.value.message


def test_ten_thousand_rows_are_taken_in_seconds(cli: Cli, policy: str) -> None:
    rows = ["policy,key,name"] + [f"{policy},LEGACY-{number:08d},Customer {number}" for number in range(10_000)]
    began = time.monotonic()
    assert "10000 licenses" in cli.ok("license", "import", "-", input="\n".join(rows))
    assert time.monotonic() - began < _SECONDS_FOR_10_000


def test_an_export_holds_no_key_and_no_formula(cli: Cli, policy: str, tmp_path: Path) -> None:
    license = cli.json("license", "create", "--policy", policy, "--name", "=1+1")
    file = tmp_path / "licenses.csv"
    cli.ok("license", "export", "--csv", str(file))
    (row,) = csv.DictReader(file.read_text().splitlines())
    assert row["key_hint"] == license["key"][-4:]
    assert row["name"] == "'=1+1"
    assert "key" not in row
    assert "key_hash" not in row
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "exists already" in cli.fails("license", "export", "--csv", str(file))


def test_an_export_with_hashes_moves_licenses_to_another_ledger(
    cli: Cli, policy: str, postgres_url: str, tmp_path: Path
) -> None:
    license = cli.json(
        "license", "create", "--policy", policy, "--name", "@ann", "--entitlement", "a;b", "--metadata", '{"n": 1}'
    )
    exported = cli.ok("license", "export", "--with-hashes")
    there = Cli(environment(postgres_url, tmp_path / "there"))
    moved = make_policy(there.env)["id"]
    there.ok("license", "import", "-", input=exported.replace(policy, moved))
    (found,) = there.json("license", "list")
    kept = ("name", "entitlements", "metadata", "key_hint", "created_at", "status")
    assert {name: found[name] for name in kept} == {name: license[name] for name in kept}
    with running_node(postgres_url, tmp_path / "there") as node:
        assert node.call("validate", license["key"], product="app").code == "VALID"
