"""This node's own secrets: made once, kept in `DATA_DIR/secrets.json`, readable by nobody else.

Only a node with an embedded ledger lives on this file; nodes that share a ledger are given their secrets.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from api import logs
from api.signing import keys

FILE_NAME = "secrets.json"
SECRET_NAMES = ("API_KEY", "SHARED_SECRET", "ADMIN_TOKEN", "SIGNING_KEY")

_log = logs.get("secrets")


class SecretFileError(Exception):
    """The file of secrets cannot be read, trusted or made. The message names the file and what to do."""


@dataclass(frozen=True, slots=True)
class GeneratedSecrets:
    """Fresh secrets. The spare is the second key pair: clients pin its public half, the private one stays offline."""

    api_key: str = field(repr=False)
    shared_secret: str = field(repr=False)
    admin_token: str = field(repr=False)
    signing_key: keys.SigningKey
    spare_signing_key: keys.SigningKey

    def settings(self) -> dict[str, str]:
        """The four settings of a node by name. The spare key is none of them."""
        texts = (self.api_key, self.shared_secret, self.admin_token, one_line_pem(self.signing_key))
        return dict(zip(SECRET_NAMES, texts, strict=True))


def one_line_pem(key: keys.SigningKey) -> str:
    """The private key as `SIGNING_KEY` takes it in one line: base64 of its PEM."""
    return base64.b64encode(key.pem().encode("ascii")).decode("ascii")


def generate_secrets() -> GeneratedSecrets:
    """Three secrets of 256 random bits in URL-safe characters, and two P-256 key pairs."""
    return GeneratedSecrets(
        api_key=secrets.token_urlsafe(32),
        shared_secret=secrets.token_urlsafe(32),
        admin_token=secrets.token_urlsafe(32),
        signing_key=keys.generate(),
        spare_signing_key=keys.generate(),
    )


def load_or_create(data_dir: Path) -> dict[str, str]:
    """The secrets of `data_dir/secrets.json` by setting name, made first where there is no such file.

    Processes that start at once agree on one file. Raises SecretFileError when it is damaged, or cannot be
    read, protected or written.
    """
    path = data_dir / FILE_NAME
    try:
        return _load(path) or _create(path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SecretFileError(
            f"{path} cannot be read or made ({reason}): make the folder writable, or set {', '.join(SECRET_NAMES)}"
        ) from error


def write_private(path: Path, content: str, *, replace: bool = False) -> None:
    """Write `content` to `path` with mode 0600, on disk when this returns.

    With `replace` an older file is overwritten; without it FileExistsError is raised. Raises OSError.
    """
    # Windows has neither links of this kind nor modes: there a file has the rights of its folder.
    flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | (os.O_TRUNC if replace else os.O_EXCL)
    with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
        if hasattr(os, "fchmod"):
            os.fchmod(file.fileno(), 0o600)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _load(path: Path) -> dict[str, str] | None:
    """The file's secrets, or None where there is no file yet."""
    try:
        with path.open(encoding="utf-8") as file:
            _keep_private(path, file.fileno())
            return _parsed(path, file.read())
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise _damaged(path, "is not text") from None


def _parsed(path: Path, text: str) -> dict[str, str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise _damaged(path, "is not JSON") from None
    if not isinstance(found, dict):
        raise _damaged(path, "is not a JSON object")
    bad = [name for name in SECRET_NAMES if not isinstance(found.get(name), str) or not found[name].strip()]
    if bad:
        raise _damaged(path, f"lacks {', '.join(bad)}")
    return {name: found[name] for name in SECRET_NAMES}


def _damaged(path: Path, how: str) -> SecretFileError:
    return SecretFileError(
        f"{path} {how}: put it back from a copy; or delete it, and new secrets are made that clients must be given"
    )


def _keep_private(path: Path, descriptor: int) -> None:
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    if not mode & 0o077:
        return
    try:
        os.fchmod(descriptor, 0o600)
    except OSError as error:
        raise SecretFileError(f"{path} can be read by others (mode {mode:o}): run chmod 600 on it") from error
    _log.warning(
        "the file of secrets could be read by others; its mode is now 0600",
        extra={"path": str(path), "was": f"{mode:o}"},
    )


def _create(path: Path) -> dict[str, str]:
    """Make the file, unless another process made it while this one waited for the lock."""
    if not path.parent.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(path):
        existing = _load(path)
        if existing is not None:
            return existing
        made = generate_secrets().settings()
        unfinished = path.with_suffix(".tmp")
        write_private(unfinished, json.dumps(made, indent=2) + "\n", replace=True)
        unfinished.replace(path)
        _sync_folder(path.parent)
        return made


def _locked(path: Path) -> FileLock:
    """Held by the one process that makes the file at `path`."""
    return FileLock(path.with_suffix(".lock"), mode=0o600)


def _sync_folder(path: Path) -> None:
    """Make a rename in `path` outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
