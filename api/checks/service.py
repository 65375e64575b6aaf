"""The use case of every client call: request → decide and record → sign → answer."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Protocol

import msgspec

from api.checks.answers import AnswerBinding, Issuer, answer
from api.checks.batcher import Done, forward_errors
from api.checks.recorder import Recorder
from api.checks.request import AdmittedCall
from api.checks.schemas import ClientBody, call_of
from api.checks.unit_of_work import Operation, Outcome
from api.checks.unknown_keys import TooManyUnknown, UnknownKeys
from api.ids import new_id, retry_id
from api.licensing import IDEMPOTENT_ACTS, Act, Code
from api.node.clock import Clock
from api.node.identity import Node
from api.node.shared_state import SharedState
from api.problems import Malformed, Problem
from api.signing import Signer, key_claim

#: Members that differ from try to try of one call.
_NOT_COMPARED = frozenset({"nonce", "client"})


class Worker(Protocol):
    """What a call needs of the process that answers it; `api.runtime.Runtime` is one."""

    clock: Clock
    node: Node
    state: SharedState
    recorder: Recorder
    unknown_keys: UnknownKeys

    @property
    def ledger_id(self) -> str: ...

    @property
    def signer(self) -> Signer: ...


class FailureCount(Protocol):
    """Counts calls with unknown keys against their callers; `api.web.intake.Intake` does."""

    def refuse_limited(self, call: AdmittedCall) -> None:
        """Raises the problem `RATE_LIMITED` where this caller has used up its failures."""

    def unknown_key(self, call: AdmittedCall) -> None:
        """Counts one more; raises the same."""


class Check:
    """One call: decided, recorded, answered. It ends with the verdict's JSON or what `problem_responses` renders."""

    def __init__(self, runtime: Worker, act: Act, call: AdmittedCall, failures: FailureCount) -> None:
        """Raises the problems `STARTING` and `MALFORMED`."""
        self._runtime = runtime
        self._admitted, self._failures = call, failures
        self._issuer = Issuer(runtime.node, runtime.signer, runtime.ledger_id)
        body = call.body
        key_hash = key_claim(body.key)
        # An empty request id names nothing: it must not tie calls together.
        request_id = call.sent.request_id or None
        for name, sent in (("X-Request-Id", request_id), ("nonce", body.nonce)):
            if sent == body.key:  # of whatever form: it would be answered, logged and kept
                raise Malformed(name, "must not be the license key", request_id=new_id())
        self._operation = _operation(act, body, key_hash, request_id)
        self._asked = AnswerBinding(
            call=self._operation.call, key_hash=key_hash, nonce=body.nonce, request_id=request_id, body=call.sent.raw
        )

    def answer(self) -> bytes:
        """The verdict's JSON, waited for: an unknown key waits its turn first."""
        runtime, operation = self._runtime, self._operation
        unknown_at = runtime.unknown_keys.negative_cache_hit(operation.key_hash)
        changes = runtime.state.changes.key_changes
        if unknown_at is not None:
            signed = self._signed(runtime.recorder.unknown(operation, unknown_at))
            self._failures.unknown_key(self._admitted)
            return signed
        try:
            place = runtime.unknown_keys.enter(
                operation.key_hash, lambda: self._failures.refuse_limited(self._admitted)
            )
        except TooManyUnknown as error:
            raise Problem("OVERLOADED", "too many unknown license keys are being asked for") from error
        return runtime.recorder.submit(operation, partial(self._answered, place, changes))

    def begin(self, done: Done[bytes]) -> bool:
        """Has `done` called once, on any thread, with what `answer` gives or raises. Waits for nothing.

        False where it might have to: for the turn of a key that is not known, or to look into the queue.
        """
        runtime, operation = self._runtime, self._operation
        if not (runtime.recorder.is_non_blocking and runtime.unknown_keys.knows(operation.key_hash)):
            return False
        answered = partial(self._answered, None, runtime.state.changes.key_changes)
        forward_errors(partial(runtime.recorder.begin, operation, answered), done)
        return True

    def _answered(self, place: float | None, changes: int, outcome: Outcome) -> bytes:
        """The signed answer, and whether the key is known from now on.

        `place`: the one among unknown keys that this call took; `changes`: `key_changes` as read before the look-up.
        """
        unknown_keys, key_hash = self._runtime.unknown_keys, self._operation.key_hash
        signed = self._signed(outcome)
        if outcome.verdict.code is Code.NOT_FOUND:
            unknown_keys.missed(key_hash, outcome.as_of, changes)
            self._failures.unknown_key(self._admitted)
        else:
            unknown_keys.found(key_hash, place)
        return signed

    def _signed(self, outcome: Outcome) -> bytes:
        return answer(self._asked, outcome, self._issuer, self._runtime.clock.now())


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
