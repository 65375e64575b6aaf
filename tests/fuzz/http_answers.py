"""Answers as they come on a connection, and what is wrong with those to a case."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from tests.fuzz.http_cases import Case, Step

#: What the description of the calls knows, and what is refused before any call is known: no HTTP, a line or a head
#: that is too long.
DOCUMENTED = frozenset({200, 204, 400, 401, 403, 404, 405, 413, 414, 415, 422, 429, 431, 503})
_INTERIM = range(100, 200)


class Response(NamedTuple):
    """A final answer. `ends`: it says that no other will come."""

    status: int
    body: bytes
    ends: bool


class Incomplete(Exception):
    """The bytes end within an answer, or are none."""


def answers(received: bytes, steps: Sequence[Step]) -> list[Response]:
    """The final answers, in their order. `steps`: what was asked, for some are answered without a body.

    Raises `Incomplete`.
    """
    found: list[Response] = []
    while received:
        top, end, received = received.partition(b"\r\n\r\n")
        first, *lines = top.split(b"\r\n")
        if not end or not first.startswith(b"HTTP/1.") or not first[9:12].isdigit():
            raise Incomplete(repr(top[:200]))
        status = int(first[9:12])
        if status in _INTERIM:
            continue
        fields = dict(_field(line) for line in lines)
        bare = status == 204 or (len(found) < len(steps) and steps[len(found)].has_no_body)
        body, received = (b"", received) if bare else _body(fields, received)
        found.append(Response(status, body, "close" in fields.get("connection", "")))
    return found


def _field(line: bytes) -> tuple[str, str]:
    name, _, text = line.decode("latin-1").partition(":")
    return name.lower(), text.strip()


def _body(fields: dict[str, str], rest: bytes) -> tuple[bytes, bytes]:
    if fields.get("transfer-encoding") == "chunked":
        return _chunked(rest)
    length = int(fields.get("content-length", "0"))
    if len(rest) < length:
        raise Incomplete(f"{len(rest)} of {length} bytes of a body")
    return rest[:length], rest[length:]


def _chunked(rest: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        line, end, rest = rest.partition(b"\r\n")
        size = int(line, 16) if end else 0
        if not end or len(rest) < size + 2:
            raise Incomplete("within a chunk")
        body, rest = body + rest[:size], rest[size + 2 :]
        if size == 0:
            return body, rest


def wrong(case: Case, got: Sequence[Response]) -> str | None:
    """What is wrong with the answers that a case got until its connection ended; None where nothing is."""
    undocumented = [each.status for each in got if each.status not in DOCUMENTED]
    if undocumented:
        return f"status {undocumented[0]}"
    odd = case.steps[case.odd]
    for step, answer in zip(case.steps[: case.odd], got, strict=False):
        if not _is_granted(step, answer):
            return f"a check before it: {answer.status} {answer.body[:200]!r}"
    if len(got) < case.odd:
        return f"{case.odd} checks before it, {len(got)} answers"
    behind = got[case.odd + 1 :]
    if odd.wild:
        return None if len(got) <= len(case.steps) + 1 else f"{len(got)} answers to {len(case.steps)} requests"
    if case.cut is not None or odd.ends:
        return f"answered behind it: {behind[0].status} {behind[0].body[:200]!r}" if behind else None
    return _wrong_with_whole(case, got)


def _wrong_with_whole(case: Case, got: Sequence[Response]) -> str | None:
    """Of a request that ends where it says: it is answered, and so is what follows, unless that was announced."""
    if len(got) > len(case.steps):
        return f"{len(got)} answers to {len(case.steps)} requests"
    if len(got) <= case.odd:
        return "no answer"
    answer, behind = got[case.odd], case.steps[case.odd + 1 :]
    if case.steps[case.odd].nonce is not None and not _is_granted(case.steps[case.odd], answer):
        return f"{answer.status} {answer.body[:200]!r}"
    # A head that is refused before it is read ends its connection without saying so: hyper's own answers have no body.
    if len(got) == case.odd + 1 and (answer.ends or not answer.body):
        return None
    for step, later in zip(behind, got[case.odd + 1 :], strict=False):
        if later.status != 200 or (step.nonce is not None and not _is_granted(step, later)):
            return f"a request behind it: {later.status} {later.body[:200]!r}"
    return None if len(got) == len(case.steps) else f"{len(got)} answers to {len(case.steps)} requests"


def _is_granted(step: Step, answer: Response) -> bool:
    """Whether it is the verdict on this very check."""
    if answer.status != 200:
        return False
    told = json.loads(answer.body)
    return bool(told.get("nonce") == step.nonce and told.get("code") == "VALID")
