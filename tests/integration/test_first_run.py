"""The first run: what the server prints, and that the printed lines, pasted into a shell, do what they say."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from api import demo, demo_scripts
from api.config.settings import Settings
from tests.support.cli import Cli, Program
from tests.support.nodes import environment
from tests.support.processes import ROOT, ServerProcess, running, until
from tests.support.small_servers import workers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    # A blank, which the printed lines must quote.
    return tmp_path / "the data"


@contextlib.contextmanager
def _server(folder: Path, **more: str) -> Iterator[ServerProcess]:
    env = {"DATA_DIR": str(folder), "PROTECAO_DEMO": "1", "WEB_CONCURRENCY": "1", "LOG_LEVEL": "WARNING", **more}
    with running("app.py", env=env, path="/readyz", cwd=ROOT / "api") as server:
        yield server


def _settings(folder: Path, **more: str) -> Settings:
    return Settings.from_env({"DATA_DIR": str(folder), "PROTECAO_DEMO": "1", **more})


def _announced(settings: Settings) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        demo.announce(settings)
    return printed.getvalue()


def _shell(printed: str) -> tuple[str, str]:
    """The printed call and the printed line that verifies it, as one would copy them."""
    call, verify = printed.split("\nThis verifies the answer:\n")[:2]
    return call[call.index("  cd ") :], verify.strip().splitlines()[0]


def _bash(lines: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs pasted lines anywhere, knowing none of the server's settings."""
    env = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    return subprocess.run(["bash", "-c", lines], cwd=folder, env=env, capture_output=True, text=True, timeout=60)


def test_the_printed_call_returns_a_signed_verdict_and_the_printed_line_verifies_it(folder: Path) -> None:
    with _server(folder) as server:
        call, verify = _shell(server.output())
        done = _bash(call, folder)
        answer = json.loads(done.stdout)
        assert (answer["valid"], answer["code"]) == (True, "VALID"), done.stderr
        assert json.loads((folder / "demo-answer.json").read_text()) == answer
        verified = _bash(f"cd {ROOT}\n{verify}", folder)
        assert verified.returncode == 0, verified.stderr
        assert "verdict: signed by a permitted key" in verified.stdout
        assert "token: signed by a permitted key" in verified.stdout
        # Pasted again it is signed anew.
        assert json.loads(_bash(call, folder).stdout)["code"] == "VALID"
    assert "valid" in Program({"DATA_DIR": str(folder)}).ok("keys", "verify", str(folder / "demo-answer.json"))


def test_the_demo_is_made_once_and_its_key_survives_the_database(folder: Path) -> None:
    settings = _settings(folder)
    first = demo.prepare(settings).read_text()
    assert demo.prepare(settings).read_text() == first
    cli = Cli({"DATA_DIR": str(folder)})
    (license,) = cli.json("license", "list")
    for path in folder.glob("protecao.db*"):
        path.unlink()
    assert demo.prepare(settings).read_text() == first
    (again,) = cli.json("license", "list")
    assert again["key_hint"] == license["key_hint"] == json.loads(first)["key"][-4:]


def test_a_lost_key_is_replaced_under_the_same_policy(folder: Path) -> None:
    settings = _settings(folder)
    demo.prepare(settings).unlink()
    demo.prepare(settings)
    cli = Cli({"DATA_DIR": str(folder)})
    assert len(cli.json("license", "list")) == 2
    assert len(cli.json("policy", "list")) == len(cli.json("product", "list")) == 1


def test_no_secret_is_printed_and_the_file_with_them_is_private(folder: Path) -> None:
    """The access keys are printed: every script that is shipped shows them."""
    settings = _settings(folder)
    printed = _announced(settings)
    kept = json.loads((folder / "demo.json").read_text())
    assert set(kept) == {"key", "api_key", "shared_secret"}
    for secret in (kept["key"], settings.admin_token):
        assert secret not in printed
    assert stat.S_IMODE((folder / "demo.json").stat().st_mode) == 0o600
    assert str(folder / "secrets.json") in printed


