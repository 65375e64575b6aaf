"""At its start a node closes to others what an older release left open, and takes secrets out of its environment."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

import api.server
from api import app
from api.config import private_files
from api.config.settings import Settings
from tests.support.nodes import environment


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_files_that_others_may_read_are_closed_to_them_and_no_others(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    folder.mkdir()
    settings = Settings.from_env({"DATA_DIR": str(folder)})
    names = ("protecao.db", "protecao.db-wal", "sync_queue.db", "snapshot.db-shm", "demo.json", "shared-state.bin")
    ours = [folder / name for name in (*names, "supervisor.lock")]
    for path in (*ours, folder / "notes.txt", elsewhere):
        path.touch()
        path.chmod(0o664)
    (folder / "node-state.json").symlink_to(elsewhere)
    private_files.tighten(settings)
    assert {mode(path) for path in ours} == {0o600}
    assert mode(folder / "secrets.json") == 0o600
    assert (mode(folder / "notes.txt"), mode(elsewhere)) == (0o664, 0o664)


def test_a_ledger_and_a_queue_in_other_places_are_closed_too(tmp_path: Path) -> None:
    elsewhere = {"DB_PATH": str(tmp_path / "my.db"), "QUEUE_PATH": str(tmp_path / "my-queue.db")}
    settings = Settings.from_env({"DATA_DIR": str(tmp_path / "data"), **elsewhere})
    paths = [tmp_path / name for name in ("my.db", "my.db.lock", "my-queue.db")]
    for path in paths:
        path.touch()
        path.chmod(0o644)
    private_files.tighten(settings)
    assert {mode(path) for path in paths} == {0o600}


def test_no_secret_stays_in_the_environment_of_what_the_server_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = environment("postgresql://user:word@127.0.0.1:9/none", tmp_path)
    seen: list[dict[str, str]] = []
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(app.os, "umask", lambda _: 0)
    monkeypatch.setattr(app.demo, "announce", lambda _: None)
    monkeypatch.setattr(api.server, "serve", lambda *_: seen.append(dict(os.environ)) or 0)
    assert app.main() == 0
    left = "\n".join(seen[0].values())
    for name in app.SECRET_SETTINGS:
        assert env[name] not in left
    assert seen[0]["DATA_DIR"] == str(tmp_path)
