"""From an outcome to the signed answer: the claims, the two tokens, and the JSON around them."""

from __future__ import annotations

from typing import Literal

import msgspec

from api.checks.unit_of_work import Outcome
from api.ids import new_id
from api.licensing import Act, Call, Code, Holding, Machine
from api.licensing.model import Status
from api.node.clock import Timestamp, timestamp
from api.node.identity import Node
from api.signing import ISSUER, VERDICT_LIFETIME_S, LeaseClaims, Signer, VerdictClaims, body_claim, token_claim

_LEASE_ACTS = frozenset({Act.VALIDATE, Act.ACTIVATE, Act.PING, Act.CHECKOUT})
_SHORTEST_LEASE_S = 60

_encode = msgspec.json.Encoder().encode


class AnswerBinding(msgspec.Struct, frozen=True, kw_only=True):
    """What of the request an answer is bound to."""

    call: Call
    key_hash: str
    nonce: str
    request_id: str | None
    body: bytes


class LicenseView(msgspec.Struct, frozen=True, kw_only=True):
    """A license as a client is shown it. `machines` and `uses` are as they are after the call."""

    id: str
    status: Status
    expires_at: Timestamp | None
    product: str
    entitlements: tuple[str, ...]
    max_machines: int | None
    machines: int
    uses: int
    max_uses: int | None


class MachineView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    fingerprint: str
    name: str | None


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    role: str
    epoch: int


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON of one verdict. Clients act only on the claims of `verdict` and `token`; the rest is for display."""

    valid: bool
    code: Code
    detail: str
    ts: int
    nonce: str
    license: LicenseView | None
    machine: MachineView | None
    node: NodeView
    as_of: int
    durability: Literal["ledger", "queue"]
    verdict: str
    token: str | None


class Issuer(msgspec.Struct, frozen=True):
    """Who answers: this node, the key that it signs with, and the id of the ledger that it speaks for."""

    node: Node
    signer: Signer
    ledger_id: str


def answer(asked: AnswerBinding, outcome: Outcome, issuer: Issuer, now: float) -> bytes:
    """The JSON of one verdict, as UTF-8. `now`: ledger time."""
    verdict, node = outcome.verdict, issuer.node
    token = _lease(asked, outcome, issuer, now)
    return _encode(
        Answer(
            valid=verdict.valid,
            code=verdict.code,
            detail=verdict.detail,
            ts=int(now),
            nonce=asked.nonce,
            license=None if verdict.holding is None else _license(verdict.holding, outcome.uses),
            machine=None if verdict.machine is None else _machine(verdict.machine),
            node=NodeView(id=node.id, role=node.role, epoch=node.epoch),
            as_of=int(outcome.as_of),
            durability=outcome.durability,
            verdict=issuer.signer.verdict(_verdict_claims(asked, outcome, issuer, token, now)),
            token=token,
        )
    )


def _license(holding: Holding, uses: int) -> LicenseView:
    license = holding.license
    return LicenseView(
        id=license.id,
        status=license.status,
        expires_at=timestamp(license.expires_at),
        product=license.policy.product,
        entitlements=license.entitlements,
        max_machines=license.max_machines,
        machines=holding.seats,
        uses=uses,
        max_uses=license.max_uses,
    )


def _machine(machine: Machine) -> MachineView:
    return MachineView(id=machine.id, fingerprint=machine.fingerprint, name=machine.name)


def _verdict_claims(
    asked: AnswerBinding, outcome: Outcome, issuer: Issuer, token: str | None, now: float
) -> VerdictClaims:
    verdict = outcome.verdict
    license = None if verdict.holding is None else verdict.holding.license
    return VerdictClaims(
        iss=ISSUER,
        iat=int(now),
        exp=int(now) + VERDICT_LIFETIME_S,
        # The first answer names its event in the log; a retry's answer is another token, so it has an id of its own.
        jti=outcome.event_id if outcome.first else new_id(),
        act=asked.call.act,
        nonce=asked.nonce,
        rid=asked.request_id,
        rh=body_claim(asked.body),
        sub=None if license is None else license.id,
        kh=asked.key_hash,
        fp=asked.call.fingerprint,
        aud=asked.call.product if license is None else license.policy.product,
        th=None if token is None else token_claim(token),
        led=issuer.ledger_id,
        code=verdict.code,
        valid=verdict.valid,
        lic_exp=None if license is None else _whole(license.expires_at),
        ent=() if license is None else license.entitlements,
        uses=None if license is None else outcome.uses,
        max_uses=None if license is None else license.max_uses,
        node=issuer.node.id,
        epoch=issuer.node.epoch,
        as_of=int(outcome.as_of),
    )


def _lease(asked: AnswerBinding, outcome: Outcome, issuer: Issuer, now: float) -> str | None:
    """The offline token, where the call gives one, the machine is active and the policy lets it go offline."""
    verdict = outcome.verdict
    if asked.call.act not in _LEASE_ACTS or not verdict.valid or verdict.machine is None or verdict.holding is None:
        return None
    license = verdict.holding.license
    longest = license.policy.offline_ttl_s
    if longest is None:
        return None
    ttl = longest if asked.call.ttl is None else min(longest, max(_SHORTEST_LEASE_S, asked.call.ttl))
    until = license.valid_until
    claims = LeaseClaims(
        iss=ISSUER,
        iat=int(now),
        nbf=int(now),
        exp=int(now + ttl if until is None else min(now + ttl, until)),
        jti=new_id(),
        sub=license.id,
        kh=asked.key_hash,
        fp=verdict.machine.fingerprint,
        aud=license.policy.product,
        ent=license.entitlements,
        lic_exp=_whole(license.expires_at),
        grace_until=_whole(until) if license.grace_s else None,
        led=issuer.ledger_id,
        epoch=issuer.node.epoch,
    )
    return issuer.signer.lease(claims)


def _whole(at: float | None) -> int | None:
    return None if at is None else int(at)
