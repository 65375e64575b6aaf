"""The file that each host reads: its structure, as the host documents it, and that all of them make the same node.

Structure as documented in 2026-12: docs.railway.com/config-as-code, render.com/docs/blueprint-spec,
fly.io/docs/reference/configuration. compose.yaml is held against the schema of the compose specification, which the
package check-jsonschema carries. SchemaStore's schema for fly.toml still has `auto_stop_machines` as a boolean.
"""

from __future__ import annotations

import json
import re
from importlib.metadata import files

import jsonschema_rs
import pytest

from api.cli.secrets import render_dotenv
from api.config.secret_files import SECRET_NAMES, generate_secrets
from api.config.settings import Settings
from tests.support import host_files
from tests.support.processes import ROOT

#: How long a node may take to end: notice, draining, its queue (`ServerOptions`, and the supervisor's last deliveries).
_ENDS_WITHIN_S = 0.5 + 10 + 8
_NODES = ("one", "two", "three")
_FROM = f"python:{host_files.python_version()}-slim-bookworm"


# -- the same node everywhere -----------------------------------------------------------------------------------------


def test_every_host_starts_the_same_command() -> None:
    shell, option, command = host_files.image_command()
    assert (shell, option) == ("sh", "-c")
    assert command.replace("exec ", "") == host_files.procfile() == host_files.render()["startCommand"]
    # Railway's own would go before the Procfile and the image's command, and is run without a shell.
    assert "startCommand" not in host_files.railway()["deploy"]
    assert "processes" not in host_files.fly()


def test_every_host_builds_with_the_same_python_and_the_same_packages() -> None:
    assert [stage[0].rest.split(" ")[0] for stage in host_files.dockerfile()] == [_FROM, _FROM]
    settings = {one["key"]: one for one in host_files.render()["envVars"]}
    assert settings["PYTHON_VERSION"]["value"] == host_files.python_version()
    assert host_files.render()["buildCommand"] == "pip install -r requirements.txt"
    assert re.search(r"pip install .*-r /tmp/requirements\.txt", host_files.read("Dockerfile"))


def test_every_host_checks_the_path_that_touches_nothing() -> None:
    [check] = host_files.fly()["http_service"]["checks"]
    paths = (host_files.railway()["deploy"]["healthcheckPath"], host_files.render()["healthCheckPath"], check["path"])
    assert paths == ("/livez",) * 3


def test_every_host_leaves_a_node_the_time_to_end() -> None:
    draining = host_files.railway()["deploy"]["drainingSeconds"]
    assert isinstance(draining, int)
    graces = [int(host_files.compose()["services"][one]["stop_grace_period"].removesuffix("s")) for one in _NODES]
    assert min(draining, host_files.fly()["kill_timeout"], *graces) > _ENDS_WITHIN_S


# -- one by one -------------------------------------------------------------------------------------------------------


def test_railway_toml_has_what_railway_reads() -> None:
    found = host_files.railway()
    assert found.keys() == {"build", "deploy"}
    assert found["build"] == {"builder": "DOCKERFILE", "dockerfilePath": "Dockerfile"}
    types = {"healthcheckPath": str, "healthcheckTimeout": int, "restartPolicyType": str, "drainingSeconds": int}
    assert {name: type(value) for name, value in found["deploy"].items()} == types
    assert found["deploy"]["restartPolicyType"] in ("ON_FAILURE", "ALWAYS", "NEVER")


def test_render_yaml_asks_once_for_every_secret_and_holds_none() -> None:
    found = host_files.render()
    assert (found["type"], found["runtime"]) == ("web", "python")
    asked = {one["key"] for one in found["envVars"] if one == {"key": one["key"], "sync": False}}
    assert asked == {"DATABASE_URL", *SECRET_NAMES}
    given = {one["key"]: one["value"] for one in found["envVars"] if one["key"] not in asked}
    assert given.keys() == {"PYTHON_VERSION", "NODE_RANK"}
    assert all(isinstance(value, str) for value in given.values())


