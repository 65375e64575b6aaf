"""Every snippet of every page is run as it stands, or is named here with the test that does it.

A snippet that is added fails until it has its check: a reader trusts what is written more than what is meant.
"""

from __future__ import annotations

import asyncio
import base64
import configparser
import hashlib
import hmac
import json
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

import license_client
from api.config.values import database_url
from api.ledger import tables
from api.signing import generate
from tests.support.admin import Json
from tests.support.cli import Cli
from tests.support.license_admin import InProcess, Vendor
from tests.support.nodes import ADMIN_TOKEN, PRODUCT, SHARED_SECRET, Node, Sold, environment, rows, running_node, sell
from tests.support.pages import Block, blocks
from tests.support.processes import ROOT, free_port
from tests.support.wine import Wine
from tests.unit.test_settings_documented import names_of_settings
from tests.vectors.generate import FILE, text

_INDENTED = re.compile(r"(?:(?<=\n\n)|\A)(?: {4}.*\n(?:\n(?= {4}))?)+")
_FENCED = re.compile(r"```.*?```", re.DOTALL)


def snippets(page: str) -> list[Block]:
    """The fenced ones, then the indented ones, which have no kind."""
    return blocks(page) + [Block("", text) for text in _INDENTED.findall(_FENCED.sub("", page))]


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


class Stage:
    """What the snippets speak of: a node, a license of it, and its command line."""

    def __init__(self, node: Node, cli: Cli, folder: Path) -> None:
        self.node, self.cli, self.folder = node, cli, folder
        self.sold: Sold = sell(node.database, {"offline_ttl_s": 1000})
        self.key = self.sold.key

    def customer(self) -> Json:
        """A license of the customer whom the pages speak of."""
        [row] = rows(self.node.database, tables.licenses, id=self.sold.id)
        return {"policy": row["policy"], "email": "ana@example.com", "external_ref": "ana"}

    def answer(self, act: str, key: str, **fields: Any) -> tuple[bytes, str, Json]:
        """The body that was sent, its nonce, and what was answered to it."""
        nonce = uuid.uuid4().hex
        body = json.dumps({"key": key, "nonce": nonce, **fields}).encode()
        return body, nonce, self.node.send(act, body).body


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("node")
    url = f"sqlite:///{folder}/ledger.db"
    with running_node(url, folder) as node:
        yield Stage(node, Cli(environment(url, folder)), folder)


# -- what is checked of which ------------------------------------------------------------------------------------------


