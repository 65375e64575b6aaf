"""Builds the image with buildah, on a base that debootstrap makes under the name that FROM gives."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support import host_files
from tests.support.processes import ROOT

_MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
#: What the official image of that name has of what the Dockerfile needs.
_PACKAGES = "python3,python3-venv,ca-certificates"
#: How this machine reaches a package index: of use while the image is built, and no part of it.
_OF_THIS_MACHINE = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")


class Images:
    """A store of images in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._buildah = ["buildah", "--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]

    def make_base(self, name: str) -> None:
        """A minimal Debian with Python, committed as `name`."""
        tree, archive = self._folder / "base", self._folder / "base.tar"
        _run("debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(tree), _MIRROR)
        _run("tar", "-C", str(tree), "-cf", str(archive), ".")
        container = self._run("from", "scratch")
        self._run("add", container, str(archive), "/")
        self._run("commit", "--quiet", container, name)
        self._run("rm", container)
        archive.unlink()
        shutil.rmtree(tree)

    def has(self, name: str) -> bool:
        return name in self._run("images", "--noheading", "--format", "{{.Name}}:{{.Tag}}").split()

    def build(self, name: str) -> None:
        """The Dockerfile as it stands, as `name`."""
        mounts = [word for path in _OF_THIS_MACHINE if Path(path).exists() for word in ("-v", f"{path}:{path}:ro")]
        how = ["--pull-never", "--isolation", "chroot", "--format", "docker"]
        self._run("bud", *how, *mounts, "--tag", name, str(ROOT))

    @contextlib.contextmanager
    def unpacked(self, name: str) -> Iterator[Path]:
        """The files of an image."""
        container = self._run("from", "--pull-never", name)
        try:
            yield Path(self._run("mount", container))
        finally:
            self._run("rm", container)

    def config(self, name: str) -> dict[str, object]:
        """What the image says of its command, user and environment, as Docker has it."""
        described = json.loads(self._run("inspect", "--type", "image", name))
        return dict(described["Docker"]["config"])

    def _run(self, *arguments: str) -> str:
        return _run(*self._buildah, *arguments)


def base_name() -> str:
    """The name that FROM gives."""
    return "docker.io/library/" + host_files.dockerfile()[-1][0].rest


def size(tree: Path) -> int:
    """The bytes in the files of a tree, each counted once."""
    seen = {(stat.st_dev, stat.st_ino): stat.st_size for path in tree.rglob("*") if (stat := path.lstat())}
    return sum(seen.values())


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout.strip()
