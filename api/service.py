"""The use case of every client call: request → decide and record → sign → answer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec

from api.answers import Asked, answer
from api.draft import Operation, Outcome
from api.ids import new_id, retry_id
from api.intake import Taken
from api.licensing import IDEMPOTENT_ACTS, Act, Code
from api.problems import Problem
from api.runtime import Runtime
from api.schemas import ClientBody, call_of
from api.signing import key_claim
from api.unknown_keys import TooManyUnknown

#: Members that differ from try to try of one call.
_NOT_COMPARED = frozenset({"nonce", "client"})


class Answered(msgspec.Struct, frozen=True):
    """The JSON to send. `unknown_at`: as of when nobody knew the key (ledger time); None for a known one."""

    body: bytes
    unknown_at: float | None


def check(
    runtime: Runtime,
    act: Act,
    taken: Taken,
    before_waiting: Callable[[], None],
) -> Answered:
    """Decides, records and answers one call. Raises what `problems.register` renders.

    `before_waiting` is called before an unknown key waits its turn, and raises where this caller is not to.
    """
    signer, body = runtime.signer, taken.body
    key_hash = key_claim(body.key)
    # An empty request id names nothing: it must not tie calls together.
    operation = _operation(act, body, key_hash, taken.sent.request_id or None)
    asked = Asked(call=operation.call, key_hash=key_hash, nonce=body.nonce, body=taken.sent.raw)

    def answered(outcome: Outcome) -> Answered:
        unknown_at = outcome.as_of if outcome.verdict.code is Code.NOT_FOUND else None
        return Answered(answer(asked, outcome, runtime.node, signer, runtime.clock.now()), unknown_at)

    return _recorded(runtime, operation, answered, before_waiting)


def _operation(act: Act, body: ClientBody, key_hash: str, request_id: str | None) -> Operation:
    call = call_of(act, body)
    if act not in IDEMPOTENT_ACTS:
        return Operation(call=call, key_hash=key_hash, event_id=new_id(), nonce=body.nonce)
    event_id = new_id() if request_id is None else retry_id(act, key_hash, request_id)
    return Operation(call=call, key_hash=key_hash, event_id=event_id, nonce=body.nonce, body_hash=_body_hash(body))


def _recorded(
    runtime: Runtime,
    operation: Operation,
    answered: Callable[[Outcome], Answered],
    before_waiting: Callable[[], None],
) -> Answered:
    unknown_keys, key_hash = runtime.unknown_keys, operation.key_hash
    remembered_at = unknown_keys.remembered(key_hash)
    if remembered_at is not None:
        return answered(runtime.recorder.unknown(operation, remembered_at))
    changes = runtime.state.key_changes
    try:
        place = unknown_keys.enter(key_hash, before_waiting)
    except TooManyUnknown as error:
        raise Problem("OVERLOADED", "too many unknown license keys are being asked for") from error
    given = runtime.recorder.submit(operation, answered)
    if given.unknown_at is not None:
        unknown_keys.missed(key_hash, given.unknown_at, changes)
    else:
        unknown_keys.found(key_hash, place)
    return given


def _body_hash(body: ClientBody) -> str:
    """What two tries of one call have in common: the body without what may differ, in one spelling."""
    members = {name: value for name, value in msgspec.structs.asdict(body).items() if name not in _NOT_COMPARED}
    members["key"] = key_claim(body.key)
    return hashlib.sha256(msgspec.json.encode(members, order="deterministic")).hexdigest()
