"""`LicenseClient`: the one thing a program needs. Ordered servers first, the saved token when all of them fail."""

from __future__ import annotations

import platform
import re
import tempfile
import threading
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

from license_client import calls, codes, files, offline, texts
from license_client.asking import Asker, Bound
from license_client.calls import Call, Credentials
from license_client.causes import Cause, diagnosis
from license_client.claims import LeaseClaims, VerdictClaims
from license_client.codes import Local
from license_client.errors import ConfigurationError, KeyMalformed, TokenInvalid
from license_client.keys import PublicKeys
from license_client.license_key import canonical_key, looks_mistyped
from license_client.result import Attempt, Result, moment
from license_client.servers import Servers
from license_client.store import TokenStore
from license_client.text_logs import TextLogs
from license_client.transport import RequestsTransport, Transport
from license_client.verify import Verifier
from license_client.version import __version__
from license_client.walk import BUDGETS, Answer, Walked, walk

#: Calls that a saved token can stand in for. The others have an effect that only a server can give.
_OFFLINE_ACTS = frozenset({"status", "validate", "activate", "ping", "check-in", "checkout"})

#: Reasons of a saved token that have a text of their own.
_SAVED_REASONS = {"ent": "ENTITLEMENTS_NOT_SAVED", "unreadable": "UNREADABLE"}

_NOBODY_ASKED = Walked(None, (), ())

#: What no server takes in a text.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

#: PEP 440, as its appendix B has it.
_VERSION = re.compile(
    r"v?(\d+!)?\d+(\.\d+)*([-_.]?(a|b|c|rc|alpha|beta|pre|preview)[-_.]?\d*)?"
    r"(-\d+|[-_.]?(post|rev|r)[-_.]?\d*)?([-_.]?dev[-_.]?\d*)?(\+[a-z0-9]+([-_.][a-z0-9]+)*)?",
    re.IGNORECASE | re.ASCII,
)


