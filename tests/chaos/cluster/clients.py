"""Programs of customers, each on its own license, that ask twice a second all the while; and an admin.

Each program knows what it must be told, since nobody else touches its license. What has an effect (activate,
deactivate, usage) it asks again with the same request id until it is answered, before it does anything else.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import requests

from api.ids import retry_id
from api.licensing import IDEMPOTENT_ACTS
from tests.chaos.cluster.history import Check, History, Suspension, now, run_time
from tests.chaos.cluster.site import Site
from tests.chaos.cluster.walk import Installer, Walker
from tests.support.nodes import Sold, sell

#: A machine is dead after so many seconds without a ping. The programs ping four times as often.
HEARTBEAT_S = 30
_PING_EVERY = 15
_DAY_S = 86_400
_DOUBT_S = 60.0
_AGAIN_S = 0.5
_TRIES = 60
#: A seat that was given up at a node that then died is taken for the others until that comes back: more than it takes.
_RULES: dict[str, Any] = {"max_machines": 6, "machine_heartbeat_s": HEARTBEAT_S, "check_in_days": 2}


class Program:
    """One customer's program on license `sold`."""

    def __init__(self, name: str, installer: Installer, sold: Sold, history: History, rng: random.Random) -> None:
        self.name, self.sold = name, sold
        self._installer, self._history, self._rng = installer, history, rng
        self._installed: dict[str | None, Walker] = {}
        self._here, self._moves = f"{name}-pc", 0
        self._there: str | None = None
        self._last_usage: tuple[str, int] | None = None
        self._turns = 0

    def begin(self) -> None:
        """What a customer does first."""
        self._effect("activate", self._here)
        self._ask("ping", self._here)

    def turn(self) -> None:
        """One thing that programs do."""
        self._turns += 1
        if self._turns % _PING_EVERY == 0:
            self._ask("ping", self._here)
            return
        does = (self._check, self._use, self._use_again, self._move, self._check_in, self._activate_again)
        self._rng.choices(does, weights=(70, 12, 4, 5, 4, 5))[0]()

    def _check(self) -> None:
        self._ask("validate", self._rng.choice([self._here, self._here, self._here, None]))

    def _check_in(self) -> None:
        self._ask("check-in", None)

    def _activate_again(self) -> None:
        self._effect("activate", self._here)

    def _move(self) -> None:
        """Takes a seat for another machine, or gives it up."""
        if self._there is None:
            self._moves += 1
            self._there = f"{self.name}-laptop-{self._moves}"
            self._effect("activate", self._there)
        else:
            self._effect("deactivate", self._there)
            del self._installed[self._there]
            self._there = None

    def _use(self) -> None:
        request_id, increment = uuid.uuid4().hex, self._rng.randint(1, 3)
        self._effect("usage", None, request_id, increment=increment)
        self._last_usage = (request_id, increment)

    def _use_again(self) -> None:
        """As a program does that did not get to read the answer."""
        if self._last_usage is not None:
            request_id, increment = self._last_usage
            self._effect("usage", None, request_id, increment=increment)

    def _effect(self, act: str, fingerprint: str | None, request_id: str | None = None, **fields: Any) -> None:
        request_id = request_id or uuid.uuid4().hex
        for _ in range(_TRIES):
            if self._ask(act, fingerprint, request_id, **fields).answered:
                break
            time.sleep(_AGAIN_S)
        else:
            raise AssertionError(f"{self.name}: {act} was never answered")
        with self._history.lock:
            if act == "usage":
                self._history.uses[request_id] = (self.sold.id, fields["increment"])
            else:
                self._history.seats[self.sold.id, fingerprint or ""] = act == "activate"

    def _ask(self, act: str, fingerprint: str | None, request_id: str | None = None, **fields: Any) -> Check:
        if fingerprint not in self._installed:
            self._installed[fingerprint] = self._installer.install(self.sold.key, fingerprint)
        about = {"client": self.name, "act": act, "fingerprint": fingerprint, "expected": True}
        check = asked(self._installed[fingerprint], self.sold, request_id or uuid.uuid4().hex, about, **fields)
        self._history.add(check)
        return check