def make_targets(snippet: Block, stage: Stage) -> None:
    for line in snippet.text.splitlines():
        command = shlex.split(line, comments=True)
        assert command[0] == "make"
        done = subprocess.run([*command, "--dry-run", f"VENV={sys.prefix}"], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def drawing(snippet: Block, stage: Stage) -> None:
    assert re.search("[─│└├]", snippet.text), "no drawing: it needs a check of its own"


def request(snippet: Block, stage: Stage) -> None:
    head, _, body = snippet.text.partition("\n")
    method, path = head.split()
    sent = json.loads(body) | {"key": stage.key, "nonce": uuid.uuid4().hex, "product": PRODUCT}
    answer = stage.node.send(path.removeprefix("/v1/"), json.dumps(sent).encode())
    assert (method, answer.status, answer.code) == ("POST", 200, "NO_MACHINES"), "its machine has no seat yet"


def answer(snippet: Block, stage: Stage) -> None:
    fields = {"product": PRODUCT, "fingerprint": "here"}
    stage.answer("activate", stage.key, fingerprint="here")
    _, _, told = stage.answer("validate", stage.key, **fields)
    shown = json.loads(snippet.text)
    assert {"valid": told["valid"], "code": told["code"], "detail": told["detail"]} == {
        name: shown[name] for name in ("valid", "code", "detail")
    }
    is_part(shown, told)


def is_part(shown: Json, told: Json) -> None:
    """Whether all members that are shown are there, and of the kind that is shown."""
    for name, value in shown.items():
        if name == "…":
            continue
        assert type(told[name]) is type(value), name
        if isinstance(value, dict):
            is_part(value, told[name])


def signing(snippet: Block, stage: Stage) -> None:
    """Signs by what the page says, as it says it."""
    names = dict(line.split(":", 1) for line in snippet.text.splitlines())
    assert list(names) == ["X-Request-Id", "X-Timestamp", "X-Signature"]
    [template] = re.findall(r'HMAC-SHA256\(SHARED_SECRET, "(.*)" \+ body\)', names["X-Signature"])
    body = json.dumps({"key": stage.key, "nonce": uuid.uuid4().hex}).encode()
    sent = {"X-Request-Id": uuid.uuid4().hex, "X-Timestamp": str(stage.node.now())}
    for name, value in sent.items():
        template = template.replace(f"{{{name}}}", value)
    mac = hmac.new(SHARED_SECRET.encode(), template.encode() + body, hashlib.sha256).digest()
    sent["X-Signature"] = f"v1,{base64.b64encode(mac).decode()}"
    assert stage.node.send("validate", body, headers=sent).status == 200


def pyjwt(snippet: Block, stage: Stage) -> None:
    """Good verdicts of every sort verify; whatever belongs to another call, key or product raises."""
    names: dict[str, Any] = {}
    exec(snippet.text, names)
    pinned, verified = stage.node.jwks()["keys"], names["verified"]
    for key in (stage.key, "NO-SUCH-KEY-12345678"):
        body, nonce, told = stage.answer("validate", key, product=PRODUCT)
        call = {"product": PRODUCT, "key": key, "nonce": nonce, "body": body}
        assert verified(told["verdict"], pinned, **call)["code"] == told["code"]
        for name, wrong in {"product": "another", "key": "another", "nonce": "another", "body": b"another"}.items():
            with pytest.raises((ValueError, jwt.InvalidTokenError)):
                verified(told["verdict"], pinned, **(call | {name: wrong}))
        with pytest.raises((ValueError, jwt.InvalidTokenError)):
            verified(told["verdict"][:-8] + "AAAAAAAA", pinned, **call)
    _, _, activated = stage.answer("activate", stage.key, fingerprint="here")
    with pytest.raises((ValueError, jwt.InvalidTokenError)):
        verified(activated["token"], pinned, **call)


def joserfc(snippet: Block, stage: Stage) -> None:
    names: dict[str, Any] = {}
    exec(snippet.text, names)
    pinned, opened = stage.node.jwks()["keys"], names["opened"]
    for key in (stage.key, "NO-SUCH-KEY-12345678"):
        _, nonce, told = stage.answer("validate", key, product=PRODUCT)
        claims = opened(told["verdict"], pinned, PRODUCT)
        assert (claims["nonce"], claims["code"]) == (nonce, told["code"])
        with pytest.raises(ValueError, match="no verdict"):
            opened(told["verdict"], pinned, "another")
    _, _, activated = stage.answer("activate", stage.key, fingerprint="here")
    with pytest.raises(ValueError, match="no verdict"):
        opened(activated["token"], pinned, PRODUCT)


def flask_commands(snippet: Block, stage: Stage) -> None:
    """Each line, with the ids of what the lines before have made; the file it imports is made here."""
    ids: dict[str, str] = {}
    for line in snippet.text.splitlines():
        words = shlex.split(line, comments=True)
        assert words.pop(0) == "flask"
        words = [ids.get(word, str(stage.folder / word) if word.endswith(".csv") else word) for word in words]
        told = stage.cli.ok(*words) if "<" not in "".join(words) else known(stage.cli, words)
        if words[:2] == ["policy", "create"]:
            [ids["<policy>"], *_] = re.findall(r"[0-9a-f-]{36}", told)
            ids["<license>"] = stage.cli.json("license", "create", "--policy", ids["<policy>"])["id"]
            old = f"key,policy\nOLD-KEY-1234567890,{ids['<policy>']}\n"
            (stage.folder / "old-keys.csv").write_text(old, encoding="utf-8")


def known(cli: Cli, words: list[str]) -> str:
    """For a command on something that is not there: it is understood, and refuses for that reason alone."""
    done = cli.run(*words)
    assert done.returncode != 2, done.stderr
    return done.stdout


def every_member_of_an_answer(snippet: Block, stage: Stage) -> None:
    """The contract's answer has the members that a node's has, no more and no fewer."""
    _, _, told = stage.answer("activate", stage.key, fingerprint="every member")
    same_members(json.loads(snippet.text), told)


def every_member_of_stats(snippet: Block, stage: Stage) -> None:
    """The same for `/stats`; of what `...` or an empty text stands for, only the name counts."""
    answer = stage.node.http.get("/stats", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"})
    shown = snippet.text.replace("persistent|ephemeral|unknown", "")
    same_members(json.loads(shown), json.loads(answer.data))


def same_members(shown: Any, told: Any) -> None:
    """Objects have the same names, all the way down; an empty object or list shows nothing of what is in it."""
    if isinstance(shown, list) and isinstance(told, list) and shown and told:
        same_members(shown[0], told[0])
    elif isinstance(shown, dict) and isinstance(told, dict) and shown:
        assert set(shown) == set(told)
        for name, value in shown.items():
            same_members(value, told[name])


def contributors(snippet: Block, stage: Stage) -> None:
    """Targets of make are there, and what pytest is pointed at is found by it."""
    for line in snippet.text.splitlines():
        words = shlex.split(line, comments=True)
        if words[0] == "make":
            make_targets(Block("", line), stage)
            continue
        assert words[:3] == [".venv/bin/python", "-m", "pytest"], line
        found = subprocess.run(
            [sys.executable, *words[1:], "--collect-only", "-q"], cwd=ROOT, capture_output=True, text=True
        )
        assert found.returncode == 0, found.stdout


def ahk_loads(snippet: Block, stage: Stage) -> None:
    """By `test_the_short_example_for_autohotkey_runs`, under Wine."""


def client_in_short(snippet: Block, stage: Stage) -> None:
    """One line of the example above it, with nothing filled in: its option names are the example's."""
    named = set(re.findall(r"(\w+): ", snippet.text)) - {"servers"}
    assert named <= set(re.findall(r"(\w+): ", page("clients/ahk/v2/Example.ahk")))


def errors_of_the_client(snippet: Block, stage: Stage) -> None:
    for name in re.findall(r"^[│ └├─]*([A-Z]\w+)", snippet.text, re.MULTILINE):
        assert issubclass(getattr(license_client, name), license_client.LicenseClientError)


def stored(snippet: Block, stage: Stage) -> None:
    """The members that the file is said to have are those that the client writes."""
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "clients/python/src").rglob("*.py"))
    assert all(f'"{name}"' in source for name in json.loads(snippet.text))


