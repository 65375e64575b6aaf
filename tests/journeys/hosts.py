"""The hosts as a node sees them: the build and start commands of their files, and the variables that they set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.support import host_files

_BUILD = "pip install -r requirements.txt"


@dataclass(frozen=True)
class Host:
    """A host. `start`: the words of the command that it runs at the repository's root, `{port}` being its port.

    `platform` gives the variables that it sets itself for the service of a rank; `settings` are those of its file.
    `says`: the name, address and region that a node of that rank is to have by them. `supervisor`: the command of the
    task that runs beside the web processes.
    """

    name: str
    start: list[str]
    platform: Callable[[int], dict[str, str]]
    says: Callable[[int], tuple[str, str, str | None]]
    settings: dict[str, str]
    build: str = _BUILD
    supervisor: str | None = None


def _railway(rank: int) -> dict[str, str]:
    own = {"RAILWAY_REPLICA_ID": f"replica-{rank}", "RAILWAY_REPLICA_REGION": "us-east4-eqdc4a"}
    named = {"RAILWAY_SERVICE_NAME": "protecao", "RAILWAY_ENVIRONMENT_NAME": "production", "RAILWAY_PROJECT_ID": "p"}
    return {"RAILWAY_PUBLIC_DOMAIN": f"protecao-{rank}.up.railway.app", **own, **named}


def _render(rank: int) -> dict[str, str]:
    service = f"srv-{rank}"
    own = {"RENDER_SERVICE_ID": service, "RENDER_INSTANCE_ID": f"{service}-abcde", "RENDER_SERVICE_NAME": "protecao"}
    return {"RENDER": "true", "RENDER_EXTERNAL_URL": f"https://protecao-{rank}.onrender.com", **own}


def _fly(rank: int) -> dict[str, str]:
    own = {"FLY_MACHINE_ID": f"machine-{rank}", "FLY_REGION": "gru", "PRIMARY_REGION": "gru"}
    return {"FLY_APP_NAME": f"protecao-{rank}", **own}


def _pythonanywhere(rank: int) -> dict[str, str]:
    domain = "pythonanywhere.com"
    return {"PYTHONANYWHERE_DOMAIN": domain, "PYTHONANYWHERE_SITE": f"www.{domain}", "USER": f"vendor{rank}"}


def _values(pairs: list[dict[str, str]]) -> dict[str, str]:
    return {pair["key"]: pair["value"] for pair in pairs if "value" in pair}


RAILWAY = Host(
    "railway",
    ["sh", "-c", host_files.procfile()],
    _railway,
    lambda rank: (f"replica-{rank}", f"https://protecao-{rank}.up.railway.app", "us-east4-eqdc4a"),
    {},
)
RENDER = Host(
    "render",
    ["sh", "-c", host_files.render()["startCommand"]],
    _render,
    lambda rank: (f"srv-{rank}-abcde", f"https://protecao-{rank}.onrender.com", None),
    _values(host_files.render()["envVars"]),
    build=host_files.render()["buildCommand"],
)
FLY = Host(
    "fly",
    host_files.image_command(),
    _fly,
    lambda rank: (f"machine-{rank}", f"https://protecao-{rank}.fly.dev", "gru"),
    host_files.fly()["env"],
)
#: Loads wsgi.py by its path and gives it no threads, as PythonAnywhere's uWSGI does.
PYTHONANYWHERE = Host(
    "pythonanywhere",
    ["uwsgi", "--http-socket", "127.0.0.1:{port}", "--master", "--processes", "2", "--wsgi-file", "wsgi.py"],
    _pythonanywhere,
    lambda rank: (f"vendor{rank}.pythonanywhere.com", f"https://vendor{rank}.pythonanywhere.com", None),
    {},
    supervisor="flask node run-supervisor",
)
HOSTS = (RAILWAY, RENDER, FLY, PYTHONANYWHERE)
