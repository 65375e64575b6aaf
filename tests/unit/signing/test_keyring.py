"""Which key signs, which are shown, and how keys come and go."""

from __future__ import annotations

import pytest

from api.signing import KeyChangeRefused, KeyNotPermitted, Keyring, KeyStatus, SigningKey, keyring
from tests.vectors.cases import CURRENT, SECOND

A, B = SigningKey.of(CURRENT), SigningKey.of(SECOND)
EVERY = {"n": "next", "c": "current", "p": "previous", "r": "revoked"}


def test_the_held_key_that_is_current_signs_wherever_it_stands() -> None:
    assert Keyring((A, B), {A.kid: "previous", B.kid: "current"}).signing_key() is B


def test_a_node_without_the_current_key_is_told_which_it_needs_and_what_it_holds() -> None:
    with pytest.raises(KeyNotPermitted) as caught:
        Keyring((A,), {A.kid: "revoked", B.kid: "current"}).signing_key()
    assert f"the current signing key is {B.kid}" in str(caught.value)
    assert f"{A.kid} (revoked)" in str(caught.value)


@pytest.mark.parametrize("status", ["next", "previous", "revoked"])
def test_a_key_of_any_other_status_does_not_sign(status: str) -> None:
    with pytest.raises(KeyNotPermitted, match="no current signing key"):
        Keyring((A,), {A.kid: status}).signing_key()


def test_a_key_that_the_ledger_does_not_know_does_not_sign() -> None:
    with pytest.raises(KeyNotPermitted, match="unknown to the ledger"):
        Keyring((A,), {B.kid: "current"}).signing_key()


def test_a_node_without_any_key_is_told_so() -> None:
    with pytest.raises(KeyNotPermitted, match="SIGNING_KEY holds no key"):
        Keyring((), {B.kid: "current"}).signing_key()


def test_current_comes_first_among_the_shown_and_revoked_is_not_shown() -> None:
    assert Keyring((A,), EVERY).published() == ("c", "n", "p")


def test_a_key_that_is_held_and_not_permitted_is_not_shown() -> None:
    assert Keyring((A, B), {A.kid: "current"}).published() == (A.kid,)


def test_a_new_key_is_next_and_changes_nothing_else() -> None:
    assert keyring.add({"c": "current"}, "n") == {"c": KeyStatus.CURRENT, "n": KeyStatus.NEXT}


@pytest.mark.parametrize("kid", list(EVERY))
def test_a_known_key_cannot_be_added_again(kid: str) -> None:
    with pytest.raises(KeyChangeRefused, match=EVERY[kid]):
        keyring.add(EVERY, kid)


def test_activating_the_next_key_makes_the_current_one_previous() -> None:
    assert keyring.activate(EVERY, "n") == {"n": "current", "c": "previous", "p": "previous", "r": "revoked"}


def test_a_previous_key_can_come_back() -> None:
    assert keyring.activate(EVERY, "p") == {"n": "next", "c": "previous", "p": "current", "r": "revoked"}


def test_activating_the_current_key_changes_nothing() -> None:
    assert keyring.activate(EVERY, "c") == EVERY


def test_a_revoked_key_cannot_come_back() -> None:
    with pytest.raises(KeyChangeRefused, match="revoked"):
        keyring.activate(EVERY, "r")


@pytest.mark.parametrize("kid", ["n", "p", "r"])
def test_retiring_revokes_and_changes_nothing_else(kid: str) -> None:
    assert keyring.retire(EVERY, kid) == {**EVERY, kid: "revoked"}


def test_the_current_key_cannot_be_retired() -> None:
    with pytest.raises(KeyChangeRefused, match="activate another one first"):
        keyring.retire(EVERY, "c")


@pytest.mark.parametrize("change", [keyring.activate, keyring.retire])
def test_an_unknown_key_cannot_change(change: object) -> None:
    assert callable(change)
    with pytest.raises(KeyChangeRefused, match="not known"):
        change(EVERY, "x")


def test_a_change_leaves_what_it_was_given_alone() -> None:
    before = dict(EVERY)
    keyring.add(EVERY, "x")
    keyring.activate(EVERY, "n")
    keyring.retire(EVERY, "p")
    assert before == EVERY
