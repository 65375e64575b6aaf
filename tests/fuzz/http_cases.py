"""What is sent on one connection: calls that are well formed, among them one that is not, cut anywhere or whole.

Each case follows from a seed and its number alone, but for the times that are signed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.fuzz.http_calls import LAST, Known, head, in_chunks, nonce_of, with_length


@dataclass(frozen=True, slots=True)
class Step:
    """One request. `nonce`: of a check that is granted; None: anything that is documented may be the answer.

    `ends`: where it ends is in doubt, so nothing behind it may be answered. `wild`: it may be more than one request.
    """

    raw: bytes
    name: str
    nonce: str | None = None
    ends: bool = False
    wild: bool = False
    has_no_body: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """The steps of one connection; the last is a plain call that ends it. `cut`: so many bytes of the odd one are sent.

    `parts`: in how many pieces it is sent.
    """

    number: int
    steps: tuple[Step, ...]
    odd: int
    cut: int | None = None
    parts: int = 1
    abandons: bool = False


Odd = Callable[[random.Random, Known], Step]


def case(seed: int, number: int, known: Known) -> Case:
    """The case of this number."""
    rng = random.Random(f"{seed} {number}")
    odd = rng.choice(_ODD)(rng, known)
    before = [_granted(rng, known) for _ in range(rng.choice((0, 0, 1, 2)))]
    after = [_granted(rng, known) for _ in range(rng.choice((0, 1)))]
    cut = rng.randrange(len(odd.raw)) if rng.random() < _CUT else None
    steps = (*before, odd, *after, Step(LAST, "last"))
    parts = rng.choice((1, 1, 1, 2, 5))
    return Case(number, steps, len(before), cut, parts, cut is not None and rng.random() < _ABANDONED)


_CUT, _ABANDONED = 0.2, 0.3


def _granted(rng: random.Random, known: Known) -> Step:
    nonce = nonce_of(rng)
    top, body = known.check(nonce)
    if rng.random() < 0.7:
        return Step(with_length(top, body), "check", nonce)
    return Step(top + b"Transfer-Encoding: chunked\r\n\r\n" + in_chunks(rng, body), "check in chunks", nonce)


# -- heads -------------------------------------------------------------------------------------------------------


def _odd_field(rng: random.Random, known: Known) -> Step:
    """A field that says nothing, in a form that may not be one. The check itself is sound."""
    top, body = known.check(nonce_of(rng))
    line = rng.choice(_FIELDS)(rng)
    return Step(with_length(top + line + b"\r\n", body), "odd field", wild=b"\n" in line)


_FIELDS: tuple[Callable[[random.Random], bytes], ...] = (
    lambda rng: b"X-Any: " + rng.randbytes(rng.randint(1, 40)).replace(b"\n", b"").replace(b"\r", b""),
    lambda rng: b"X-Any: \xff\xfe\xc3\x28",
    lambda rng: b"X-\xc3\xa9: 1",
    lambda rng: b"X-Any: 1\r\n\tfolded" if rng.random() < 0.5 else b"X-Any:\r\n  folded",
    lambda rng: b"X-Any: 1\rX-Other: 2",
    lambda rng: b"X-Any: 1\nX-Other: 2",
    lambda rng: b"X-Any : 1",
    lambda rng: b": nameless",
    lambda rng: b"without a colon",
    lambda rng: b"X-Any: \x00",
    lambda rng: b"X-Any: " + b"a" * rng.choice((1_000, 9_000, 70_000)),
    lambda rng: b"\r\n".join(b"X-%d: 1" % i for i in range(rng.choice((20, 95, 300)))),
    lambda rng: b"Host: y",
    lambda rng: b"Expect: 100-continue" if rng.random() < 0.5 else b"Expect: nothing",
    lambda rng: b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
    lambda rng: b"Upgrade: websocket\r\nConnection: Upgrade",
    lambda rng: b"Connection: " + rng.choice((b"keep-alive", b"close, keep-alive", b"Content-Length", b"\x7f")),
    lambda rng: b"X_Request_Id: other-request\r\nX_API_Key: other",
    lambda rng: b"X-HTTP-Method-Override: DELETE",
    lambda rng: b"Cookie: " + b"; ".join(b"a%d=b" % i for i in range(200)),
    lambda rng: b"Accept-Encoding: gzip, br;q=" + b"9" * 400,
    lambda rng: b"Range: bytes=0-18446744073709551616, -1",
    lambda rng: b"If-None-Match: " + b'"' * 999,
)


def _twice(rng: random.Random, known: Known) -> Step:
    """One of the fields that say who calls comes twice, with the same value or another one."""
    body = json.dumps({"key": known.key, "nonce": nonce_of(rng)}).encode()
    fields = known.headers("/v1/validate", body)
    name = rng.choice([*fields, "Host"])
    again = fields.get(name, "x") if rng.random() < 0.5 else rng.choice(("", "other", "0" * 5_000))
    return Step(with_length(head("POST", "/v1/validate", fields) + f"{name}: {again}\r\n".encode(), body), "twice")


def _changed_field(rng: random.Random, known: Known) -> Step:
    """One of the fields that say who calls is something else."""
    body = json.dumps({"key": known.key, "nonce": nonce_of(rng)}).encode()
    fields = known.headers("/v1/validate", body)
    top = head("POST", "/v1/validate", {**fields, rng.choice(list(fields)): "@@"})
    value = rng.choice(
        (
            b"",
            b"\xc3\xa9",
            b"\xff",
            b"9" * 4_000,
            b"1e400",
            b"-1",
            b"0x10",
            b"\xd9\xa1\xd9\xa2",
            b"v1,",
            b"v2,AAAA",
            b"a,b",
        )
    )
    return Step(with_length(top.replace(b"@@", value), body), "changed field")


def _target(rng: random.Random, known: Known) -> Step:
    """A first line that is not the usual one."""
    body = json.dumps({"key": known.key, "nonce": nonce_of(rng)}).encode()
    top = head("POST", "/v1/validate", known.headers("/v1/validate", body)).partition(b"\r\n")[2]
    line = rng.choice(_METHODS) + b" " + rng.choice(_TARGETS)(rng) + b" " + rng.choice(_VERSIONS)
    # What follows a line of a version without headers, or of a tunnel, is no request of this one.
    return Step(with_length(line + b"\r\n" + top, body), "first line", wild=True, has_no_body=line.startswith(b"HEAD"))


_METHODS = (b"POST",) * 6 + (
    b"GET",
    b"PUT",
    b"HEAD",
    b"OPTIONS",
    b"TRACE",
    b"CONNECT",
    b"post",
    b"P\x00ST",
    b"",
    b"A" * 300,
)
_VERSIONS = (b"HTTP/1.1",) * 8 + (b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.9", b"HTTP/1.1 x", b"http/1.1", b"")
_TARGETS: tuple[Callable[[random.Random], bytes], ...] = (
    lambda rng: b"/v1/validate",
    lambda rng: b"http://x/v1/validate",
    lambda rng: b"https://other.example:99999/v1/validate",
    lambda rng: b"http://user:password@x/v1/validate?a=1#b",
    lambda rng: b"*",
    lambda rng: b"x:443",
    lambda rng: b"/v1/" + rng.randbytes(12).replace(b" ", b"").replace(b"\r", b"").replace(b"\n", b""),
    lambda rng: b"/v1/valid%61te",
    lambda rng: b"/v1//validate/../validate",
    lambda rng: b"/v1/validate%00",
    lambda rng: b"/v1/validate%ff%fe?%ff=%zz",
    lambda rng: b"/" + b"a" * rng.choice((3_000, 20_000, 70_000)),
    lambda rng: b"/v1/validate?" + b"&".join(b"a=%d" % i for i in range(1_000)),
    lambda rng: b"",
    lambda rng: b"\\v1\\validate",
)


# -- lengths and chunks ---------------------------------------------------------------------------------------------


def _length(rng: random.Random, known: Known) -> Step:
    """A length that is none, or two of them; behind the body is what must not be taken for a request."""
    top, body = known.check(nonce_of(rng))
    whole, length = body + known.hidden(nonce_of(rng)), b"%d" % len(body)
    lines = rng.choice(LENGTHS)(length, b"%d" % len(whole))
    return Step(top + lines + b"\r\n\r\n" + whole, "length", ends=True)


LENGTHS: tuple[Callable[[bytes, bytes], bytes], ...] = (
    lambda part, whole: b"Content-Length: %s\r\nContent-Length: %s" % (part, whole),
    lambda part, whole: b"Content-Length: %s\r\nContent-Length: %s" % (whole, part),
    lambda part, whole: b"Content-Length: %s, %s" % (part, whole),
    lambda part, whole: b"Content-Length: +%s" % part,
    lambda part, whole: b"Content-Length: -%s" % part,
    lambda part, whole: b"Content-Length: 0x%x" % int(part),
    lambda part, whole: b"Content-Length: %s.0" % part,
    lambda part, whole: b"Content-Length: %se0" % part,
    lambda part, whole: b"Content-Length: %s;" % part,
    lambda part, whole: b"Content-Length: 1 %s" % part,
    lambda part, whole: b"Content-Length: %d" % (2**64 + int(part)),
    lambda part, whole: b"Content-Length: " + b"9" * 400,
    lambda part, whole: b"Content-Length: \xd9\xa1",
    lambda part, whole: b"Content-Length:",
    lambda part, whole: b"Content-Length : %s" % part,
    lambda part, whole: b"Content-Length:\r\n %s" % part,
    lambda part, whole: b"Content-Length\x00: %s" % part,
    lambda part, whole: b"Content-Length: %s\r\nTransfer-Encoding: chunked" % whole,
    lambda part, whole: b"Transfer-Encoding: chunked\r\nContent-Length: %s" % whole,
    lambda part, whole: b"Content-Length: %s\r\nTransfer-Encoding: xchunked" % part,
    lambda part, whole: b"Content-Length: %s\r\nTransfer-Encoding: identity" % part,
    lambda part, whole: b"Content-Length: %s\r\nTransfer-Encoding: chunked, identity" % part,
    lambda part, whole: b"Transfer-Encoding: \x0bchunked",
    lambda part, whole: b"Transfer-Encoding : chunked",
    lambda part, whole: b"Transfer-Encoding: gzip",
    lambda part, whole: b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    lambda part, whole: b"Content-Length: 99999",
)


def _both(rng: random.Random, known: Known) -> Step:
    """A length and chunks at once: by the one the hidden call is the body's, by the other it is the next request."""
    top, body = known.check(nonce_of(rng))
    chunks = in_chunks(rng, body) + known.hidden(nonce_of(rng))
    lines = [b"Content-Length: %d" % len(chunks), rng.choice(CHUNKED)]
    rng.shuffle(lines)
    return Step(top + b"\r\n".join(lines) + b"\r\n\r\n" + chunks, "length and chunks", ends=True)


