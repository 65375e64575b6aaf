"""What an isolated node may sign: every yes, and each denial that no other node can have lifted. Pure."""

from __future__ import annotations

from api.licensing.codes import Act, Code
from api.licensing.model import Call, Holding, Verdict

#: True whatever happened elsewhere meanwhile, or for an admin alone to change.
_CERTAIN = frozenset(
    {
        Code.BANNED,
        Code.SUSPENDED,
        Code.PRODUCT_SCOPE_MISMATCH,
        Code.VERSION_SCOPE_MISMATCH,
        Code.ENTITLEMENTS_MISSING,
        Code.FINGERPRINT_SCOPE_REQUIRED,
    }
)


def is_certain(call: Call, before: Holding, verdict: Verdict, as_of: float, *, may_grant: bool = True) -> bool:
    """Whether `verdict`, decided on `before` as it was known at `as_of`, may be signed without the ledger.

    `may_grant`: whether a machine that holds no seat may get one, and uses that have a limit may be counted. Seats,
    uses, and the clocks of machines and check-ins are never denied by a node that may not know of all of them.
    """
    if verdict.valid:
        if call.act is Act.USAGE:
            return may_grant or before.license.max_uses is None
        may_be_seated = may_grant and before.license.policy.isolated_activation
        return call.act is not Act.ACTIVATE or may_be_seated or before.active(call.fingerprint) is not None
    if verdict.code is Code.EXPIRED:
        until = before.license.valid_until
        return until is not None and until <= as_of
    return verdict.code in _CERTAIN