class Auditor:
    """Asks about licenses that others decide on: one suspended for good, one expired, one that an admin toggles."""

    def __init__(self, installer: Installer, history: History, bad: list[Sold], toggled: Sold) -> None:
        self._history = history
        licenses: list[tuple[Sold, bool | None]] = [*((sold, False) for sold in bad), (toggled, None)]
        self._all = [(installer.install(sold.key, None), sold, expected) for sold, expected in licenses]
        self._turns = 0

    def turn(self) -> None:
        """One check, of the toggled license every other time."""
        walker, sold, expected = self._all[-1] if self._turns % 2 else self._all[self._turns // 2 % 2]
        self._turns += 1
        about = {"client": "auditor", "act": "validate", "fingerprint": None, "expected": expected}
        self._history.add(asked(walker, sold, uuid.uuid4().hex, about))


class Admin:
    """Suspends and reinstates a license through whichever node takes it."""

    def __init__(self, site: Site, history: History, sold: Sold) -> None:
        self._site, self._history, self._sold = site, history, sold
        self._suspended: Suspension | None = None
        self._since: float | None = None

    def turn(self) -> None:
        """Suspends, next time reinstates; what no node takes is tried again next time."""
        self._since = self._since or now()
        if not self._is_done("reinstate" if self._suspended else "suspend"):
            return
        span, self._since = (self._since, now()), None
        with self._history.lock:
            if self._suspended is None:
                self._suspended = Suspension(self._sold.id, span)
                self._history.suspensions.append(self._suspended)
            else:
                self._suspended.to, self._suspended = span, None

    def _is_done(self, action: str) -> bool:
        headers = {"Authorization": f"Bearer {self._site.secrets['ADMIN_TOKEN']}"}
        for url in self._site.urls:
            sent = now()
            try:
                path = f"{url}/v1/licenses/{self._sold.id}/actions/{action}"
                if requests.post(path, headers=headers, timeout=5).status_code == 200:
                    return True
            except requests.RequestException:
                # It may be done yet, whenever that node wakes: nobody can say what the license is meanwhile.
                with self._history.lock:
                    self._history.doubts.append((sent, sent + _DOUBT_S))
        return False


def asked(walker: Walker, sold: Sold, request_id: str, about: dict[str, Any], **fields: Any) -> Check:
    """One logical check, as it is to be remembered: `about` it are its client, act, fingerprint, and what is due."""
    began = now()
    result, said = walker.walk(about["act"], request_id, **fields)
    told: dict[str, Any] = {"ended": now(), "code": result.code}
    if said is not None:
        told |= {name: said.claims[name] for name in ("node", "valid")} | {"durability": said.durability}
        told["as_of"] = run_time(said.claims["as_of"])
        # A retry's answer has an id of its own: the event is that of the first.
        retried = retry_id(result.act, sold.key_hash, request_id)
        told["event_id"] = retried if result.act in IDEMPOTENT_ACTS else said.claims["jti"]
    tried = tuple(f"{attempt.server} {attempt.reason}" for attempt in result.attempts)
    return Check(license_id=sold.id, request_id=request_id, began=began, tried=tried, **about, **told)


class Crowd:
    """All of them at work, each on its own thread, from `start` to `stop`."""

    def __init__(self, site: Site, history: History, installer: Installer, rate: float, seed: float) -> None:
        """`rate`: checks a second by the programs together."""
        count = max(1, round(rate / 2))
        self._end = threading.Event()
        self._failed: list[str] = []
        soon = now() + 30 * _DAY_S
        sold = [sell(site.database, _RULES, expires_at=soon, checked_in_at=now()) for _ in range(count)]
        bad = [sell(site.database, status="suspended"), sell(site.database, expires_at=now() - _DAY_S)]
        toggled = sell(site.database)
        rngs = [random.Random(f"{seed} {i}") for i in range(count)]
        self.programs = [Program(f"program-{i}", installer, sold[i], history, rngs[i]) for i in range(count)]
        auditor, admin = Auditor(installer, history, bad, toggled), Admin(site, history, toggled)
        turns = [(program.turn, count / rate) for program in self.programs]
        turns += [(auditor.turn, 0.5), (admin.turn, 7.0)]
        self._threads = [
            threading.Thread(target=self._loop, args=(turn, every, i / len(turns) * every), daemon=True)
            for i, (turn, every) in enumerate(turns)
        ]

    def start(self) -> None:
        for program in self.programs:
            program.begin()
        for thread in self._threads:
            thread.start()

    def stop(self) -> list[str]:
        """Every program ends what it is at. Gives what went wrong with programs, not with their checks."""
        self._end.set()
        for thread in self._threads:
            thread.join(120)
        return [*self._failed, *(f"{thread.name} does not end" for thread in self._threads if thread.is_alive())]

    def _loop(self, turn: Callable[[], None], every: float, offset: float) -> None:
        """A turn `every` seconds, as by a clock; those that a slow one has run over are left out."""
        due = now() + offset
        while not self._end.wait(max(0.0, due - now())):
            try:
                turn()
            except Exception as error:
                self._failed.append(f"{type(error).__name__}: {error}")
                return
            due = max(due + every, now())