def test_render_yaml_has_nothing_that_the_free_plan_refuses() -> None:
    assert host_files.render()["plan"] == "free"
    assert not host_files.render().keys() & {"disk", "maxShutdownDelaySeconds", "preDeployCommand", "numInstances"}


def test_fly_toml_builds_the_dockerfile_and_never_stops_a_machine() -> None:
    found = host_files.fly()
    assert found["build"] == {"dockerfile": "Dockerfile"}
    assert found["kill_signal"] == "SIGTERM"
    service = found["http_service"]
    assert service["auto_stop_machines"] == "off"
    assert service["internal_port"] == int(found["env"]["PORT"])
    assert service["min_machines_running"] == 1
    assert not found["env"].keys() & {"DATABASE_URL", *SECRET_NAMES}


# -- the image --------------------------------------------------------------------------------------------------------


def test_the_image_runs_as_an_ordinary_user_and_has_a_health_check_that_needs_no_program() -> None:
    last = host_files.dockerfile()[-1]
    [user] = [one.rest for one in last if one.word == "USER"]
    assert user not in ("root", "0")
    assert host_files.image_healthcheck()[0] == "python"
    assert not re.search(r"curl|wget", host_files.read("Dockerfile"))


def test_the_image_has_no_compiler_and_nothing_that_railway_refuses() -> None:
    first, last = host_files.dockerfile()
    words = {one.word for one in (*first, *last)}
    assert not words & {"VOLUME", "ADD", "ONBUILD"}, "Railway takes no VOLUME"
    assert not [one.rest for one in last if one.word == "RUN" and re.search(r"apt|pip|gcc|binutils", one.rest)]


def test_the_image_is_built_from_what_a_node_runs_alone() -> None:
    ignored, *lines = [line for line in host_files.read(".dockerignore").splitlines() if not line.startswith("#")]
    assert ignored == "*", "what is not named is not there: no .env, no tests, no data"
    taken = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert taken == {".flaskenv", "api", "failover", "image", "migrations", "requirements.txt", "wsgi.py"}
    copied = {word for one in host_files.dockerfile()[0] if one.word == "COPY" for word in one.rest.split(" ")[:-1]}
    assert copied == taken
    assert all((ROOT / name).exists() for name in taken)


# -- compose.yaml -----------------------------------------------------------------------------------------------------


def test_compose_yaml_is_valid_by_the_compose_specification() -> None:
    [schema] = [one for one in files("check-jsonschema") or () if one.name == "compose-spec.json"]
    validator = jsonschema_rs.validator_for(json.loads(schema.read_text(encoding="utf-8")))
    assert [error.message for error in validator.iter_errors(host_files.compose())] == []


def test_compose_yaml_runs_three_nodes_that_can_write_to_their_own_volume_only() -> None:
    services = host_files.compose()["services"]
    assert services.keys() == {"postgres", *_NODES}
    for name in _NODES:
        node = services[name]
        assert (node["read_only"], node["cap_drop"], node["volumes"]) == (True, ["ALL"], [f"{name}:/app/data"])
        assert node["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert "healthcheck" in services["postgres"]


def test_the_dotenv_that_flask_secrets_makes_fills_in_every_variable_of_compose_yaml() -> None:
    made = host_files.dotenv(render_dotenv(generate_secrets()))
    assert set(re.findall(r"\$\{(\w+)", host_files.read("compose.yaml"))) == made.keys()
    nodes = [Settings.from_env(host_files.compose_environment(name, made)) for name in _NODES]
    assert [node.node_rank for node in nodes] == [1, 2, 3]
    assert [node.node_id for node in nodes] == list(_NODES)
    for node in nodes:
        assert node.node_url in node.peer_urls
        assert made["POSTGRES_PASSWORD"] in node.database_url


@pytest.mark.parametrize("word", ["SPARE", "PRIVATE KEY"])
def test_the_dotenv_holds_no_key_that_belongs_offline(word: str) -> None:
    assert word not in render_dotenv(generate_secrets())
