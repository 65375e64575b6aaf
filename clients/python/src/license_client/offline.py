"""What may be said without a server: the saved token, verified in full against the clock and the floor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from license_client.claims import LeaseClaims
from license_client.codes import Local
from license_client.errors import TokenInvalid
from license_client.files import Unreadable
from license_client.store import Damaged, TokenStore
from license_client.verify import Verifier

_CLOCKS = {
    "expired": Local.OFFLINE_EXPIRED,
    "clock_tampered": Local.CLOCK_TAMPERED,
    # Before it was made: nobody's clock is there by itself once a signed time has been seen.
    "not_yet_valid": Local.CLOCK_TAMPERED,
}


@dataclass(frozen=True, slots=True)
class Offline:
    """A local outcome. `claims`: the token's, where its signature and what it is bound to hold. `reason`: why not."""

    code: Local
    claims: LeaseClaims | None = None
    reason: str | None = None


def decide(
    verifier: Verifier,
    store: TokenStore,
    *,
    key: str,
    fingerprint: str | None,
    product: str,
    now: int,
    entitlements: Sequence[str] = (),
) -> Offline:
    """`now`: the machine's clock. `entitlements`: what the program asks for; the token must grant all of it."""
    try:
        token = store.token()
    except Damaged:
        return Offline(Local.TOKEN_INVALID, reason="damaged")
    except Unreadable:
        # Nothing is wrong with the token: the next try may find it.
        return Offline(Local.NO_SERVER, reason="unreadable")
    # A token is always of one machine: without a fingerprint none can be verified.
    if token is None or fingerprint is None:
        return Offline(Local.NO_SERVER)
    bound_to = {"key": key, "fingerprint": fingerprint, "product": product}
    try:
        claims = verifier.verify_given_lease(token, **bound_to)
    except TokenInvalid as refused:
        return Offline(Local.TOKEN_INVALID, reason=refused.reason)
    try:
        verifier.verify_lease(token, **bound_to, now=now, floor=store.floor())
    except TokenInvalid as refused:
        return Offline(_CLOCKS[refused.reason], claims, refused.reason)
    if not set(entitlements) <= set(claims.ent):
        return Offline(Local.TOKEN_INVALID, claims, "ent")
    return Offline(Local.OFFLINE_VALID, claims)
