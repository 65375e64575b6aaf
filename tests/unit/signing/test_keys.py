"""Signing keys: what is read from settings, what is refused and with which words, and what clients are shown."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from joserfc.jwk import ECKey

from api.signing import SigningKey, SigningKeyError, generate, jwks, load_public_jwk, parse_signing_keys, public_jwk
from api.signing.base64url import b64url_decode
from tests.vectors import jws
from tests.vectors.cases import CURRENT, SECOND

FIRST_PEM, SECOND_PEM = jws.pem_of(CURRENT), jws.pem_of(SECOND)
PKCS8 = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
SEC1 = (serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL)
PLAIN = serialization.NoEncryption()
LOCKED = serialization.BestAvailableEncryption(b"password")
EC_PARAMETERS = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"


def refusal(text: str) -> str:
    with pytest.raises(SigningKeyError) as caught:
        parse_signing_keys(text)
    message = str(caught.value)
    assert caught.value.__cause__ is None
    assert not any(line in message for line in text.split() if len(line) > 20), "the message shows the key"
    return message


def public_pem(private: ec.EllipticCurvePrivateKey) -> str:
    return (
        private.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def test_a_generated_key_comes_back_from_its_pem() -> None:
    key = generate()
    assert parse_signing_keys(key.pem()) == (key,)


def test_two_generated_keys_differ() -> None:
    assert generate() != generate()


def test_several_pems_in_one_text_keep_their_order() -> None:
    kids = [key.kid for key in parse_signing_keys(SECOND_PEM + FIRST_PEM)]
    assert kids == [jws.jwk_of(SECOND)["kid"], jws.jwk_of(CURRENT)["kid"]]


@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(FIRST_PEM.encode()).decode(),
        base64.encodebytes(FIRST_PEM.encode()).decode(),
        f"  {FIRST_PEM}\n\n",
        FIRST_PEM.replace("\n", "\r\n"),
        CURRENT.private_bytes(*SEC1, PLAIN).decode(),
        EC_PARAMETERS + CURRENT.private_bytes(*SEC1, PLAIN).decode(),
        "# the key of May\n" + FIRST_PEM,
    ],
    ids=["base64", "wrapped base64", "white space", "CRLF", "SEC 1", "after its parameters", "after a comment"],
)
def test_other_ways_to_write_the_same_key(text: str) -> None:
    assert parse_signing_keys(text) == (SigningKey.of(CURRENT),)


def test_several_keys_in_one_base64_text() -> None:
    assert len(parse_signing_keys(base64.b64encode((FIRST_PEM + SECOND_PEM).encode()).decode())) == 2


@pytest.mark.parametrize("text", ["", "   ", "hunter2", base64.b64encode(b"hunter2").decode(), "\ud800", "Zm9v\u00e9"])
def test_a_text_that_is_no_pem_is_refused(text: str) -> None:
    assert refusal(text) == "neither PEM nor base64 of PEM"


def test_a_public_key_is_refused_by_that_name() -> None:
    assert refusal(FIRST_PEM + public_pem(SECOND)) == "key 2 is a public key; signing needs the private one"


def test_a_certificate_is_refused_by_that_name() -> None:
    text = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"
    assert refusal(text) == "key 1 is a block of the kind CERTIFICATE, not a private key"


def test_another_curve_is_refused_by_its_name() -> None:
    pem = ec.generate_private_key(ec.SECP384R1()).private_bytes(*PKCS8, PLAIN).decode()
    assert refusal(pem) == "key 1 is on the curve secp384r1; ES256 needs P-256 (secp256r1)"


@pytest.mark.parametrize("private", [ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048)])
def test_a_key_of_another_kind_is_refused(private: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey) -> None:
    assert refusal(private.private_bytes(*PKCS8, PLAIN).decode()) == "key 1 is not an EC key; ES256 needs EC P-256"


@pytest.mark.parametrize("form", [PKCS8, SEC1], ids=["PKCS 8", "SEC 1"])
def test_a_key_under_a_password_is_refused(
    form: tuple[serialization.Encoding, serialization.PrivateFormat],
) -> None:
    pem = CURRENT.private_bytes(*form, LOCKED).decode()
    assert refusal(pem) == "key 1 is protected by a password; give it without one"


def test_a_damaged_block_is_refused() -> None:
    lines = FIRST_PEM.splitlines()
    assert refusal("\n".join([lines[0], lines[2], lines[-1]])).startswith("key 1 is a damaged PEM block")


@pytest.mark.parametrize("cut", [FIRST_PEM[:100], FIRST_PEM + SECOND_PEM[:100], FIRST_PEM + SECOND_PEM[40:]])
def test_a_block_that_is_cut_off_is_refused(cut: str) -> None:
    assert refusal(cut).startswith("a PEM block is cut off or damaged")


def test_the_parameters_of_a_curve_alone_are_refused() -> None:
    assert refusal(EC_PARAMETERS) == "holds the parameters of a curve and no key"


def test_the_same_key_twice_is_refused_in_whatever_form() -> None:
    text = FIRST_PEM + SECOND_PEM + CURRENT.private_bytes(*SEC1, PLAIN).decode()
    assert refusal(text) == "key 3 is the same as key 1"


def test_the_repr_shows_the_kid_and_nothing_else() -> None:
    key = SigningKey.of(CURRENT)
    assert repr(key) == f"SigningKey(kid='{key.kid}')"


@pytest.mark.parametrize("private", [CURRENT, SECOND], ids=["plain", "x begins with a zero byte"])
def test_the_kid_is_the_thumbprint_that_an_independent_library_computes(private: ec.EllipticCurvePrivateKey) -> None:
    jwk = public_jwk(private.public_key())
    assert jwk["kid"] == ECKey.import_key(public_pem(private)).thumbprint()
    assert jwk == jws.jwk_of(private)


def test_the_public_jwk_has_no_private_member() -> None:
    assert set(generate().public_jwk) == {"kty", "crv", "x", "y", "kid", "alg", "use"}


def test_a_public_jwk_loads_back() -> None:
    jwk = SigningKey.of(SECOND).public_jwk
    assert public_jwk(load_public_jwk(json.loads(json.dumps(jwk)))) == jwk


@pytest.mark.parametrize(
    "changes",
    [
        {"kty": "RSA"},
        {"crv": "P-384"},
        {"alg": "ES384"},
        {"kid": None},
        {"x": None},
        {"x": "AAAA"},
        {"x": jws.b64(b"\0" + b64url_decode(jws.jwk_of(CURRENT)["x"]))},
        {"y": jws.b64(b"\0" + b64url_decode(jws.jwk_of(CURRENT)["y"]))},
        {"x": jws.b64(bytes(32)), "y": jws.b64(bytes(32))},
        {"y": jws.jwk_of(CURRENT)["y"] + "="},
    ],
)
def test_a_jwk_that_is_no_p256_key_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(SigningKeyError):
        load_public_jwk({**jws.jwk_of(CURRENT), **changes})


def test_the_key_set_has_the_current_key_first_and_each_once() -> None:
    a, b, c = (generate().public_jwk for _ in range(3))
    assert jwks(b, [a, b, c]) == {"keys": [b, a, c]}
