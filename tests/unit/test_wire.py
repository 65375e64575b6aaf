"""What the tests overhear of a conversation with Postgres is what was said, in whatever pieces it came."""

from __future__ import annotations

import struct

import pytest

from tests.support.wire import Conversation, Message, Overheard

_SSL = struct.pack("!II", 8, 80877103)
_STARTUP = struct.pack("!II", 8 + 5, 196608) + b"user\0"


def said(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", 4 + len(body)) + body


@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_messages_are_found_in_pieces_of_any_size(piece: int) -> None:
    sent = _SSL + _STARTUP + said(b"p", b"secret\0") + said(b"Q", b"SELECT 1\0")
    sent += said(b"P", b"name\0SELECT 2\0\0\0") + said(b"B", b"\0\0") + said(b"Q", "SELECT 'ü'\0".encode())
    conversation = Conversation()
    heard = [m for at in range(0, len(sent), piece) for m in conversation.heard(sent[at : at + piece])]
    assert heard == [Message("Q", "SELECT 1"), Message("P", "SELECT 2"), Message("Q", "SELECT 'ü'")]


@pytest.mark.parametrize(
    ("text", "count"),
    [("SELECT 1", 1), ("BEGIN; SET a = 1; SELECT 2;", 3), ("SELECT ';;' ; ;", 1), ("SELECT 'it''s; fine'; COMMIT", 2)],
)
def test_statements_of_a_message_are_counted_whatever_is_quoted_in_them(text: str, count: int) -> None:
    assert len(Message("Q", text).statements) == count


def test_what_comes_back_is_no_message() -> None:
    overheard = Overheard()
    overheard("end", "up", _STARTUP + said(b"Q", b"SELECT 1\0"))
    overheard("end", "down", said(b"Q", b"SELECT 2\0"))
    assert [message.text for message in overheard.since(0.0)] == ["SELECT 1"]
