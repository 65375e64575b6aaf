"""What a node keeps on its disk is for its own user only, what an older release has left there too."""

from __future__ import annotations

import stat
from pathlib import Path

from api import logs
from api.config.settings import Settings

_log = logs.get("files")

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def tighten(settings: Settings) -> None:
    """Takes from all others what they may do with this node's files. What cannot be changed is logged and stays."""
    folder, queue = settings.data_dir, settings.queue_path
    kept = (settings.db_path, queue, folder / "snapshot.db")
    beside = [path.with_name(path.name + suffix) for path in kept for suffix in ("", "-wal", "-shm", ".lock")]
    for path in (
        *folder.glob("*.json"),
        folder / "shared-state.bin",
        folder / "node-state.bin",
        folder / "supervisor.lock",
        *beside,
    ):
        try:
            _tighten(path)
        except OSError as error:
            _log.warning("a file is open to others", extra={"file": str(path), "reason": error.strerror})


def _tighten(path: Path) -> None:
    """Leaves alone what is not there, what is no plain file, and a link, which may lead anywhere."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISREG(mode) and mode & _OTHERS:
        path.chmod(stat.S_IMODE(mode) & ~_OTHERS)
