"""Where the server stands between serving and gone: one byte that all its processes share.
The master writes it, but for NO_PORT; workers look at it with each answer."""

import mmap
from enum import IntEnum

DRAINING = "server.draining"
"""The key in the WSGI environ that is True once the server is ending: be unready, begin nothing long."""


class Phase(IntEnum):
    """SERVING; LEAVING: still accepting, each answer ends its connection; CLOSED: nothing new comes in.

    NO_PORT: a worker was to open the port, and another process has it.
    """

    SERVING = 0
    LEAVING = 1
    CLOSED = 2
    NO_PORT = 3


class SharedPhase:
    """The phase, in memory that is shared through the fork; so it must be made before it."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)

    @property
    def value(self) -> Phase:
        """The phase now."""
        return Phase(self._memory[0])

    @value.setter
    def value(self, phase: Phase) -> None:
        self._memory[0] = phase

    def __bool__(self) -> bool:
        """True once the server is on its way out."""
        return self._memory[0] > 0  # asked twice for each request: no enumeration on this path
