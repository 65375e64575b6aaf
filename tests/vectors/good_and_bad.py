"""Every verdict and lease of the vectors: the good ones, and one bad one for each cause of refusal."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import utils

from tests.vectors import cases, jws
from tests.vectors.cases import CURRENT, NOW, SECOND, STRANGER, Json, call, lease_claims, offline, verdict_claims
from tests.vectors.jws import ORDER

_EDGE = 2**53


def verdict_cases() -> list[Json]:
    """What is particular to verdicts: what they are bound to, and that no clock counts."""
    return _good_verdicts() + _bound_verdicts() + _faulty_claims("verdict", verdict_claims) + _verdict_times()


def lease_cases() -> list[Json]:
    """What is particular to leases: this key, this machine, this time."""
    return _good_leases() + _bound_leases() + _faulty_claims("lease", lease_claims) + _lease_times()


def token_cases(kind: str) -> list[Json]:
    """What every token must stand: its form, its header and its signature."""
    return _forms(kind) + _headers(kind) + _signatures(kind)


def _case(kind: str, name: str, token: str, expect: str, **inputs: Any) -> Json:
    given = call(**inputs) if kind == "verdict" else offline(**inputs)
    return {"name": name, "token": token, **given, "expect": expect}


def _token(kind: str, claims: Any = None, header: Json | None = None, private: Any = CURRENT) -> str:
    return (cases.verdict_token if kind == "verdict" else cases.lease_token)(claims, header, private)


def _answer(name: str, inputs: Json, **changes: Any) -> Json:
    """A good verdict over `inputs`."""
    token = cases.verdict_token(verdict_claims(inputs, **changes))
    return {"name": name, "token": token, **inputs, "expect": "valid"}


def _good_verdicts() -> list[Json]:
    body = '{ "key" : "PROT-7Q2M-4XKD-9WFA-3HTZ",\r\n "name":"Escrit\u00f3rio \u2192 \U0001f5a5" }'
    gone: Json = {"valid": False, "ent": [], "lic_exp": None}
    acts = ("validate", "activate", "deactivate", "ping", "check-in", "usage", "checkout")
    escaped = jws.dumps(verdict_claims()).replace(b"notepad-pro", b"n\\u006ftepad\\u002dpro")
    spaced = json.dumps(verdict_claims(), indent=4).encode()
    half = jws.dumps(verdict_claims())[:-1] + b',"newer":"\\ud83d"}'
    return [
        *(_answer(f"a good verdict on {act}", call(act)) for act in acts),
        _answer("a denial is a good verdict", call(), code="SUSPENDED", valid=False),
        _answer("an unknown key", call(), code="NOT_FOUND", sub=None, uses=None, **gone),
        _answer("no fingerprint sent", call(fingerprint=None)),
        _answer("no request id sent", call(request_id=None)),
        _answer("beside a token", call(), th=jws.digest(cases.lease_token())),
        _answer("an unknown key of no product", call("check-in"), code="NOT_FOUND", sub=None, uses=None, **gone),
        _answer("a body with white space and text outside ASCII, hashed as it was sent", call(body=body)),
        _answer("a fingerprint outside ASCII", call(fingerprint="m\u00e1quina-\U0001f5a5")),
        _answer("claims that are not known are ignored", call(), newer={"a": [1.5, None]}),
        _answer("the largest whole number there may be", call(), max_uses=_EDGE - 1),
        _answer("a license that ended before 1970", call(), code="EXPIRED", valid=False, lic_exp=-1),
        _answer("an answer from years ago to this very nonce: no clock counts", call(), iat=1, exp=301, as_of=1),
        _case("verdict", "claims written with escapes", cases.verdict_token(escaped), "valid"),
        _case("verdict", "half a pair of surrogates in a claim that is not known", cases.verdict_token(half), "valid"),
        _case("verdict", "claims written over several lines", cases.verdict_token(spaced), "valid"),
        _case("verdict", "signed with the second pinned key", cases.verdict_token(private=SECOND), "valid"),
    ]


def _bound_verdicts() -> list[Json]:
    good = cases.verdict_token()
    sent = call()["body"]
    return [
        _case("verdict", "another issuer", cases.verdict_token(verdict_claims(iss="protecao.example")), "iss"),
        _case("verdict", "the verdict of another product", good, "aud", product="paint-pro"),
        _case("verdict", "no product in the verdict", cases.verdict_token(verdict_claims(aud=None)), "aud"),
        _case("verdict", "products as a list", cases.verdict_token(verdict_claims(aud=["notepad-pro"])), "claims"),
        _case("verdict", "the verdict of another call", good, "act", act="activate"),
        _case("verdict", "a replayed verdict: another nonce", good, "nonce", nonce="n0nce-BBBBBBBBBBBBBBBB_02"),
        _case("verdict", "the nonce in other letters", good, "nonce", nonce=cases.NONCE.lower()),
        _case("verdict", "pinned by a relay: another request id", good, "rid", request_id="req-9876543210"),
        _case("verdict", "a request id where none was sent", good, "rid", request_id=None),
        _case("verdict", "no request id where one was sent", cases.verdict_token(verdict_claims(rid=None)), "rid"),
        _case("verdict", "th as a list", cases.verdict_token(verdict_claims(th=["x"])), "claims"),
        _case("verdict", "another body", good, "rh", body=sent.replace("notepad", "paint")),
        _case("verdict", "the same body one byte short", good, "rh", body=sent[:-1]),
        _case("verdict", "the same body with a line end", good, "rh", body=sent + "\n"),
        _case("verdict", "another key's verdict", good, "kh", key=cases.OTHER_KEY),
        _case("verdict", "the key in small letters", good, "kh", key=cases.KEY.lower()),
        _case("verdict", "another machine's verdict", good, "fp", fingerprint="0000000000000000"),
        _case("verdict", "a fingerprint where none was sent", good, "fp", fingerprint=None),
        _case("verdict", "no fingerprint where one was sent", cases.verdict_token(verdict_claims(fp=None)), "fp"),
        _case("verdict", "valid as a word", cases.verdict_token(verdict_claims(valid="true")), "claims"),
        _case("verdict", "valid as a number", cases.verdict_token(verdict_claims(valid=1)), "claims"),
        _case("verdict", "as_of with a fraction", cases.verdict_token(verdict_claims(as_of=NOW + 0.5)), "number"),
        _case("verdict", "a use too many for a number", cases.verdict_token(verdict_claims(uses=_EDGE)), "number"),
    ]


def _verdict_times() -> list[Json]:
    return [
        _case("verdict", "ends when it begins", cases.verdict_token(verdict_claims(exp=NOW)), "times"),
        _case("verdict", "ends before it begins", cases.verdict_token(verdict_claims(exp=NOW - 1)), "times"),
    ]


def _good_leases() -> list[Json]:
    perpetual = lease_claims(lic_exp=None, grace_until=None)
    return [
        _case("lease", "a good lease", cases.lease_token(), "valid"),
        _case("lease", "of a perpetual license", cases.lease_token(perpetual), "valid"),
        _case("lease", "claims that are not known are ignored", cases.lease_token(lease_claims(newer="x")), "valid"),
        _case("lease", "signed with the second pinned key", cases.lease_token(private=SECOND), "valid"),
    ]


def _bound_leases() -> list[Json]:
    good = cases.lease_token()
    return [
        _case("lease", "another issuer", cases.lease_token(lease_claims(iss="")), "iss"),
        _case("lease", "the lease of another product", good, "aud", product="paint-pro"),
        _case("lease", "another key's lease", good, "kh", key=cases.OTHER_KEY),
        _case("lease", "copied to another machine", good, "fp", fingerprint="0000000000000000"),
        _case("lease", "for no machine in particular", cases.lease_token(lease_claims(fp=None)), "claims"),
        _case("lease", "for no product in particular", cases.lease_token(lease_claims(aud=None)), "claims"),
        _case("lease", "of no license", cases.lease_token(lease_claims(sub=None)), "claims"),
        _case("lease", "nbf with a fraction", cases.lease_token(lease_claims(nbf=NOW + 0.5)), "number"),
    ]


def _lease_times() -> list[Json]:
    good, ends = cases.lease_token(), NOW + 604_800
    waits = cases.lease_token(lease_claims(nbf=ends))
    return [
        _case("lease", "the last second", good, "valid", now=ends - 1),
        _case("lease", "expired to the second", good, "expired", now=ends),
        _case("lease", "expired long ago", good, "expired", now=ends + 86_400 * 365),
        _case("lease", "a clock 300 s behind", good, "valid", now=NOW - 300),
        _case("lease", "not yet valid: a clock 301 s behind", good, "not_yet_valid", now=NOW - 301),
        _case("lease", "begins when it ends", waits, "times"),
        _case("lease", "ends before it was made", cases.lease_token(lease_claims(exp=NOW - 1, nbf=NOW - 2)), "times"),
        _case("lease", "the floor just where the clock is", good, "valid", floor=NOW + 3_600),
        _case("lease", "the floor 300 s above the clock", good, "valid", floor=NOW + 3_900),
        _case("lease", "a clock set back 301 s below the floor", good, "clock_tampered", floor=NOW + 3_901),
        _case("lease", "a clock set back to before it began", good, "clock_tampered", now=NOW - 86_400, floor=NOW),
        _case("lease", "a floor in the past does not prolong it", good, "expired", now=ends, floor=NOW),
    ]


def _faulty_claims(kind: str, claims: Callable[..., Json]) -> list[Json]:
    """Claims that are signed by the right key and still are no claims."""
    good = claims()
    plain = jws.dumps(good)
    rows = [
        ("not JSON", b"not JSON", "claims"),
        ("cut off in the middle", plain[:-20], "claims"),
        ("something after the object", plain + b"{}", "claims"),
        ("a list of claims", jws.dumps([good]), "claims"),
        ("null for claims", b"null", "claims"),
        ("not UTF-8", plain.replace(b"protecao", b"protec\xe3o"), "claims"),
        ("half a pair of surrogates as if it were UTF-8", plain.replace(b"protecao", b"protec\xed\xa0\xbdo"), "claims"),
        ("a byte order mark", b"\xef\xbb\xbf" + plain, "claims"),
        ("a claim twice", plain[:-1] + b',"exp":9999999999}', "duplicate_member"),
        ("a claim twice, once with an escape", plain[:-1] + b',"e\\u0078p":9999999999}', "duplicate_member"),
        ("a member twice further in", plain[:-1] + b',"newer":{"a":1,"a":2}}', "duplicate_member"),
        ("exp missing", jws.dumps({name: good[name] for name in good if name != "exp"}), "claims"),
        ("kh missing", jws.dumps({name: good[name] for name in good if name != "kh"}), "claims"),
        ("led missing", claims(led=None), "claims"),
        ("exp null", jws.dumps({**good, "exp": None}), "claims"),
        ("lic_exp null", jws.dumps({**good, "lic_exp": None}), "claims"),
        ("sub null", jws.dumps({**good, "sub": None}), "claims"),
        ("aud null", jws.dumps({**good, "aud": None}), "claims"),
        ("exp as text", claims(exp=str(NOW + 300)), "number"),
        ("exp with a fraction", claims(exp=NOW + 300.5), "number"),
        ("exp with a zero fraction", claims(exp=float(NOW + 300)), "number"),
        ("exp with an exponent", plain.replace(b'"exp":1764', b'"exp":1e15,"was":1764'), "number"),
        ("exp with a zero before it", plain.replace(b'"exp":', b'"exp":0'), "claims"),
        ("exp true", claims(exp=True), "number"),
        ("exp beyond 2^53", claims(exp=_EDGE), "number"),
        ("exp beyond 2^64, where it would wrap", claims(exp=2**64 + NOW + 300), "number"),
        ("exp of 400 digits", claims(exp=10**400), "number"),
        ("iat far below zero", claims(iat=-_EDGE), "number"),
        ("exp not a number", plain.replace(b'"exp":1764', b'"exp":NaN,"was":1764'), "claims"),
        ("entitlements as text", claims(ent="pro"), "claims"),
    ]
    return [_case(kind, name, _token(kind, faulty), expect) for name, faulty, expect in rows]


def _forms(kind: str) -> list[Json]:
    good = _token(kind)
    head, payload, signature = good.split(".")
    flattened = json.dumps({"payload": payload, "protected": head, "signature": signature})
    rows = [
        ("empty", "", "truncated"),
        ("the header alone", head, "truncated"),
        ("no signature part", f"{head}.{payload}", "truncated"),
        ("cut in the signature", good[:-10], "signature_length"),
        ("cut by one character", good[:-1], "base64"),
        ("a fourth part", f"{good}.AAAA", "malformed"),
        ("five parts, as if encrypted", f"{good}.AAAA.AAAA", "malformed"),
        ("JSON in place of the compact form", flattened.replace(".", ""), "truncated"),
        ("an empty signature", f"{head}.{payload}.", "signature_length"),
        ("an empty header", f".{payload}.{signature}", "header"),
        ("padded", good + "==", "base64"),
        ("the alphabet of plain base64", f"{head}.{payload}.{signature[:-2]}+/", "base64"),
        ("white space before", f" {good}", "base64"),
        ("a line end after", f"{good}\n", "base64"),
        ("a line end within", f"{head}.{payload[:40]}\n{payload[40:]}.{signature}", "base64"),
        ("a character outside ASCII", f"{head}.{payload}.{signature[:-1]}\u00e9", "base64"),
        ("a NUL at the end", f"{good}\0", "base64"),
        ("a part of an impossible length", f"{head}.{payload}.{signature}AAA", "base64"),
        ("trailing bits that are not zero", good[:-1] + _next_letter(good[-1]), "base64"),
    ]
    return [_case(kind, name, token, expect) for name, token, expect in rows]


def _next_letter(letter: str) -> str:
    """The letter that differs only in the lowest bit: in the last place of 64 bytes it must be zero."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return alphabet[alphabet.index(letter) ^ 1]


