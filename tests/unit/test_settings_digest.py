"""What nodes must have alike: their digests tell who differs in what, and nothing of what it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.config.secret_files import generate_secrets
from api.config.settings import Settings
from api.supervisor.settings_digest import differing, digest

ONE, TWO = generate_secrets().settings(), generate_secrets().settings()
URL = "postgresql://u@h/db"


def digest_of(secrets: dict[str, str], **more: str) -> str:
    return digest(Settings.from_env({"DATABASE_URL": URL, **secrets, **more}))


def test_nodes_with_the_same_secrets_differ_in_nothing() -> None:
    assert list(differing({"a": digest_of(ONE), "b": digest_of(ONE, NODE_RANK="2"), "c": digest_of(ONE)})) == []


@pytest.mark.parametrize("name", ["API_KEY", "SHARED_SECRET", "ADMIN_TOKEN"])
def test_a_secret_that_differs_is_named_with_the_nodes_by_what_they_have(name: str) -> None:
    other = digest_of(ONE | {name: TWO[name]})
    assert list(differing({"a": digest_of(ONE), "c": other, "b": digest_of(ONE), "d": other})) == [
        (name, [["a", "b"], ["c", "d"]])
    ]


def test_in_which_order_several_are_listed_is_of_no_consequence() -> None:
    pair = (ONE["API_KEY"], TWO["API_KEY"])
    both = [digest_of(ONE | {"API_KEY": ",".join(order)}) for order in (pair, pair[::-1])]
    assert list(differing({"a": both[0], "b": both[1]})) == []
    assert list(differing({"a": both[0], "b": digest_of(ONE)})) == [("API_KEY", [["a"], ["b"]])]


def test_nodes_without_a_signing_key_in_common_differ_in_that_and_are_compared_no_further() -> None:
    assert list(differing({"a": digest_of(ONE), "b": digest_of(TWO)})) == [("SIGNING_KEY", [["a"], ["b"]])]


def test_one_signing_key_in_common_is_enough_to_compare_the_rest() -> None:
    made = [Settings.from_env({"DATABASE_URL": URL, **secrets}).signing_keys for secrets in (ONE, TWO)]
    both = {"SIGNING_KEY": "".join(key.pem() for keys in made for key in keys), "API_KEY": TWO["API_KEY"]}
    found = dict(differing({"a": digest_of(ONE), "b": digest_of(ONE | both)}))
    assert found == {"SIGNING_KEY": [["a"], ["b"]], "API_KEY": [["a"], ["b"]]}


@pytest.mark.parametrize("text", [None, "", "of a later release", "id=one.two", "id"])
def test_a_node_of_another_release_is_not_compared(text: str | None) -> None:
    assert list(differing({"a": digest_of(ONE), "old": text})) == []


def test_a_digest_tells_nothing_without_the_signing_key_and_fits_a_beat() -> None:
    plain = digest_of(ONE)
    assert len(plain) < 60
    assert not any(secret in plain for secret in ONE.values())
    same_secrets = digest_of(ONE | {"SIGNING_KEY": TWO["SIGNING_KEY"]})
    assert not set(plain.partition("=")[2].split(".")) & set(same_secrets.partition("=")[2].split("."))
    assert len(set(plain.partition("=")[2].split("."))) == 3


def test_two_settings_with_one_value_have_different_digests(tmp_path: Path) -> None:
    twice = digest_of(ONE | {"SHARED_SECRET": ONE["API_KEY"]}, DATA_DIR=str(tmp_path))
    assert len(set(twice.partition("=")[2].split("."))) == 3
