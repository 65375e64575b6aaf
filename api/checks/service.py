"""The use case of every client call: request → decide and record → sign → answer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Protocol

import msgspec

from api.checks.answers import Asked, Issuer, answer
from api.checks.batcher import Done, passed_on
from api.checks.recorder import Recorder
from api.checks.request import Taken
from api.checks.schemas import ClientBody, call_of
from api.checks.unit_of_work import Operation, Outcome
from api.checks.unknown_keys import TooManyUnknown, UnknownKeys
from api.ids import new_id, retry_id
from api.licensing import IDEMPOTENT_ACTS, Act, Code
from api.node.clock import Clock
from api.node.identity import Node
from api.node.shared_state import SharedState
from api.problems import Problem
from api.signing import Signer, key_claim

#: Members that differ from try to try of one call.
_NOT_COMPARED = frozenset({"nonce", "client"})


class Answered(msgspec.Struct, frozen=True):
    """The JSON to send. `unknown_at`: as of when nobody knew the key (ledger time); None for a known one."""

    body: bytes
    unknown_at: float | None


class Worker(Protocol):
    """What a call needs of the process that answers it; `api.runtime.Runtime` is one."""

    clock: Clock
    node: Node
    state: SharedState
    recorder: Recorder
    unknown_keys: UnknownKeys
    ledger_id: str

    @property
    def signer(self) -> Signer: ...


class Check:
    """One call: decided, recorded, answered. What goes wrong is what `problem_responses.problem_of` knows."""

    def __init__(self, runtime: Worker, act: Act, taken: Taken) -> None:
        """Raises the problem `STARTING`."""
        self._runtime = runtime
        self._issuer = Issuer(runtime.node, runtime.signer, runtime.ledger_id)
        body = taken.body
        key_hash = key_claim(body.key)
        # An empty request id names nothing: it must not tie calls together.
        request_id = taken.sent.request_id or None
        self._operation = _operation(act, body, key_hash, request_id)
        self._asked = Asked(
            call=self._operation.call,
            key_hash=key_hash,
            nonce=body.nonce,
            request_id=request_id,
            body=taken.sent.raw,
        )

    def answer(self, before_waiting: Callable[[], None]) -> Answered:
        """Waits for the answer. `before_waiting` is called before an unknown key waits its turn, and raises where this
        caller is not to.
        """
        runtime, operation = self._runtime, self._operation
        unknown_keys, key_hash = runtime.unknown_keys, operation.key_hash
        remembered_at = unknown_keys.remembered(key_hash)
        if remembered_at is not None:
            return self._answered(runtime.recorder.unknown(operation, remembered_at))
        changes = runtime.state.key_changes
        try:
            place = unknown_keys.enter(key_hash, before_waiting)
        except TooManyUnknown as error:
            raise Problem("OVERLOADED", "too many unknown license keys are being asked for") from error
        given = runtime.recorder.submit(operation, self._answered)
        self._note(given, place, changes)
        return given

    def begin(self, done: Done[Answered]) -> bool:
        """Has `done` called once, on any thread, with the answer or what went wrong. Waits for nothing.

        False where it might have to: for the turn of a key that is not known, or to look into the queue.
        """
        runtime, operation = self._runtime, self._operation
        if not (runtime.recorder.is_at_once and runtime.unknown_keys.knows(operation.key_hash)):
            return False
        changes = runtime.state.key_changes

        def recorded(given: Answered | BaseException) -> None:
            if isinstance(given, Answered):
                self._note(given, None, changes)
            done(given)

        passed_on(partial(runtime.recorder.begin, operation, self._answered), recorded)
        return True

    def _answered(self, outcome: Outcome) -> Answered:
        unknown_at = outcome.as_of if outcome.verdict.code is Code.NOT_FOUND else None
        runtime = self._runtime
        return Answered(answer(self._asked, outcome, self._issuer, runtime.clock.now()), unknown_at)

    def _note(self, given: Answered, place: float | None, changes: int) -> None:
        """Whether the key is known. `place`: the one it took; `changes`: `key_changes` as read before the look-up."""
        key_hash = self._operation.key_hash
        if given.unknown_at is not None:
            self._runtime.unknown_keys.missed(key_hash, given.unknown_at, changes)
        else:
            self._runtime.unknown_keys.found(key_hash, place)


def _operation(act: Act, body: ClientBody, key_hash: str, request_id: str | None) -> Operation:
    call = call_of(act, body)
    if act not in IDEMPOTENT_ACTS:
        return Operation(call=call, key_hash=key_hash, event_id=new_id(), nonce=body.nonce)
    event_id = new_id() if request_id is None else retry_id(act, key_hash, request_id)
    return Operation(call=call, key_hash=key_hash, event_id=event_id, nonce=body.nonce, body_hash=_body_hash(body))


def _body_hash(body: ClientBody) -> str:
    """What two tries of one call have in common: the body without what may differ, in one spelling."""
    members = {name: value for name, value in msgspec.structs.asdict(body).items() if name not in _NOT_COMPARED}
    members["key"] = key_claim(body.key)
    return hashlib.sha256(msgspec.json.encode(members, order="deterministic")).hexdigest()
