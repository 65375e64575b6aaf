"""What a node's supervisor knows, in a small file that all its workers read, so that all of them answer alike.

It is written in place, in room that it was given when it was made: a disk that is full must not make workers say that
their node stands by while it leads. A checksum tells a reader that it came in between.
"""

from __future__ import annotations

import math
import os
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from api.licensing import Watch
from api.node.mapped_file import allocate
from api.signing import PermittedKeys

#: How an event comes to the ledger.
Mode = Literal["normal", "backup", "isolated"]
FILE_NAME = "node-state.bin"
#: How often the file is looked at by a worker that is asked all the time.
_LOOK_EVERY_S = 0.1
#: A state that is older than this is no longer valid. The supervisor publishes five times a second.
_STALE_AFTER_S = 6.0
#: More than a state ever takes.
_ROOM = 16 * 1024
#: How often a reader that came in between looks again.
_TRIES = 10


class SnapshotState(msgspec.Struct, frozen=True):
    """How far the node's copy of the ledger is: its place in the log, the ledger time of its last look, its size."""

    seq: int
    as_of: float
    licenses: int


class QueueState(msgspec.Struct, frozen=True):
    """This node's queue: rows and bytes that wait, and for how long the oldest has."""

    pending: int = 0
    bytes: int = 0
    oldest_s: float | None = None


class LedgerState(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger last answered the supervisor, so that no worker has to ask the same.

    `sent`, `received`: moments (monotonic) between which it was asked and `clock` was what its clock said, None for one
    that has no clock of its own; `keys`: the signing keys that it permits, None before they were ever read;
    `ledger_id`: which ledger it is, None where it does not say.
    """

    sent: float
    received: float
    clock: float | None
    keys: PermittedKeys | None
    ledger_id: str | None = None


class NodeState(msgspec.Struct, frozen=True, kw_only=True):
    """The node's part at one moment. `at`: that moment on this machine's monotonic clock, which its processes share.

    `lease_rank`: the rank that holds a valid lease, as last read; None where no rank does.
    """

    at: float
    instance: str
    #: The node's name; empty where it was not written down.
    node: str = ""
    role: str
    state: str
    epoch: int
    ledger_reachable: bool
    lease_rank: int | None
    #: The span of ledger time in which silence counts against a machine or a license; None: without an end.
    counting_since: float | None = None
    counting_until: float | None = None
    #: Which ledger `epoch` is of, as `api.snapshot.source_of` names it.
    source: str = ""
    snapshot: SnapshotState | None = None
    ledger: LedgerState | None = None
    queue: QueueState = QueueState()
    #: What keeps this node from giving verdicts, None where nothing that its supervisor knows of does.
    waits_for: str | None = None
    #: What an operator has to see to, each as a sentence.
    troubles: tuple[str, ...] = ()
    jobs: dict[str, float | None] = msgspec.field(default_factory=dict)

    @property
    def watch(self) -> Watch:
        """The span of ledger time in which silence counts."""
        since = -math.inf if self.counting_since is None else self.counting_since
        return Watch(since, math.inf if self.counting_until is None else self.counting_until)

    @property
    def mode(self) -> Mode:
        """The mode of events that go to the ledger now."""
        return "normal" if self.lease_rank == 1 else "backup"


class Published:
    """The file, for its one writer and its many readers."""

    def __init__(self, folder: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path = folder / FILE_NAME
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._looked_at = float("-inf")
        self._state: NodeState | None = None
        self._decode = msgspec.json.Decoder(NodeState).decode

    def write(self, state: NodeState) -> None:
        """A reader has the old state or the new one, whole. Raises OSError."""
        encoded = msgspec.json.encode(state)
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(file).st_size < _ROOM:
                allocate(file, _ROOM)
            os.pwrite(file, b"%08x%s\n" % (zlib.crc32(encoded), encoded), 0)
        finally:
            os.close(file)

    def epoch_seen(self, source: str) -> int:
        """The highest epoch of the ledger `source` that was known when this node last ran; 0 where nothing says so."""
        try:
            state = self._whole()
        except (OSError, msgspec.MsgspecError):
            return 0
        return state.epoch if state is not None and state.source == source else 0

    def read(self) -> NodeState | None:
        """What was last published, at most 0.1 s late; None where nothing readable and fresh is there."""
        now = self._monotonic()
        if now - self._looked_at >= _LOOK_EVERY_S and self._lock.acquire(blocking=False):
            try:
                self._state = self._whole()
            except (OSError, msgspec.MsgspecError):
                self._state = None
            finally:
                self._looked_at = now
                self._lock.release()
        state = self._state
        # Moments to come are another boot's: the clock began again.
        return state if state is not None and -1.0 < now - state.at < _STALE_AFTER_S else None

    def _whole(self) -> NodeState | None:
        """What is in the file now. Raises OSError and `msgspec.MsgspecError`."""
        for _ in range(_TRIES):
            sum, encoded = _taken_apart(self._path.read_bytes())
            if sum == b"%08x" % zlib.crc32(encoded):
                return self._decode(encoded)
        return None


def _taken_apart(content: bytes) -> tuple[bytes, bytes]:
    """The checksum, and the state's JSON; behind its line there may be the end of a longer one from before."""
    line = content.partition(b"\n")[0]
    return line[:8], line[8:]