class LicenseClient:
    """Asks about one license of one product. A context manager; may be used from several threads.

    - `servers`: URLs in order of priority; https, or plain http to this machine
    - `product`: the product's code; `key`: the customer's license key as it was pasted, 8 to 128 characters in its
      one form
    - `public_keys`: what verdicts are verified with: PEM texts, JWKs or a JWKS. Pin both of the vendor's keys
    - `api_key`, `shared_secret`: as the servers ask for them
    - `fingerprint`: this machine's name, for instance `machine_fingerprint("my-product")`. Without one nothing is
      bound to a machine, and there is no offline token
    - `state_dir`, `floor_dir`: where the token, the floor and the order of the servers are kept; by default two folders
      of the user's. With `state_dir` alone, the second floor is in its folder `floor`
    - `log_dir`: the three log files; the temporary folder by default
    - `now`: the machine's clock, Unix seconds; `budgets`: seconds for a server's answer in the passes of a walk
    - `ca_bundle`: a PEM file of authorities to trust instead of the usual ones; `transport`: in place of requests
    - `language`: of `detail`, "en" or "pt"

    Raises `ConfigurationError`; `KeyMalformed` for a text that can be no license key.
    """

    def __init__(
        self,
        servers: Sequence[str],
        *,
        product: str,
        key: str,
        public_keys: PublicKeys,
        api_key: str | None = None,
        shared_secret: str | None = None,
        fingerprint: str | None = None,
        state_dir: Path | str | None = None,
        floor_dir: Path | str | None = None,
        log_dir: Path | str | None = None,
        now: Callable[[], float] = time.time,
        budgets: Sequence[float] = BUDGETS,
        ca_bundle: Path | None = None,
        transport: Transport | None = None,
        language: str = "en",
    ) -> None:
        _check("product", product, 1, 64)
        key = canonical_key(key) if isinstance(key, str) else key
        _check("key", key, 8, 128)
        if fingerprint is not None:
            _check("fingerprint", fingerprint, 1, 128)
        first, second = _folders(state_dir, floor_dir)
        self._texts, self._language = texts.texts_in(language), language
        self._key, self._product, self._fingerprint = key, product, fingerprint
        self._now, self._budgets = now, tuple(budgets)
        self._verifier = Verifier(public_keys)
        self._store = TokenStore(first, second, product=product, key=key)
        self._servers = Servers(servers, first / "servers.json", now)
        self._logs = TextLogs(Path(log_dir or tempfile.gettempdir()), now)
        self._transport = transport or RequestsTransport(ca_bundle=ca_bundle)
        bound = Bound(self._verifier, Credentials(api_key, shared_secret), product)
        self._asker = Asker(self._transport, bound, now)
        self._keeping = threading.Lock()  # of the token and the floors
        self._endings = 0  # how many tokens have been deleted

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the connections back."""
        self._transport.close()

    # -- the calls ------------------------------------------------------------------------------------------------

    def validate(self, *, version: str | None = None, entitlements: Sequence[str] = ()) -> Result:
        """Whether the program may run. `version` (PEP 440) and `entitlements` are checked where they are given."""
        _check_version(version)
        asked = {"version": version, "entitlements": list(entitlements) or None}
        fields = {"product": self._product, "fingerprint": self._fingerprint, **asked}
        return self._call("validate", fields, entitlements=entitlements)

    def activate(
        self,
        *,
        name: str | None = None,
        version: str | None = None,
        request_id: str | None = None,
    ) -> Result:
        """Takes a seat for this machine; again is no error. `name`: how the vendor sees it, the host's by default.

        `request_id`: give the one of an earlier `Result` to repeat that very call, after a crash for instance.
        """
        _check_version(version)
        shown = {
            "name": _UNPRINTABLE.sub(" ", platform.node() if name is None else name)[:200] or None,
            "platform": _UNPRINTABLE.sub(" ", platform.platform())[:200],
        }
        fields = {"product": self._product, **self._machine(), **shown, "version": version}
        return self._call("activate", fields, request_id)

    def deactivate(self, *, request_id: str | None = None) -> Result:
        """Gives this machine's seat back, and deletes the saved token. Only a server can: offline it is not valid."""
        return self._call("deactivate", self._machine(), request_id)

    def ping(self) -> Result:
        """This machine's heartbeat."""
        return self._call("ping", self._machine())

    def check_in(self) -> Result:
        """Resets the license's check-in clock. Offline, valid means that the program may run, not that it was reset."""
        return self._call("check-in", {})

    def usage(self, increment: int = 1, *, request_id: str | None = None) -> Result:
        """Counts `increment` uses, all or nothing. Only a server can: offline it is not valid."""
        _check_number("increment", increment, 1_000_000)
        return self._call("usage", {"increment": increment}, request_id)

    def checkout(self, ttl: int | None = None) -> Result:
        """A token that carries this machine for `ttl` seconds without a server; the policy's longest by default."""
        if ttl is not None:
            _check_number("ttl", ttl, 315_360_000)
        return self._call("checkout", {**self._machine(), "ttl": ttl})

    def status(self) -> Result:
        """What would be said if no server could be reached. Asks none and changes nothing."""
        return self._offline("status", calls.request_id_of(None), _NOBODY_ASKED, ())

    def verify_lease(self, token: str) -> LeaseClaims:
        """The claims of an offline token that lets this machine run now. Raises `TokenInvalid`."""
        bound_to = {"key": self._key, "fingerprint": self._machine()["fingerprint"], "product": self._product}
        return self._verifier.verify_lease(token, **bound_to, now=int(self._now()), floor=self._store.floor())

    @property
    def floor(self) -> int | None:
        """The time (Unix seconds) that this machine's clock must not be far below, by signed and by local times."""
        return self._store.floor()

    def server_order(self) -> list[str]:
        """The servers in the order in which the next call asks them."""
        return self._servers.order()

    # -- how ------------------------------------------------------------------------------------------------------

    def _machine(self) -> dict[str, str]:
        if self._fingerprint is None:
            raise ConfigurationError("fingerprint: this call is about a machine and needs one")
        return {"fingerprint": self._fingerprint}

    def _call(
        self, act: str, fields: Mapping[str, Any], request_id: str | None = None, entitlements: Sequence[str] = ()
    ) -> Result:
        about = {"client": {"app": "license-client-python", "version": __version__}}
        call = Call(act=act, key=self._key, fields={**fields, **about}, request_id=calls.request_id_of(request_id))
        endings = self._endings
        ask, saved = partial(self._asker.ask, call), self._saved().claims
        ledger = None if saved is None else saved.led
        walked = walk(ask, self._servers, self._logs, self._has_usable_token, self._budgets, ledger)
        if walked.answer is not None:
            with self._keeping:
                return self._decided(call, walked.answer, walked.attempts, may_save=endings == self._endings)
        result = self._offline(act, call.request_id, walked, entitlements)
        if result.valid:
            self._logs.offline(f"{act} {result.code}")
        return result

    def _decided(self, call: Call, answer: Answer, attempts: tuple[Attempt, ...], *, may_save: bool) -> Result:
        """`may_save`: no token was deleted since the call began; one would come back with a late answer."""
        claims = answer.claims
        self._logs.used(answer.server, f"{call.act} {claims.code}")
        self._store.settle_floor(claims.iat, int(self._now()))
        if self._ends_the_token(call, claims):
            self._endings += 1
            self._store.delete()
        elif claims.valid and answer.token is not None and may_save:
            self._save(answer.token, claims, answer.server)
        saved = self._saved()
        return Result(
            valid=claims.valid,
            code=claims.code,
            detail=texts.detail_of(claims.code, claims.valid, self._language, is_mistyped=looks_mistyped(self._key)),
            source="server",
            act=call.act,
            request_id=call.request_id,
            server=answer.server,
            expires=moment(claims.lic_exp),
            offline_until=moment(saved.claims.exp) if saved.code is Local.OFFLINE_VALID and saved.claims else None,
            entitlements=claims.ent,
            uses=claims.uses,
            max_uses=claims.max_uses,
            node=claims.node,
            as_of=moment(claims.as_of),
            attempts=attempts,
        )

    def _ends_the_token(self, call: Call, claims: VerdictClaims) -> bool:
        """Whether the seat was given back, or the ledger that gave the saved token denies for good."""
        if call.act == "deactivate" and claims.valid:
            return True
        saved = self._saved().claims
        is_of_its_ledger = saved is None or saved.led == claims.led
        return is_of_its_ledger and not claims.valid and claims.code in codes.FINAL_DENIALS

    def _save(self, token: str, verdict: VerdictClaims, server: str) -> None:
        """Keeps a token that is ours and this machine's, in place of one that is not newer."""
        if self._fingerprint is None:
            return
        bound_to = {"key": self._key, "fingerprint": self._fingerprint, "product": self._product}
        try:
            claims = self._verifier.verify_given_lease(token, **bound_to)
        except TokenInvalid:
            return
        saved = self._saved().claims
        # One from the verdict's future was signed by a server whose clock was wrong, and keeps no other out.
        if saved is None or not claims.iat < saved.iat <= verdict.iat:
            self._store.save(token, fingerprint=self._fingerprint, server=server)

    def _saved(self, entitlements: Sequence[str] = ()) -> offline.Offline:
        return offline.decide(
            self._verifier,
            self._store,
            key=self._key,
            fingerprint=self._fingerprint,
            product=self._product,
            now=int(self._now()),
            entitlements=entitlements,
        )

    def _has_usable_token(self) -> bool:
        return self._saved().code is Local.OFFLINE_VALID

    def _offline(self, act: str, request_id: str, walked: Walked, entitlements: Sequence[str]) -> Result:
        saved = self._saved(entitlements) if act in _OFFLINE_ACTS else offline.Offline(Local.NO_SERVER)
        if saved.claims is not None and act != "status":
            self._store.raise_local_floor(int(self._now()))
        claims = saved.claims
        return Result(
            valid=saved.code is Local.OFFLINE_VALID,
            code=saved.code,
            detail=self._offline_detail(act, saved, walked),
            source="offline",
            act=act,
            request_id=request_id,
            expires=moment(claims.lic_exp) if claims else None,
            offline_until=moment(claims.exp) if claims else None,
            entitlements=claims.ent if claims else (),
            attempts=walked.attempts,
        )

    def _offline_detail(self, act: str, saved: offline.Offline, walked: Walked) -> str:
        """Why no server let the client in, and what the saved token has to say."""
        if act == "status":
            return self._saved_detail(saved)
        found = diagnosis(walked.failures, now=int(self._now()), floor=self._store.floor())
        cause = texts.cause_text(found, self._language)
        if saved.code is Local.NO_SERVER and saved.reason is None and found.cause is not Cause.UNREACHABLE:
            return cause
        said = self._saved_detail(saved) if act in _OFFLINE_ACTS else self._texts["NEEDS_SERVER"]
        return self._texts["AND"].format(cause=cause, saved=said)

    def _saved_detail(self, saved: offline.Offline) -> str:
        named = _SAVED_REASONS.get(saved.reason or "")
        return self._texts[named] if named else texts.detail_of(saved.code, False, self._language)


def _folders(state_dir: Path | str | None, floor_dir: Path | str | None) -> tuple[Path, Path]:
    """Where the token is, and the second place of the floor."""
    if state_dir is None:
        return files.state_dir(), Path(floor_dir or files.floor_dir())
    return Path(state_dir), Path(floor_dir or Path(state_dir) / "floor")


def _check_number(name: str, number: int, largest: int) -> None:
    if type(number) is not int or not 1 <= number <= largest:
        raise ConfigurationError(f"{name}: must be a whole number from 1 to {largest}")


def _check_version(version: str | None) -> None:
    if version is not None and _VERSION.fullmatch(version) is None:
        raise ConfigurationError("version: must be like 1.2 or 1.2.3rc1 (PEP 440)")


def _check(name: str, text: str, shortest: int, longest: int) -> None:
    """What every server would refuse is refused here. No message shows the text: it may be a key."""
    wrong = KeyMalformed if name == "key" else ConfigurationError
    if not isinstance(text, str) or not shortest <= len(text) <= longest:
        raise wrong(f"{name}: must be a text of {shortest} to {longest} characters")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise wrong(f"{name}: must not hold control characters")