def _headers(kind: str) -> list[Json]:
    other = "lease" if kind == "verdict" else "verdict"
    own_jwk = {"jwk": jws.jwk_of(STRANGER), "kid": jws.jwk_of(CURRENT)["kid"]}
    claims = verdict_claims() if kind == "verdict" else lease_claims()
    right = jws.header_of(CURRENT, f"{kind}+jwt")
    twice = jws.dumps(right)[:-1] + b',"alg":"ES256"}'
    rows: list[tuple[str, str, str]] = [
        ("alg none and no signature", _unsigned(kind, "none"), "alg"),
        ("alg none in odd letters", _unsigned(kind, "nOnE"), "alg"),
        ("HS256 with the public key's PEM as the secret", _hs256(kind), "alg"),
        ("ES384 named", _token(kind, header={"alg": "ES384"}), "alg"),
        ("es256 in small letters", _token(kind, header={"alg": "es256"}), "alg"),
        ("alg as a list", _token(kind, header={"alg": ["ES256"]}), "alg"),
        ("no alg", jws.compact({"kid": right["kid"], "typ": right["typ"]}, claims, CURRENT), "alg"),
        ("a crit header", _token(kind, header={"crit": ["exp"]}), "crit"),
        ("an empty crit header", _token(kind, header={"crit": []}), "crit"),
        (f"a {other} in its place", _token(other), "typ"),
        (f"these claims typed as a {other}", _token(kind, header={"typ": f"{other}+jwt"}), "typ"),
        ("typ JWT", _token(kind, header={"typ": "JWT"}), "typ"),
        ("typ in capitals", _token(kind, header={"typ": f"{kind.upper()}+JWT"}), "typ"),
        ("no typ", jws.compact({"alg": "ES256", "kid": right["kid"]}, claims, CURRENT), "typ"),
        ("signed by a stranger under its own kid", _token(kind, private=STRANGER), "kid"),
        ("no kid", jws.compact({"alg": "ES256", "typ": right["typ"]}, claims, CURRENT), "kid"),
        ("kid as a list", _token(kind, header={"kid": [right["kid"]]}), "kid"),
        ("a kid that looks like a path", _token(kind, header={"kid": "../../dev/null"}), "kid"),
        ("the kid of the other pinned key", _token(kind, header={"kid": jws.jwk_of(SECOND)["kid"]}), "signature"),
        ("a stranger's key brought along", _token(kind, header=own_jwk, private=STRANGER), "signature"),
        ("header members that are not known are ignored", _token(kind, header={"cty": "x"}), "valid"),
        ("a header member twice", jws.compact(twice, claims, CURRENT), "duplicate_member"),
        ("a header that is a list", jws.compact([right], claims, CURRENT), "header"),
        ("a header that is not JSON", jws.compact(b"{alg:ES256}", claims, CURRENT), "header"),
        ("a header that is nested without end", jws.compact(b"[" * 2_000, claims, CURRENT), "header"),
    ]
    return [_case(kind, name, token, expect) for name, token, expect in rows]


