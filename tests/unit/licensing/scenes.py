"""A call that nothing speaks against, and every cause of a denial as a function that spoils exactly that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from msgspec.structs import replace

from api.licensing import ALWAYS, DAY, Act, Call, Code, Holding, License, Machine, Policy, Verdict, Watch, decide

NOW = 1_764_000_000.0
HERE, ELSEWHERE = "this-machine", "another-machine"


class Scene(NamedTuple):
    """A call and what is known when it comes."""

    call: Call
    holding: Holding | None

    def decide(self, act: Act, watch: Watch = ALWAYS) -> Verdict:
        return decide(replace(self.call, act=act), self.holding, NOW, watch=watch)

    def on_call(self, **changes: Any) -> Scene:
        return self._replace(call=replace(self.call, **changes))

    def on_holding(self, **changes: Any) -> Scene:
        return self if self.holding is None else self._replace(holding=replace(self.holding, **changes))

    def on_license(self, **changes: Any) -> Scene:
        return self if self.holding is None else self.on_holding(license=replace(self.holding.license, **changes))

    def on_policy(self, **changes: Any) -> Scene:
        if self.holding is None:
            return self
        return self.on_license(policy=replace(self.holding.license.policy, **changes))

    def on_machine(self, **changes: Any) -> Scene:
        """Changes this machine's row, which is there in the flawless scene."""
        if self.holding is None:
            return self
        return self.on_holding(machines={HERE: replace(self.holding.machines[HERE], **changes)})


def flawless() -> Scene:
    """Every rule has something to look at, and none has anything to say, whatever the act."""
    policy = Policy(id="p", product="app", name="P", versions=">=1,<3", machine_heartbeat_s=600, check_in_days=7)
    license = License(
        id="l",
        policy=policy,
        expires_at=NOW + 30 * DAY,
        max_machines=2,
        max_uses=10,
        entitlements=("pro",),
        checked_in_at=NOW - DAY,
        created_at=NOW - 60 * DAY,
    )
    machine = Machine(id="m", license_id="l", fingerprint=HERE, heartbeat_at=NOW - 60, created_at=NOW - 60 * DAY)
    call = Call(act=Act.VALIDATE, fingerprint=HERE, product="app", version="2.0", entitlements=("pro",))
    return Scene(call, Holding(license=license, seats=1, machines={HERE: machine}))


class Cause(NamedTuple):
    """One thing wrong. Two causes can be true at once where they touch no `aspect` in common."""

    name: str
    code: Code
    aspects: frozenset[str]
    spoil: Callable[[Scene], Scene]
    valid: bool = False


def _cause(name: str, code: Code, aspects: str, spoil: Callable[[Scene], Scene], *, valid: bool = False) -> Cause:
    return Cause(name, code, frozenset(aspects.split()), spoil, valid)


#: In the contract's order of precedence. `MACHINE_LIMIT_EXCEEDED`, which only activate gives, stands before its kin.
CAUSES = (
    _cause("not found", Code.NOT_FOUND, "", lambda s: s._replace(holding=None)),
    _cause("banned", Code.BANNED, "status", lambda s: s.on_license(status="banned")),
    _cause("suspended", Code.SUSPENDED, "status", lambda s: s.on_license(status="suspended")),
    _cause("expired", Code.EXPIRED, "expiry", lambda s: s.on_license(expires_at=NOW - 1)),
    _cause("overdue", Code.OVERDUE, "check-in", lambda s: s.on_license(checked_in_at=NOW - 8 * DAY)),
    _cause("other product", Code.PRODUCT_SCOPE_MISMATCH, "product", lambda s: s.on_call(product="other")),
    _cause("other version", Code.VERSION_SCOPE_MISMATCH, "version", lambda s: s.on_call(version="3.0")),
    _cause("no entitlement", Code.ENTITLEMENTS_MISSING, "entitlements", lambda s: s.on_call(entitlements=("max",))),
    _cause(
        "no fingerprint",
        Code.FINGERPRINT_SCOPE_REQUIRED,
        "machine",
        lambda s: s.on_policy(require_fingerprint=True).on_call(fingerprint=None),
    ),
    _cause(
        "no machine, node-locked",
        Code.NO_MACHINE,
        "machine seats",
        lambda s: s.on_policy(floating=False).on_holding(seats=0, machines={}),
    ),
    _cause(
        "no machine, floating",
        Code.NO_MACHINES,
        "machine seats",
        lambda s: s.on_policy(floating=True).on_holding(seats=0, machines={}),
    ),
    _cause("only other machines", Code.FINGERPRINT_SCOPE_MISMATCH, "machine", lambda s: s.on_machine(active=False)),
    _cause("no heartbeat", Code.HEARTBEAT_NOT_STARTED, "machine", lambda s: s.on_machine(heartbeat_at=None)),
    _cause("dead heartbeat", Code.HEARTBEAT_DEAD, "machine", lambda s: s.on_machine(heartbeat_at=NOW - 601)),
    _cause(
        "no seat left",
        Code.MACHINE_LIMIT_EXCEEDED,
        "machine seats",
        lambda s: s.on_holding(seats=2, machines={}),
    ),
    _cause("too many seats", Code.TOO_MANY_MACHINES, "seats", lambda s: s.on_holding(seats=3)),
    _cause(
        "too many seats, tolerated",
        Code.TOO_MANY_MACHINES,
        "seats",
        lambda s: s.on_policy(overage="1.5x").on_holding(seats=3),
        valid=True,
    ),
    _cause("no uses left", Code.USES_EXHAUSTED, "uses", lambda s: s.on_license(uses=10)),
    _cause(
        "expired, in grace",
        Code.EXPIRED,
        "expiry",
        lambda s: s.on_license(expires_at=NOW - 1).on_policy(expiry_strategy="maintain", grace_days=3),
        valid=True,
    ),
)

_LIFECYCLE = {"not found", "banned", "suspended", "expired", "overdue"}
_SCOPE = {"other product", "other version", "no entitlement"}
_NO_MACHINE = {"no fingerprint", "no machine, node-locked", "no machine, floating", "only other machines"}
_HEARTBEAT = {"no heartbeat", "dead heartbeat"}
_LIMITS = {"too many seats", "too many seats, tolerated", "no uses left", "expired, in grace"}

#: Which causes each act looks at; what is not here must not matter to it.
JUDGED_BY: dict[Act, set[str]] = {
    Act.VALIDATE: _LIFECYCLE | _SCOPE | _NO_MACHINE | _HEARTBEAT | _LIMITS,
    Act.CHECKOUT: _LIFECYCLE | _SCOPE | _NO_MACHINE | _HEARTBEAT | _LIMITS,
    Act.PING: _LIFECYCLE | _SCOPE | _NO_MACHINE | _LIMITS,
    Act.ACTIVATE: _LIFECYCLE | _SCOPE | _LIMITS | {"no seat left"},
    Act.CHECK_IN: (_LIFECYCLE - {"overdue"}) | _LIMITS,
    Act.USAGE: _LIFECYCLE | {"no uses left", "expired, in grace"},
    Act.DEACTIVATE: {"not found"},
}

#: The same machine again is never an error, however many seats are taken.
_TOLERATED = {(Act.ACTIVATE, "too many seats")}


def causes_of(act: Act) -> list[Cause]:
    """Those that `act` looks at, in order of precedence, each as valid as it is to `act`."""
    return [
        cause._replace(valid=cause.valid or (act, cause.name) in _TOLERATED)
        for cause in CAUSES
        if cause.name in JUDGED_BY[act]
    ]
