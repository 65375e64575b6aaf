"""The command line for people: what names a license or a policy, what each option does, and how values are printed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from api.cli.output import cell
from api.cli.root import create_cli
from tests.support.cli import Cli, make_policy
from tests.support.nodes import environment

_PYTHON = re.compile(r"\b(None|True|False)\b|[{}']")


@pytest.fixture
def cli(sqlite_url: str, tmp_path: Path) -> Cli:
    return Cli(environment(sqlite_url, tmp_path))


def ours(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """All commands of `flask` that are ours, with their words."""
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            if path or name not in ("run", "shell", "routes"):
                yield from ours(each, (*path, name))
    else:
        yield path, command


def _said_of_argument(argument: click.Parameter, about: str) -> str:
    """What a command says, where that names the argument; an id needs no explanation."""
    name = (argument.metavar or argument.name or "").upper()
    return about if name in ("ID", "KID") or name in about else ""


def test_every_command_and_every_option_says_what_it_does() -> None:
    silent, seen = [], 0
    for path, command in ours(create_cli().cli):
        about = command.help or ""
        seen += 1
        if not about:
            silent.append(path)
        for parameter in command.params:
            said = parameter.help if isinstance(parameter, click.Option) else _said_of_argument(parameter, about)
            if len(said or "") < 10:
                silent.append((*path, parameter.name))
    assert silent == []
    assert seen > 40


def test_a_license_and_its_policy_are_named_by_what_people_know_of_them(cli: Cli) -> None:
    make_policy(cli.env, name="Édition Pro", max_machines=3, duration_days=30)
    flags = ("--name", "José Núñez", "--email", "Jose@Example.org", "--external-ref", "order-7")
    license = cli.json("license", "create", "--policy", "edition PRO", *flags)
    names = (
        license["id"],
        license["key"].lower(),
        license["key_hint"].lower(),
        "jose@example.org",
        "JOSÉ NUNEZ",
        "order-7",
    )
    for name in names:
        assert cli.json("license", "show", name)["id"] == license["id"], name
    assert cli.json("license", "renew", "jose@example.org", "--days", "3")["id"] == license["id"]
    assert (
        cli.json("license", "update", license["key_hint"], "--policy", "app/édition pro")["policy"] == license["policy"]
    )
    assert cli.json("license", "machines", "José Núñez") == []
    assert [one["id"] for one in cli.json("license", "list", "--policy", "Edition Pro")] == [license["id"]]
    assert [one["id"] for one in cli.json("license", "list", "--q", license["key"])] == [license["id"]]
    assert {each["license_id"] for each in cli.json("events", "list", "--license", "order-7")} == {license["id"]}
    assert cli.json("policy", "show", "edition pro")["id"] == license["policy"]
    assert cli.json("product", "update", "APP", "--name", "The App")["name"] == "The App"
    cli.ok("license", "delete", "order-7", "--yes")
    assert cli.json("license", "list") == []


def test_an_ambiguous_name_lists_the_candidates_and_changes_nothing(cli: Cli) -> None:
    make_policy(cli.env, name="Pro")
    first, second = (
        cli.json("license", "create", "--policy", "Pro", "--email", "ann@example.org", "--name", name) for name in "AB"
    )
    said = cli.fails("license", "ban", "ANN@example.org")
    assert said.index(second["id"]) < said.index(first["id"])
    assert "ann@example.org" in said
    assert {one["status"] for one in cli.json("license", "list")} == {"active"}
    assert "no such license" in cli.fails("license", "ban", "nobody")
    assert first["key"] not in cli.fails("license", "show", first["key"][:-1])


def test_a_limit_says_where_it_comes_from_and_nothing_is_printed_as_python_has_it(cli: Cli) -> None:
    make_policy(cli.env, name="Trio", max_machines=3)
    cli.ok("license", "create", "--policy", "Trio", "--metadata", '{"a": null, "b": true, "c": {"d": [1, null]}}')
    cli.ok("license", "create", "--policy", "Trio", "--max-machines", "5", "--entitlement", "pro")
    newest, oldest = cli.json("license", "list")
    shown = cli.ok("license", "show", newest["id"]), cli.ok("license", "show", oldest["id"])
    assert re.search(r"max_machines +5, its own\n", shown[0])
    assert re.search(r"entitlements +pro, its own\n", shown[0])
    assert re.search(r"max_machines +3, from its policy\n", shown[1])
    assert re.search(r"max_uses +unlimited, from its policy\n", shown[1])
    assert "a=-, b=yes, c=(d=(1, -))" in shown[1]
    table = cli.ok("license", "list")
    assert table.index("5, its own") < table.index("3, from its policy")
    said = [*shown, table, cli.ok("events", "list"), cli.ok("policy", "list"), cli.ok("policy", "show", "Trio")]
    said += [cli.ok("node", "show"), cli.ok("node", "stats"), cli.ok("token", "list"), cli.ok("keys", "list")]
    assert [text for text in said if _PYTHON.search(text)] == []


def test_lists_for_people_are_newest_first(cli: Cli) -> None:
    make_policy(cli.env, name="Pro")
    for name in ("one", "two"):
        cli.ok("token", "create", "--name", name, "--scope", "stats:read")
        cli.ok("license", "create", "--policy", "Pro", "--name", name)
    for command in (("token", "list"), ("license", "list")):
        printed = cli.ok(*command)
        assert printed.index(" two ") < printed.index(" one ")
    seqs = [int(line.split()[0]) for line in cli.ok("events", "list").splitlines()[1:]]
    assert seqs == sorted(seqs, reverse=True)
    assert [each["seq"] for each in cli.json("events", "list")] == seqs[::-1]
    assert [line.split()[0] for line in cli.ok("events", "list", "--limit", "2").splitlines()[1:]] == [
        str(seq) for seq in seqs[:2]
    ]


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (None, "-"),
        (True, "yes"),
        ([], "-"),
        ({}, "-"),
        (["a", None], "a, -"),
        ({"a": {"b": False}}, "a=(b=no)"),
        (1.5, "1.5"),
    ],
)
def test_a_value_is_printed_as_people_read_it(value: object, printed: str) -> None:
    assert cell(value) == printed