def vectors(snippet: Block, stage: Stage) -> None:
    """What it writes is what is there."""
    assert shlex.split(snippet.text) == ["python", "-m", "tests.vectors.generate"]
    assert text().encode("ascii") == FILE.read_bytes()


def a_loop(snippet: Block, stage: Stage) -> None:
    """The loop of one's own, once, on files of the test's own."""
    done: list[object] = []
    code = textwrap.dedent(snippet.text)
    code = code.replace("failover.db", f"{stage.folder}/failover.db").replace('"sync_q', f'"{stage.folder}/sync_q')
    names: dict[str, Any] = {"handle_event": done.append, "work": lambda: [{"kind": "pvp", "text": "x"}]}
    exec(code, names)
    asyncio.run(names["killfeed_loop"]())


def compose_cluster(snippet: Block, stage: Stage) -> None:
    """The commands that compose.yaml itself gives; the one that is ours makes the `.env`."""
    build, secrets, up = snippet.text.splitlines()
    head = page("compose.yaml")
    assert f"{build} && {secrets}" in head
    assert up in head
    command, file = secrets.removeprefix("docker run --rm protecao flask ").split(" > ")
    assert (file, "SIGNING_KEY=" in stage.cli.ok(*shlex.split(command))) == (".env", True)


def wsgi_host(snippet: Block, stage: Stage) -> None:
    """The host's own file loads ours, by its path and from another folder."""
    code = snippet.text.replace("/home/YOU/protecao", str(ROOT)) + "\nassert callable(application)"
    env = environment(f"sqlite:///{stage.folder}/ledger.db", stage.folder)
    done = subprocess.run([sys.executable, "-c", code], cwd=stage.folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def connection_string(snippet: Block, stage: Stage) -> None:
    """What a host shows, with names in the places that its page leaves open, is a ledger's address."""
    name, _, url = snippet.text.strip().partition("=")
    assert name == "DATABASE_URL"
    if url.startswith("${{"):  # Railway's reference, which the node never sees
        assert url == "${{Postgres.DATABASE_URL}}"
        return
    assert database_url(url.replace(":PORT/", ":5432/")).startswith("postgresql://")


def own_database(snippet: Block, stage: Stage) -> None:
    """It makes what the connection string after it names, in the encoding that a ledger needs."""
    role, database = snippet.text.splitlines()
    assert role == "CREATE ROLE protecao LOGIN PASSWORD 'PASSWORD';"
    assert database == "CREATE DATABASE protecao OWNER protecao ENCODING 'UTF8' TEMPLATE template0;"
    own = snippets(page("docs/deploy/databases.md"))[-1].text
    assert re.search("//protecao:PASSWORD@.*/protecao[?]", own)


def on_a_host(snippet: Block, stage: Stage) -> None:
    """Commands of programs that hosts have; the files and settings of ours that they name are there."""
    for line in snippet.text.splitlines():
        words = shlex.split(line)
        assert Path(words[0]).name in {"git", "cd", "docker", "fly", "python3.11", "pip"}
        assert all((ROOT / Path(word).name).is_file() for word in words if word.endswith(".txt"))
        if words[0] == "fly":
            assert {word.partition("=")[0] for word in words if "=" in word} <= names_of_settings()
        if "flask" in words:
            assert "SIGNING_KEY=" in stage.cli.ok(*words[words.index("flask") + 1 : words.index(">")])


def systemd_unit(snippet: Block, stage: Stage) -> None:
    """It starts what the Procfile starts, and waits as long as a node may take to end."""
    unit = configparser.RawConfigParser()
    unit.read_string(snippet.text)
    folder, command = unit["Service"]["WorkingDirectory"], unit["Service"]["ExecStart"].split("/.venv/bin/")[1]
    assert page("Procfile").strip() == f"web: cd {Path(folder).name} && {command}"
    assert unit["Service"].getint("TimeoutStopSec") >= 20


def caddy(snippet: Block, stage: Stage) -> None:
    assert snippet.text.split() == ["licences.example.com", "{", "reverse_proxy", "127.0.0.1:5000", "}"]


def same_as(original: str, number: int) -> Callable[[Block, Stage], None]:
    """A translated page has the original's snippet, letter by letter, and so the original's check."""

    def check(snippet: Block, stage: Stage) -> None:
        assert snippet == snippets(page(original))[number]

    return check


def translated(original: str, count: int) -> list[Check]:
    """The checks of a page that has the first `count` snippets of its original."""
    return [same_as(original, number) for number in range(count)]


def license_admin(snippet: Block, stage: Stage) -> None:
    """Each command, in a folder of its own, at a node in the place of the servers that it names."""
    folder = stage.folder / "license-admin"
    folder.mkdir(exist_ok=True)
    vendor = Vendor(["https://one.example"], folder, transport=InProcess(AnyServer(stage.node)))
    stage.node.http.post("/v1/licenses", json=stage.customer(), headers={"Authorization": f"Bearer {ADMIN_TOKEN}"})
    for line in snippet.text.splitlines():
        program, *arguments = shlex.split(line)
        if program == "python":
            assert "admin" in tomllib.loads(page("clients/python/pyproject.toml"))["project"]["optional-dependencies"]
            continue
        assert program == "license-admin"
        paths = [str(folder / each) if each.endswith((".csv", ".txt")) else each for each in arguments]
        if arguments[0] == "configure":
            (folder / "token").write_text(ADMIN_TOKEN)
            paths += ["--config", str(folder / "own.toml"), "--token-file", str(folder / "token")]
        vendor.ok(*paths)


class AnyServer(dict[str, Node]):
    """One node at whichever address."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self._node = node

    def __missing__(self, url: str) -> Node:
        return self._node


Check = Callable[[Block, Stage], None] | str
_AHK, _PYTHON = "tests/e2e/test_ahk_readme.py", "tests/e2e/test_python_client_readme.py"
_KILL_FEED, _SERVERS = "tests/integration/test_auto_failover.py", "tests/e2e/test_other_servers.py"

#: For each page the check of each snippet, in order. A test's name: it runs that snippet.
CHECKS: dict[str, list[Check]] = {
    "README.md": [make_targets, drawing, ahk_loads, flask_commands],
    "CONTRIBUTING.md": [contributors],
    "docs/admin.md": [license_admin] * 4,
    "docs/api.md": [request, answer, signing, pyjwt, joserfc],
    "docs/architecture.md": [drawing],
    "docs/contract.md": [every_member_of_an_answer, every_member_of_stats],
    "docs/deploy/README.md": [compose_cluster, "tests/journeys/test_journeys.py", wsgi_host],
    "docs/deploy/databases.md": [*[connection_string] * 4, own_database, connection_string],
    "docs/deploy/fly.md": [on_a_host],
    "docs/deploy/own-server.md": [on_a_host, on_a_host, systemd_unit, caddy],
    "docs/deploy/pythonanywhere.md": [on_a_host, wsgi_host],
    "README.pt-BR.md": [same_as("README.md", 0), drawing, same_as("README.md", 2), same_as("README.md", 3)],
    "docs/pt-BR/deploy/databases.md": translated("docs/deploy/databases.md", 6),
    "docs/pt-BR/deploy/fly.md": translated("docs/deploy/fly.md", 1),
    "docs/pt-BR/deploy/own-server.md": translated("docs/deploy/own-server.md", 4),
    "docs/pt-BR/deploy/pythonanywhere.md": translated("docs/deploy/pythonanywhere.md", 2),
    "docs/pt-BR/cliente-autohotkey.md": [same_as("clients/ahk/README.md", at) for at in (0, 1, 2, 4, 5, 6)],
    "docs/pt-BR/cliente-python.md": translated("clients/python/README.md", 10),
    "docs/operations.md": [flask_commands, flask_commands, *[_SERVERS] * 4],
    "clients/ahk/README.md": [*[_AHK] * 7, client_in_short],
    "clients/python/README.md": [*[_PYTHON] * 10, errors_of_the_client, _PYTHON],
    "clients/python/TOKEN_STORE.md": [stored] * 3,
    "examples/kill_feed/README.md": [*[_KILL_FEED] * 5, a_loop],
    "tests/vectors/README.md": [vectors],
}  # fmt: skip


def test_every_page_and_every_snippet_has_a_check() -> None:
    folders = ("docs", "clients", "examples", "tests")
    found = [*ROOT.glob("*.md"), *(path for folder in folders for path in (ROOT / folder).rglob("*.md"))]
    pages = {str(path.relative_to(ROOT)) for path in found if not {".venv", "build"} & set(path.parts)}
    counts = {name: len(snippets(page(name))) for name in pages}
    assert {name: count for name, count in counts.items() if count} == {name: len(CHECKS[name]) for name in CHECKS}


@pytest.mark.parametrize(
    ("name", "number"), [(name, number) for name, checks in CHECKS.items() for number in range(len(checks))]
)
def test_a_snippet_does_what_it_says(name: str, number: int, stage: Stage) -> None:
    check = CHECKS[name][number]
    if isinstance(check, str):
        assert (ROOT / check).is_file()
        return
    check(snippets(page(name))[number], stage)


def test_the_short_example_for_autohotkey_runs(wine: Wine, tmp_path: Path) -> None:
    """On hosts where nobody listens, so that it is told that no server answers."""
    [snippet] = [block.text for block in snippets(page("README.md")) if block.kind == "autohotkey"]
    hosts = re.findall(r"https://[\w.]+", snippet)
    for host in hosts:
        snippet = snippet.replace(host, f"http://127.0.0.1:{free_port()}")
    pinned = json.dumps({"keys": [generate().public_jwk]}).replace('"', "'")
    lines = [
        "#Requires AutoHotkey v2.0",
        "#Include License.ahk",
        'OnError((thrown, mode) => (FileAppend(thrown.Message "`n", "*"), ExitApp(3)))',
        f'g_LicenseAPI_PublicKeys := StrReplace("{pinned}", "\'", Chr(34))',
        'key := "SOME-KEY-1234567890"',
        snippet,
        'FileAppend(answer.valid " " answer.code " " answer.source, "*")',
    ]
    (tmp_path / "Short.ahk").write_text("\n".join(lines), encoding="utf-8-sig")
    shutil.copy(ROOT / "clients" / "ahk" / "v2" / "License.ahk", tmp_path)
    said = wine.finish(wine.start("v2", tmp_path / "Short.ahk"))
    assert (len(hosts), said.split()[:2]) == (3, ["0", "NO_SERVER"])
