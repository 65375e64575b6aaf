"""What the image promises: small, no tools and no secrets in it, a node that serves as process 1 and ends in order."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from api.config.secret_files import generate_secrets
from api.ledger import tables
from api.ledger.database import Database
from tests.image.build import Images, base_name, size
from tests.image.container import process_1, running
from tests.support import host_files
from tests.support.nodes import rows
from tests.support.processes import ServerProcess, free_port, until

_NAME = "localhost/protecao:test"
_USER = 10001
_LARGEST = 60_000_000
_TOOLS = ("gcc", "cc", "c++", "g++", "clang", "ld", "as", "make", "strip", "git", "curl", "wget")
#: Notice, draining, the queue, and what a busy machine adds.
_ENDS_WITHIN_S = 30.0


class Image(NamedTuple):
    """The files of the image and of its base, and what it says of itself."""

    root: Path
    base: Path
    config: dict[str, object]

    @property
    def environ(self) -> dict[str, str]:
        return dict(pair.split("=", 1) for pair in self.config["Env"])  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    assert os.geteuid() == 0, "run this as root: it makes a root file system and mounts it"
    kept = os.environ.get("IMAGE_STORE")
    images = Images(Path(kept) if kept else tmp_path_factory.mktemp("images"))
    if not images.has(base_name()):
        images.make_base(base_name())
    images.build(_NAME)
    with images.unpacked(base_name()) as base, images.unpacked(_NAME) as root:
        yield Image(root, base, images.config(_NAME))


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A volume, which belongs to the image's user."""
    volume = tmp_path / "volume"
    volume.mkdir(mode=0o700)
    os.chown(volume, _USER, _USER)
    return volume


@contextlib.contextmanager
def node(image: Image, url: str, disk: Path | None) -> Iterator[ServerProcess]:
    port, secrets = free_port(), generate_secrets().settings()
    named = {"NODE_ID": "image", "PORT": str(port), "HOST": "127.0.0.1", "WEB_CONCURRENCY": "1"}
    environ = {**image.environ, "DATABASE_URL": url, **secrets, **named}
    with running(image.root, image.config["Cmd"], user=_USER, environ=environ, port=port, disk=disk) as server:  # type: ignore[arg-type]
        yield server.wait_until_answers("/readyz", 90)


def test_it_is_at_most_60_mb_over_its_base(image: Image) -> None:
    added = size(image.root) - size(image.base)
    print(f"{added / 1e6:.1f} MB over the base")
    assert added <= _LARGEST


def test_it_has_no_compiler_no_tests_and_no_secrets(image: Image) -> None:
    folders = [image.root / name for name in ("bin", "usr/bin", "usr/local/bin", "opt/venv/bin")]
    assert [name for name in _TOOLS if any((folder / name).exists() for folder in folders)] == []
    own = {path.relative_to(image.root / "app").as_posix() for path in (image.root / "app").rglob("*")}
    assert {path.split("/")[0] for path in own} == {".flaskenv", "api", "data", "failover", "migrations", "wsgi.py"}
    assert not [path for path in own if path.endswith((".env", "secrets.json", ".pem", ".db"))]
    assert not list((image.root / "opt/venv").rglob("tests"))
    assert not any((image.root / path).exists() for path in ("tmp/image", "root/.cache"))


def test_it_runs_as_an_ordinary_user_who_owns_nothing_but_the_data(image: Image) -> None:
    assert image.config["User"] == "node"
    assert f"node:x:{_USER}:" in (image.root / "etc/passwd").read_text()
    owned = [path for path in (image.root / "app").rglob("*") if path.lstat().st_uid == _USER]
    assert owned == [image.root / "app/data"]
    assert stat.S_IMODE(owned[0].stat().st_mode) == 0o700


def test_its_node_serves_as_process_1_on_a_read_only_root_and_drains_at_sigterm(
    image: Image, empty_postgres_url: str, disk: Path
) -> None:
    with node(image, empty_postgres_url, disk) as server, contextlib.closing(Database(empty_postgres_url)) as database:
        first = process_1(server)
        status = Path(f"/proc/{first.pid}/status").read_text()
        assert "NSpid:" not in status or status.split("NSpid:")[1].split("\n")[0].split()[-1] == "1"
        assert first.name().startswith("python")
        assert set(first.uids()) == {_USER}
        assert "snapshot.db" in {path.name for path in disk.iterdir()}
        until(lambda: rows(database, tables.lease), "it leads")
        assert server.get("/readyz").json()["troubles"] == []
        assert health(image, server.port) == 0
        first.terminate()
        assert server.wait(_ENDS_WITHIN_S) == 0
        [lease] = rows(database, tables.lease)
        assert lease["expires_at"] <= time.time(), "it has resigned"
    assert health(image, server.port) != 0


def test_its_node_serves_where_nothing_can_be_written_and_says_so(image: Image, empty_postgres_url: str) -> None:
    with node(image, empty_postgres_url, None) as server:
        [trouble] = server.get("/readyz").json()["troubles"]
        assert trouble.startswith("DATA_DIR takes nothing")


def health(image: Image, port: int) -> int:
    """The exit status of its health check, run in the image."""
    inside = ["chroot", f"--userspec={_USER}:{_USER}", str(image.root), *host_files.image_healthcheck()]
    return subprocess.run(inside, env={**image.environ, "PORT": str(port)}, capture_output=True).returncode
