"""The guide's three hosts and PythonAnywhere as one cluster on one Postgres, and the cluster of compose.yaml.

Each node is started in a clean folder by the command of its host's file, in the environment that its host makes.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.cli.secrets import render_dotenv
from api.config.secret_files import generate_secrets
from api.config.settings import Settings
from tests.journeys.deployed import Deployed, answers, checkout, on, sell
from tests.journeys.hosts import HOSTS
from tests.support import host_files
from tests.support.cluster import Json
from tests.support.nodes import Sold
from tests.support.processes import free_port, until

_BEATS_S = 30.0


@contextlib.contextmanager
def closing_all(members: list[Deployed]) -> Iterator[list[Deployed]]:
    try:
        yield members
    finally:
        for member in members:
            member.close()


def beating(member: Deployed, count: int) -> Json:
    """Its `/stats`, as soon as so many nodes beat and one of them leads."""

    def seen() -> Json | None:
        stats = member.stats()
        return stats if len(stats["nodes"]) == count and stats["lease"]["holder"] else None

    stats = until(seen, f"{count} nodes beat", _BEATS_S)
    assert stats is not None
    return stats


@pytest.mark.slow
def test_the_guides_hosts_and_a_host_without_threads_are_one_cluster(empty_postgres_url: str, tmp_path: Path) -> None:
    secrets = generate_secrets().settings()
    with closing_all([]) as members:
        clone = checkout(tmp_path / "clone")
        for rank, host in enumerate(HOSTS, 1):
            folder = checkout(tmp_path / host.name) if host.supervisor else clone  # its settings are in a .env
            members.append(on(host, folder, empty_postgres_url, secrets, rank))
        for member in members:
            member.ready()
        stats = beating(members[0], len(HOSTS))
        said = [(node["rank"], node["id"], node["url"]) for node in stats["nodes"]]
        assert said == [(rank, *host.says(rank)[:2]) for rank, host in enumerate(HOSTS, 1)]
        for member, host in zip(members, HOSTS, strict=True):
            own = Settings.from_env({**member.env, **secrets, "DATABASE_URL": empty_postgres_url})
            assert (own.node_id, own.node_url, own.node_region) == host.says(member.rank)
        sold = sell(members[0])
        assert [answers(member, sold) for member in members] == ["VALID"] * len(HOSTS)
        has_one_supervisor_only(members[-1])
        a_deploy_hands_the_lease_on(members[0], members[1])
        says_when_its_supervisor_is_gone(members[-1], sold)


def has_one_supervisor_only(member: Deployed) -> None:
    second = member.started("flask node run-supervisor")
    try:
        assert second.wait() == 1
        assert "has a supervisor already" in second.output()
    finally:
        second.kill_tree()


def a_deploy_hands_the_lease_on(leader: Deployed, other: Deployed) -> None:
    until(lambda: leader.stats()["node"]["role"] == "primary", "rank 1 leads", _BEATS_S)
    leader.server.signal_all()
    leader.server.wait()
    until(lambda: other.stats()["node"]["role"] in ("primary", "backup"), "rank 2 leads", _BEATS_S)


def says_when_its_supervisor_is_gone(member: Deployed, sold: Sold) -> None:
    assert member.task is not None
    assert member.task.stop() == 0
    [trouble] = until(lambda: member.server.get("/readyz").json()["troubles"], "a trouble", _BEATS_S)
    assert "run-supervisor" in trouble
    assert answers(member, sold) == "VALID", "it serves on, from the ledger"


@pytest.mark.slow
def test_the_cluster_of_compose_yaml_serves_with_the_environment_that_it_gives(
    empty_postgres_url: str, tmp_path: Path
) -> None:
    made = host_files.dotenv(render_dotenv(generate_secrets()))
    names, image = ("one", "two", "three"), checkout(tmp_path / "image")
    with closing_all([]) as members:
        for rank, name in enumerate(names, 1):
            environ = host_files.compose_environment(name, made)
            assert environ["DATABASE_URL"].endswith("@postgres:5432/protecao")
            environ["DATABASE_URL"] = empty_postgres_url  # the service `postgres` of the test
            members.append(Deployed(host_files.image_command(), image, made, rank, environ))
        for member in members:
            member.server.wait_until_answers("/readyz", 90)
        stats = beating(members[0], 3)
        said = [(node["id"], node["url"]) for node in stats["nodes"]]
        assert said == [(name, f"http://{name}:5000") for name in names]
        sold = sell(members[0])
        assert [answers(member, sold) for member in members] == ["VALID"] * 3
        assert [member.server.get("/readyz").json()["troubles"] for member in members] == [[], [], []]
        assert health(members[0].server.port) == 0
        assert health(free_port()) != 0, "nobody answers there"


def health(port: int) -> int:
    """The exit status of the image's health check where the node is to listen at `port`."""
    program, *arguments = host_files.image_healthcheck()
    assert program == "python"
    return subprocess.run([sys.executable, *arguments], env={"PORT": str(port)}, capture_output=True).returncode
