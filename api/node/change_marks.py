"""When what last changed on this node, for caches: license keys made, licenses written, admins' changes, calls."""

from __future__ import annotations

import zlib

from api.node.mapped_file import (
    CALLED_AT,
    EVERYTHING_CHANGED_AT,
    KEY_CHANGES_AT,
    LICENSES_CHANGED_AT,
    MOMENT_SIZE,
    MOMENTS,
    MappedFile,
)


class ChangeMarks:
    """Moments are monotonic seconds, 0 for what never was."""

    def __init__(self, file: MappedFile) -> None:
        self._file = file

    @property
    def key_changes(self) -> int:
        """A number that rises whenever a license key was made on this node."""
        return self._file.number(KEY_CHANGES_AT)

    def keys_changed(self) -> None:
        with self._file.exclusive():
            self._file.set_number(KEY_CHANGES_AT, self.key_changes + 1)

    def license_changed(self, key_hash: str) -> None:
        """To be called after a write to the license of this key, before it is answered."""
        self._file.mark(LICENSES_CHANGED_AT + place_of(key_hash))

    def everything_changed(self) -> None:
        """To be called after an admin's change, before it is answered: it may touch any license."""
        self._file.mark(EVERYTHING_CHANGED_AT)
        self.called()

    def changed_at(self, key_hash: str) -> float:
        """When this node last wrote what the license of this key is."""
        return max(
            self._file.moment(LICENSES_CHANGED_AT + place_of(key_hash)), self._file.moment(EVERYTHING_CHANGED_AT)
        )

    @property
    def called_at(self) -> float:
        """When one of the workers was last called."""
        return self._file.moment(CALLED_AT)

    def called(self) -> None:
        """A client calls, or an admin changes something: the supervisor follows the log closely meanwhile."""
        self._file.mark(CALLED_AT)


def place_of(key_hash: str) -> int:
    """Where among the moments of all licenses the one of this key is, in bytes."""
    return zlib.crc32(key_hash.encode()) % MOMENTS * MOMENT_SIZE
