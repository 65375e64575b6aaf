"""What a client sends to Postgres, taken apart: messages of the frontend protocol, and the statements in each."""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple

#: What a client sends before the startup message, to ask for TLS or GSSAPI. Answered with one byte.
_WISHES = frozenset({80877103, 80877104})
_QUERY, _PARSE = b"Q", b"P"
#: A semicolon in a literal or in a quoted name ends nothing.
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"")


class Message(NamedTuple):
    """One message that asks for something. `kind`: `Q` (simple query) or `P` (parse)."""

    kind: str
    text: str

    @property
    def statements(self) -> list[str]:
        """The statements in it, each as the server counts them, literals left out."""
        return [part.strip() for part in _QUOTED.sub("''", self.text).split(";") if part.strip()]


class Conversation:
    """One connection's bytes from client to server, in whatever pieces they come. Without TLS only."""

    def __init__(self) -> None:
        self._buffer = b""
        self._started = False

    def heard(self, data: bytes) -> Iterator[Message]:
        """The messages with statements that `data` completes."""
        self._buffer += data
        while (message := self._next()) is not None:
            if message[:1] in (_QUERY, _PARSE):
                yield Message(message[:1].decode(), _text(message))

    def _next(self) -> bytes | None:
        """The next whole message, empty for those before the first typed one; None where it is still to come."""
        at = 1 if self._started else 0
        if len(self._buffer) < at + 4:
            return None
        (length,) = struct.unpack_from("!I", self._buffer, at)
        if len(self._buffer) < at + length:
            return None
        message, self._buffer = self._buffer[: at + length], self._buffer[at + length :]
        if self._started:
            return message
        (code,) = struct.unpack_from("!I", message, 4)
        self._started = code not in _WISHES
        return b""


def _text(message: bytes) -> str:
    body = message[5:]
    if message[:1] == _PARSE:
        body = body.partition(b"\0")[2]  # the statement's name
    return body.partition(b"\0")[0].decode(errors="replace")


class Overheard:
    """Everything that clients asked of a Postgres over a link: its `tap`. `messages`: with monotonic moments."""

    def __init__(self) -> None:
        self.messages: list[tuple[float, Message]] = []
        self._conversations: dict[object, Conversation] = {}

    def __call__(self, end: object, way: str, data: bytes) -> None:
        """Takes in what came over the connection that begins at `end`."""
        if way == "up":
            conversation = self._conversations.setdefault(end, Conversation())
            self.messages += [(time.monotonic(), message) for message in conversation.heard(data)]

    def since(self, moment: float) -> list[Message]:
        """What was asked at `moment` (monotonic) or later."""
        return [message for at, message in self.messages if at >= moment]