CHUNKED = (
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: Chunked",
    b"transfer-encoding:\tchunked",
    b"Transfer-Encoding: identity, chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding:\r\n chunked",
    b'Transfer-Encoding: "chunked"',
)


def _too_large(rng: random.Random, known: Known) -> Step:
    """A body beyond the limit, which begins with what must not be taken for a request."""
    top, _ = known.check(nonce_of(rng))
    body = known.hidden(nonce_of(rng)) * rng.choice((1, 2))
    size = rng.choice((65_537, 100_000, 2**31, 2**63 - 1))
    return Step(top + b"Content-Length: %d\r\n\r\n" % size + body, "too large", ends=True)


def _chunks(rng: random.Random, known: Known) -> Step:
    """Chunks that are not; behind them is what must not be taken for a request."""
    top, body = known.check(nonce_of(rng))
    at = rng.randrange(1, len(body))
    garbled = rng.choice(GARBLED)(body[:at], body[at:])
    hidden = known.hidden(nonce_of(rng))
    return Step(top + b"Transfer-Encoding: chunked\r\n\r\n" + garbled + hidden, "chunks", ends=True)


GARBLED: tuple[Callable[[bytes, bytes], bytes], ...] = (
    lambda one, two: b"%x\r\n%s\r\n" % (len(one), one),
    lambda one, two: b"%x\r\n%s\r\nx\r\n%s\r\n0\r\n\r\n" % (len(one), one, two),
    lambda one, two: b"%x\r\n%s%s\r\n0\r\n\r\n" % (len(one), one, two),
    lambda one, two: b"-%x\r\n%s\r\n0\r\n\r\n" % (len(one), one),
    lambda one, two: b"0x%x\r\n%s\r\n0\r\n\r\n" % (len(one), one),
    lambda one, two: b"+%x\r\n%s\r\n0\r\n\r\n" % (len(one), one),
    lambda one, two: b"%x%016x\r\n%s\r\n0\r\n\r\n" % (1, len(one), one),
    lambda one, two: b"f" * 300 + b"\r\n%s\r\n0\r\n\r\n" % one,
    lambda one, two: b"\r\n%s\r\n0\r\n\r\n" % one,
    lambda one, two: b"%x\r\n%s0\r\n\r\n" % (len(one), one),
    lambda one, two: b"%x\r%s\r\n0\r\n\r\n" % (len(one), one),
    lambda one, two: b"%x\r\n%s\r\n0\r\nGET / HTTP/1.1\r\n\r\n" % (len(one), one),
    lambda one, two: b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\nContent-Length: 5\r\n\r\n" % (len(one), one, len(two), two),
    lambda one, two: b"%x;%s\r\n%s\r\n0\r\n\r\n" % (len(one), b"e" * 20_000, one),
    lambda one, two: b"%x\r\n%s\r\n00000000000000000000000x\r\n\r\n" % (len(one), one),
)