def _unsigned(kind: str, alg: str) -> str:
    return jws.resigned(_token(kind, header={"alg": alg}), b"")


def _hs256(kind: str) -> str:
    pem = CURRENT.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    token = _token(kind, header={"alg": "HS256"})
    return jws.resigned(token, hmac.digest(pem, token.rpartition(".")[0].encode(), hashlib.sha256))


def _signatures(kind: str) -> list[Json]:
    good = _token(kind)
    signed = good.rpartition(".")[0].encode()
    r, s = jws.rs_of(CURRENT, signed)
    zero_r, zero_s = _leading_zero(kind, "r"), _leading_zero(kind, "s")
    signature = jws.raw(r, s)
    altered = verdict_claims(valid=False) if kind == "verdict" else lease_claims(exp=NOW + 10**9)
    flipped = bytes([*signature[:-1], signature[-1] ^ 1])
    rows = [
        ("r begins with a zero byte", zero_r, "valid"),
        ("s begins with a zero byte", zero_s, "valid"),
        ("the zero byte of r left out", jws.resigned(zero_r, _signature_of(zero_r)[1:]), "signature_length"),
        ("s and n - s are both signatures", jws.resigned(good, jws.raw(r, ORDER - s)), "valid"),
        ("one bit of the signature flipped", jws.resigned(good, flipped), "signature"),
        ("forged: the claims altered under the old signature", _grafted(_token(kind, altered), good), "signature"),
        ("forged: a stranger's signature", _grafted(good, jws.compact(b"", b"", STRANGER)), "signature"),
        ("the other token's signature", _grafted(good, zero_r), "signature"),
        ("all zeros", jws.resigned(good, bytes(64)), "signature"),
        ("r zero", jws.resigned(good, jws.raw(0, s)), "signature"),
        ("s zero", jws.resigned(good, jws.raw(r, 0)), "signature"),
        ("r and s as large as the order", jws.resigned(good, jws.raw(ORDER, ORDER)), "signature"),
        ("all ones", jws.resigned(good, b"\xff" * 64), "signature"),
        ("r and s exchanged", jws.resigned(good, jws.raw(s, r)), "signature"),
        ("in the form of ASN.1", jws.resigned(good, utils.encode_dss_signature(r, s)), "signature_length"),
        ("a byte short", jws.resigned(good, signature[:-1]), "signature_length"),
        ("a byte long", jws.resigned(good, signature + b"\0"), "signature_length"),
        ("a zero byte before", jws.resigned(good, b"\0" + signature), "signature_length"),
    ]
    return [_case(kind, name, token, expect) for name, token, expect in rows]


def _leading_zero(kind: str, which: str) -> str:
    claims = verdict_claims if kind == "verdict" else lease_claims

    def wanted(r: int, s: int) -> bool:
        return (r if which == "r" else s) >> 248 == 0

    return cases.searched(lambda jti: _token(kind, claims(jti=jti)), wanted)


def _signature_of(token: str) -> bytes:
    signed = token.rpartition(".")[0].encode()
    return jws.raw(*jws.rs_of(CURRENT, signed))


def _grafted(token: str, donor: str) -> str:
    """The token under the signature of another one."""
    return f"{token.rpartition('.')[0]}.{donor.rpartition('.')[2]}"