def test_lines_to_paste_into_a_script_are_printed_once_for_each_autohotkey(folder: Path) -> None:
    odd = {"API_KEY": 'sixteen"`or-more', "SHARED_SECRET": "a-shared-secret-of-the-demo", "PORT": "65535"}
    settings = _settings(folder, **odd)
    v1, v2 = demo_scripts.lines_to_paste(settings).split("For AutoHotkey v2")
    assert 'g_LicenseAPI_ApiKey := "sixteen""``or-more"\n' in v1
    assert 'g_LicenseAPI_ApiKey := "sixteen`"``or-more"\n' in v2
    for block in (v1, v2):
        assert 'g_LicenseAPI_SharedSecret := "a-shared-secret-of-the-demo"\n' in block
        assert re.findall(r'"http://[^"]+"', block) == ['"http://127.0.0.1:65535"', '"http://127.0.0.1:65534"']
        (jwk,) = re.findall(r"^\{.*\}$", block, re.MULTILINE)
        assert json.loads(jwk) == settings.signing_keys[0].public_jwk


def test_every_file_of_a_started_node_is_for_its_user_only(folder: Path) -> None:
    before = os.umask(0o022)
    try:
        with _server(folder) as server:
            until(lambda: (folder / "snapshot.db").exists(), "the snapshot")
            assert server.answers("/livez")
            Program({"DATA_DIR": str(folder)}).json("license", "list")
            modes = {file: stat.S_IMODE(file.stat().st_mode) for file in folder.rglob("*") if file.is_file()}
    finally:
        os.umask(before)
    assert {"protecao.db", "snapshot.db", "demo.json", "secrets.json"} <= {file.name for file in modes}
    assert set(modes.values()) == {0o600}, modes


def test_the_call_is_made_with_secrets_of_any_characters(folder: Path) -> None:
    odd = {
        "API_KEY": 'it\'s "odd"\\1&/*?!'.replace(" ", "_"),
        "SHARED_SECRET": '"\\\\"$(x)`y`-and-more,second-secret-of-two',
    }
    with _server(folder, **odd) as server:
        done = _bash(_shell(server.output())[0], folder)
        assert json.loads(done.stdout)["code"] == "VALID", done.stderr


def test_without_a_demo_one_line_says_where_things_are(folder: Path) -> None:
    printed = _announced(_settings(folder, PROTECAO_DEMO="0"))
    assert len(printed.splitlines()) == 1
    assert str(folder) in printed
    assert not (folder / "demo.json").exists()
    assert not (folder / "protecao.db").exists()


def test_a_file_of_settings_is_read_by_the_server_as_by_its_command_line(tmp_path: Path) -> None:
    kept = tmp_path / "kept here"
    (tmp_path / ".env").write_text(f"DATA_DIR={kept}\nLOG_LEVEL=WARNING\nWEB_CONCURRENCY=2\n")
    env = {"FLASK_SKIP_DOTENV": "", "WEB_CONCURRENCY": "1"}
    with running(str(ROOT / "api" / "app.py"), env=env, path="/readyz", cwd=tmp_path) as server:
        assert (kept / "protecao.db").exists()
        assert '"level":"INFO"' not in server.output().replace(" ", "")
        assert len(workers(server)) == 1, "what the environment says goes before the file"


def test_a_shared_ledger_gets_no_demo(postgres_url: str, folder: Path) -> None:
    settings = replace(Settings.from_env(environment(postgres_url, folder)), demo=True)
    printed = _announced(settings)
    assert "curl" not in printed
    assert "its secrets are as set" in printed
    assert Cli(environment(postgres_url, folder)).json("product", "list") == []


def test_a_disk_that_does_not_last_is_said_loudly(folder: Path) -> None:
    assert "WARNING" not in _announced(_settings(folder))
    assert "WARNING" in _announced(replace(_settings(folder), disk="ephemeral"))


def test_a_file_of_secrets_that_nobody_needs_is_no_obstacle(sqlite_url: str, folder: Path) -> None:
    settings = Settings.from_env(environment(sqlite_url, folder))
    folder.mkdir()
    (folder / "secrets.json").write_bytes(b"\xff\xfe")
    assert "its secrets are as set" in _announced(settings)


@pytest.mark.parametrize("content", ["", "[]", '{"key": 1}', "\x00"])
def test_a_damaged_demo_does_not_keep_the_node_from_serving(folder: Path, content: str) -> None:
    settings = _settings(folder)
    (folder / "demo.json").write_text(content)
    printed = _announced(settings)
    assert "There is no demo license this time" in printed
    assert "curl" not in printed