def _odd_chunks(rng: random.Random, known: Known) -> Step:
    """Chunks in a form that is allowed."""
    nonce = nonce_of(rng)
    top, body = known.check(nonce)
    rest = rng.choice(
        (
            b"".join(b"1\r\n%c\r\n" % byte for byte in body),
            b"%X\r\n%s\r\n" % (len(body), body),
            b"000%x\r\n%s\r\n" % (len(body), body),
            b'%x;name="a value"\r\n%s\r\n' % (len(body), body),
        )
    )
    return Step(top + b"Transfer-Encoding: chunked\r\n\r\n" + rest + b"0\r\n\r\n", "odd chunks", nonce)


# -- bodies and bytes -----------------------------------------------------------------------------------------------


def _body(rng: random.Random, known: Known) -> Step:
    """A body that is signed, whole, and not what it should be."""
    body = rng.choice(_BODIES)(rng, json.dumps({"key": known.key, "nonce": nonce_of(rng)}).encode())
    path = rng.choice(("/v1/validate", "/v1/activate", "/v1/usage", "/v1/checkout"))
    return Step(with_length(head("POST", path, known.headers(path, body)), body), "body")


_BODIES: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    lambda rng, body: b"",
    lambda rng, body: b"\xef\xbb\xbf" + body,
    lambda rng, body: body[:-1] + b', "name": "\xff\xfe"}',
    lambda rng, body: body[:-1] + b', "name": "\\ud800"}',
    lambda rng, body: body[:-1] + b', "fingerprint": "\\u0000"}',
    lambda rng, body: body[:-1] + b', "increment": ' + b"9" * 40_000 + b"}",
    lambda rng, body: body[:-1] + b', "increment": 1e400, "ttl": -0.0}',
    lambda rng, body: body[:-1] + b', "key": "KEY-00000000", "key": null}',
    lambda rng, body: body[:-1] + b', "client": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    lambda rng, body: body[:-1] + b', "version": "' + b"1." * 4_000 + b'1"}',
    lambda rng, body: body[: rng.randrange(len(body))],
    lambda rng, body: rng.randbytes(rng.randint(1, 300)),
    lambda rng, body: b"[" + body + b"]",
    lambda rng, body: body.decode().encode("utf-16"),
    lambda rng, body: body + b" " * 65_536,
)


