"""Small JSON files of this client's own: written whole or not at all, readable by their owner only."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import stat
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

_APP = "protecao-license"
_log = logging.getLogger("license_client")


#: For so many seconds in all a file that another program holds is tried again: a virus scanner has it for a moment.
_PATIENCE_S = 0.15
_PAUSE_S = 0.01


_T = TypeVar("_T")


class Unreadable(ValueError):
    """A file that is there and cannot be read now: another program holds it, or this user may not read it."""


def state_dir() -> Path:
    """Where what this client remembers is kept, by default: the user's folder for state on this system."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / _APP
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / _APP
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / _APP


def floor_dir() -> Path:
    """The second place of the floor, by default: apart from the first, so that deleting one folder leaves it."""
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming") / _APP
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Preferences" / _APP
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / _APP


def file_name(text: str) -> str:
    """`text` as a part of a file's name: any other character than `A-Za-z0-9._-` becomes `_`."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", text)


def read(path: Path) -> dict[str, Any] | None:
    """The object in a file; None where there is no file.

    Raises `ValueError` for one that holds anything else, and its kind `Unreadable` for one that cannot be read now.
    """
    try:
        value = json.loads(_patiently(lambda: _text_of(path)))
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise Unreadable(f"{path.name} cannot be read now") from error
    except (OSError, RecursionError) as error:
        raise ValueError(f"{path.name} cannot be read") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} holds no object")
    return value


def _patiently(act: Callable[[], _T]) -> _T:
    """Does it, again and again for a while where another program holds the file. Raises what the last try raised.

    Windows calls that a sharing violation or a denied access, and Python either a `PermissionError`.
    """
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return act()
        except PermissionError:
            if time.monotonic() >= end:
                raise
        time.sleep(_PAUSE_S)


def _text_of(path: Path) -> str:
    """A regular file's text. Raises `OSError` for anything else: a FIFO would hold the program up for ever."""
    with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), encoding="utf-8") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(f"{path.name} is no regular file")
        return file.read()


def write(path: Path, value: dict[str, Any]) -> None:
    """Replaces the file. A disk that refuses is said in the log and changes no verdict."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(json.dumps(value, indent=1) + "\n")
            _patiently(lambda: Path(temporary).replace(path))
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        _log.warning("%s cannot be written: %s", path.name, type(error).__name__)


def remove(path: Path) -> None:
    """Deletes the file, if there is one."""
    with contextlib.suppress(FileNotFoundError):
        try:
            _patiently(path.unlink)
        except PermissionError as error:
            _log.warning("%s cannot be deleted: %s", path.name, type(error).__name__)
