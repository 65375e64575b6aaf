"""Secrets: made once, kept from others, agreed on by all processes; and the command that prints them."""

from __future__ import annotations

import json
import multiprocessing
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from api.cli.secrets import secrets as command
from api.config.secret_files import (
    FILE_NAME,
    SECRET_NAMES,
    SecretFileError,
    generate_secrets,
    load_or_create,
    write_private,
)
from api.config.settings import Settings
from api.signing.keys import parse_signing_keys

ROOT = Path(__file__).resolve().parents[2]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def as_somebody_else() -> Iterator[None]:
    """Root may write everywhere; this leaves it for a moment."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65_534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_secrets_are_256_random_bits_and_two_different_keys() -> None:
    made, other = generate_secrets(), generate_secrets()
    texts = [made.api_key, made.shared_secret, made.admin_token]
    assert all(len(text) == 43 for text in texts)
    assert not set(texts) & {other.api_key, other.shared_secret, other.admin_token}
    assert len({key.kid for one in (made, other) for key in (one.signing_key, one.spare_signing_key)}) == 4
    assert tuple(made.settings()) == SECRET_NAMES
    assert parse_signing_keys(made.settings()["SIGNING_KEY"]) == (made.signing_key,)


def test_repr_of_fresh_secrets_shows_none() -> None:
    made = generate_secrets()
    assert not [text for text in made.settings().values() if text in repr(made)]


def test_secrets_are_made_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    previous = os.umask(0)
    try:
        first = load_or_create(folder)
    finally:
        os.umask(previous)
    assert load_or_create(folder) == first
    assert tuple(first) == SECRET_NAMES
    assert mode(folder / FILE_NAME) == 0o600
    assert mode(folder) == 0o700
    assert not (folder / "secrets.tmp").exists()


def test_a_folder_that_was_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    load_or_create(tmp_path)
    assert mode(tmp_path) == 0o755


def test_what_a_crash_left_behind_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "secrets.tmp").write_text('{"API_KEY": "half')
    (tmp_path / "secrets.tmp").chmod(0o644)
    made = load_or_create(tmp_path)
    assert mode(tmp_path / FILE_NAME) == 0o600
    assert load_or_create(tmp_path) == made


def _start(folder: Path, barrier: object, answers: object) -> None:
    barrier.wait(60)  # type: ignore[attr-defined]
    answers.put(load_or_create(folder)["API_KEY"])  # type: ignore[attr-defined]


def test_processes_that_start_at_once_agree(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(6), context.Queue()
    starters = [context.Process(target=_start, args=(tmp_path / "data", barrier, answers)) for _ in range(6)]
    for starter in starters:
        starter.start()
    seen = {answers.get(timeout=60) for _ in starters}
    for starter in starters:
        starter.join(60)
    assert seen == {load_or_create(tmp_path / "data")["API_KEY"]}


def test_a_process_that_waited_takes_what_the_other_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from api.config import secret_files

    winner: dict[str, str] = {}

    @contextmanager
    def another_was_first(path: Path) -> Iterator[None]:
        monkeypatch.undo()
        winner.update(load_or_create(tmp_path))
        yield

    monkeypatch.setattr(secret_files, "_locked", another_was_first)
    assert load_or_create(tmp_path) == winner


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not JSON"),
        (b'{"API_KEY": "a', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b"\xff\xfe", "not text"),
        (b'{"API_KEY": "a", "SHARED_SECRET": " ", "ADMIN_TOKEN": 7}', "lacks SHARED_SECRET, ADMIN_TOKEN, SIGNING_KEY"),
    ],
)
def test_a_damaged_file_is_named_and_left_alone(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / FILE_NAME
    file.write_bytes(content)
    with pytest.raises(SecretFileError, match=says) as caught:
        load_or_create(tmp_path)
    assert str(file) in str(caught.value)
    assert "delete it" in str(caught.value)
    assert file.read_bytes() == content


def test_a_file_others_can_read_is_put_right_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = load_or_create(tmp_path)
    (tmp_path / FILE_NAME).chmod(0o644)
    assert load_or_create(tmp_path) == made
    assert mode(tmp_path / FILE_NAME) == 0o600
    assert "could be read by others" in caplog.text
    assert made["API_KEY"] not in caplog.text


def test_a_file_others_can_read_and_that_cannot_be_put_right_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_or_create(tmp_path)
    (tmp_path / FILE_NAME).chmod(0o640)

    def not_the_owner(descriptor: int, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchmod", not_the_owner)
    with pytest.raises(SecretFileError, match=r"mode 640.*chmod 600"):
        load_or_create(tmp_path)


def test_a_folder_that_cannot_be_written_is_a_clear_error() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        with as_somebody_else(), pytest.raises(SecretFileError, match="cannot be read or made") as caught:
            load_or_create(folder)
        assert "ADMIN_TOKEN" in str(caught.value)
        assert list(folder.iterdir()) == []


def test_a_folder_that_is_a_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SecretFileError, match="cannot be read or made"):
        load_or_create(tmp_path / "file")


def test_a_private_file_is_not_written_through_a_link_or_over_another(tmp_path: Path) -> None:
    target = tmp_path / "target"
    (tmp_path / "link").symlink_to(target)
    for replace in (False, True):
        with pytest.raises(OSError):
            write_private(tmp_path / "link", "secret", replace=replace)
    assert not target.exists()


# -- flask secrets --------------------------------------------------------------------------------------------------


def blocks(text: str) -> list[list[str]]:
    return [[line for line in part.splitlines() if not line.startswith("#")] for part in text.split("\n\n")]


def test_the_command_prints_what_a_node_starts_with(tmp_path: Path) -> None:
    done = CliRunner().invoke(command)
    assert done.exit_code == 0
    nodes, public, spare = blocks(done.output)
    environ = dict(line.split("=", 1) for line in nodes)
    assert tuple(environ) == SECRET_NAMES
    got = Settings.from_env(environ | {"DATABASE_URL": "postgresql://u@h/db", "DATA_DIR": str(tmp_path)})
    assert got.api_keys == (environ["API_KEY"],)
    name, _, offline = spare[0].partition("=")
    (second,) = parse_signing_keys(offline)
    assert name not in SECRET_NAMES
    assert [json.loads(line) for line in public] == [got.signing_keys[0].public_jwk, second.public_jwk]


def test_the_command_writes_a_file_for_the_owner_alone_and_never_over_another(tmp_path: Path) -> None:
    out = tmp_path / "secrets.env"
    done = CliRunner().invoke(command, ["--out", str(out)])
    assert done.exit_code == 0
    assert "API_KEY" not in done.output
    assert mode(out) == 0o600
    before = out.read_text()
    assert before.startswith("# 1.")
    again = CliRunner().invoke(command, ["--out", str(out)])
    assert again.exit_code == 1
    assert "exists already" in again.output
    assert out.read_text() == before


def test_the_command_says_when_a_file_cannot_be_written(tmp_path: Path) -> None:
    done = CliRunner().invoke(command, ["--out", str(tmp_path / "missing" / "x")])
    assert done.exit_code == 1
    assert "cannot be written" in done.output


def test_the_command_needs_no_environment_and_works_in_a_pipe() -> None:
    environ = {"PATH": os.environ["PATH"], "LC_ALL": "C", "PORT": "nonsense"}
    done = subprocess.run(
        [sys.executable, "-m", "api.cli.secrets"], cwd=ROOT, env=environ, capture_output=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode("ascii").count("SIGNING_KEY=") == 2
    assert b"\x1b" not in done.stdout


def test_a_pipe_that_closes_early_brings_no_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "api.cli.secrets"], cwd=ROOT, stdout=closed, stderr=subprocess.PIPE, timeout=60
        )
    assert b"Traceback" not in done.stderr