def _flipped(rng: random.Random, known: Known) -> Step:
    """A sound request of which some bytes are others, more or fewer."""
    raw = bytearray(_granted(rng, known).raw)
    for _ in range(rng.choice((1, 1, 1, 3, 10))):
        at = rng.randrange(len(raw))
        how = rng.random()
        if how < 0.5:
            raw[at] = rng.randrange(256)
        elif how < 0.75:
            del raw[at : at + rng.choice((1, 1, 4))]
        else:
            raw[at:at] = rng.choice((b"\r\n", b"\n", b"\x00", b" ", rng.randbytes(3)))
    return Step(bytes(raw), "flipped bytes", wild=True)


def _noise(rng: random.Random, known: Known) -> Step:
    """No HTTP at all, or another protocol's first bytes."""
    raw = rng.choice(
        (
            rng.randbytes(rng.randint(1, 2_000)),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(200),
            b"PROXY TCP4 127.0.0.9 127.0.0.1 1 2\r\n",
            b"\r\n" * rng.choice((1, 50, 5_000)),
            b"SSH-2.0-OpenSSH_9\r\n",
        )
    )
    return Step(raw, "noise", wild=True)


_ODD: tuple[Odd, ...] = (
    _odd_field, _odd_field, _twice, _changed_field, _target, _target, _length, _length, _both, _too_large, _chunks,
    _chunks, _odd_chunks, _body, _flipped, _flipped, _noise,
)  # fmt: skip
