"""Who may call: API keys and signatures, several of each, and what is told first."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from api.admin.token_store import secret_hash
from api.checks.request import ClientRequest, client_request_from
from api.config.settings import Settings
from api.problems import Problem
from api.web.client_auth import ClientAuth, Skewed, signature
from tests.support.nodes import API_KEY, SHARED_SECRET, environment, signed

NOW = 1_764_000_000.0
PATH, BODY = "/v1/validate", b'{"key": "..."}'


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder: Path = tmp_path_factory.mktemp("node")
    return Settings.from_env(environment(f"sqlite:///{folder / 'x.db'}", folder))


def checked(settings: Settings, headers: dict[str, str], *, now: float = NOW, body: bytes = BODY, **call: str) -> str:
    """`let in`, or the code of the problem."""
    try:
        ClientAuth(settings).check(sent(headers, raw=body, **call), now)
    except Problem as problem:
        return problem.code
    return "let in"


def sent(headers: dict[str, str], *, raw: bytes, method: str = "POST", path: str = PATH) -> ClientRequest:
    """A call with these headers, as it comes out of the environ."""
    environ = {f"HTTP_{name.upper().replace('-', '_')}": text for name, text in headers.items()}
    return client_request_from({**environ, "REQUEST_METHOD": method}, path, raw)


def good(**changes: Any) -> dict[str, str]:
    return signed("POST", PATH, BODY, now=NOW, **changes)


def with_settings(settings: Settings, **changes: Any) -> Settings:
    return dataclasses.replace(settings, **changes)


def test_a_signed_call_is_let_in(settings: Settings) -> None:
    assert checked(settings, good()) == "let in"


def test_the_signature_is_the_contracts() -> None:
    """Written down, so that clients in other languages may be held against it."""
    text = b'request-1.1764000000.POST /v1/validate.{"key":"K"}'
    assert signature(b"a-secret", text) == "v1,h/YbiMiPHYNscb14+EfzlMbYenF1rXEG4a2JNWPGkJY="


@pytest.mark.parametrize(
    ("other", "code"),
    [
        ({"method": "PUT"}, "SIGNATURE_INVALID"),
        ({"path": "/v1/activate"}, "SIGNATURE_INVALID"),
        ({"body": BODY + b" "}, "SIGNATURE_INVALID"),
        ({"now": NOW + 300}, "let in"),
        ({"now": NOW - 300}, "let in"),
        ({"now": NOW + 301}, "TIMESTAMP_SKEWED"),
        ({"now": NOW - 301}, "TIMESTAMP_SKEWED"),
        ({"now": NOW - 301, "body": b"other"}, "TIMESTAMP_SKEWED"),
    ],
)
def test_everything_that_is_signed_counts(settings: Settings, other: dict[str, Any], code: str) -> None:
    assert checked(settings, good(), **other) == code


def test_a_skew_tells_the_time_and_whether_only_the_clock_is_wrong(settings: Settings) -> None:
    for body, genuine in ((BODY, True), (b"other", False)):
        with pytest.raises(Skewed) as refused:
            ClientAuth(settings).check(sent(good(), raw=body), NOW + 5000.7)
        assert (refused.value.members, refused.value.genuine) == ({"ts": int(NOW + 5000.7)}, genuine)


@pytest.mark.parametrize("name", ["X-Request-Id", "X-Timestamp", "X-Signature"])
@pytest.mark.parametrize("text", [None, "", " "])
def test_a_missing_header_is_an_invalid_signature(settings: Settings, name: str, text: str | None) -> None:
    headers = {**good(), name: text or ""}
    if text is None:
        del headers[name]
    assert checked(settings, headers) == "SIGNATURE_INVALID"


@pytest.mark.parametrize(
    ("api_key", "code"),
    [
        (API_KEY, "let in"),
        ("second-api-key", "let in"),
        ("", "API_KEY_INVALID"),
        (f"{API_KEY},second-api-key", "API_KEY_INVALID"),
        ("\u00e9\ud800", "API_KEY_INVALID"),
    ],
)
def test_one_of_several_api_keys_will_do(settings: Settings, api_key: str, code: str) -> None:
    both = with_settings(settings, api_keys=(API_KEY, "second-api-key"))
    assert checked(both, {**good(), "X-API-Key": api_key}) == code


def test_several_secrets_and_several_signatures_rotate(settings: Settings) -> None:
    both = with_settings(settings, shared_secrets=(SHARED_SECRET, "the-next-secret"))
    for secrets in (("the-next-secret",), (SHARED_SECRET,), ("unknown", "the-next-secret"), (SHARED_SECRET, "later")):
        assert checked(both, good(secrets=secrets)) == "let in"
    assert checked(both, good(secrets=("unknown", "later"))) == "SIGNATURE_INVALID"
    assert checked(settings, good(secrets=("the-next-secret",))) == "SIGNATURE_INVALID"


def test_what_is_not_required_is_not_looked_at(settings: Settings) -> None:
    nothing = with_settings(settings, require_api_key=False, require_signature=False)
    assert checked(nothing, {}) == "let in"
    assert checked(nothing, {"X-API-Key": "wrong", "X-Signature": "wrong", "X-Timestamp": "never"}) == "let in"
    assert checked(with_settings(settings, require_signature=False), {"X-API-Key": API_KEY}) == "let in"
    assert checked(with_settings(settings, require_api_key=False), {**good(), "X-API-Key": "wrong"}) == "let in"


def test_the_api_key_is_told_before_the_clock_and_the_clock_before_the_signature(settings: Settings) -> None:
    wrong = {**good(secrets=("wrong",)), "X-API-Key": "wrong"}
    assert checked(settings, wrong, now=NOW + 5000) == "API_KEY_INVALID"
    assert checked(settings, {**wrong, "X-API-Key": API_KEY}, now=NOW + 5000) == "TIMESTAMP_SKEWED"
    assert checked(settings, {**wrong, "X-API-Key": API_KEY}) == "SIGNATURE_INVALID"


def test_a_request_id_of_another_shape_is_malformed_once_the_rest_holds(settings: Settings) -> None:
    assert checked(settings, good(request_id="short")) == "MALFORMED"
    assert checked(settings, good(request_id="short", secrets=("wrong",))) == "SIGNATURE_INVALID"
    loose = with_settings(settings, require_api_key=False, require_signature=False)
    assert checked(loose, {"X-Request-Id": "short"}) == "MALFORMED"


def test_secrets_are_counted_and_kept_as_hashes() -> None:
    assert secret_hash("a") != secret_hash("b")
    assert len(secret_hash("\ud800")) == 43
