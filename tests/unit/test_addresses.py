"""How addresses are counted, whatever a proxy writes beside them."""

from __future__ import annotations

import pytest

from api.server.addresses import UNKNOWN, counted_as

IPV4, IPV6 = "203.0.113.9", "2001:db8:0:1::/64"


@pytest.mark.parametrize(
    ("written", "counted"),
    [
        ("203.0.113.9", IPV4),
        ("203.0.113.9:4711", IPV4),
        (" 203.0.113.9 ", IPV4),
        ('"203.0.113.9:4711"', IPV4),
        ("::ffff:203.0.113.9", IPV4),
        ("::FFFF:cb00:7109", IPV4),
        ("[::ffff:203.0.113.9]:4711", IPV4),
        ("203.0.113.10", "203.0.113.10"),
        ("2001:db8:0:1::", IPV6),
        ("2001:DB8:0:1:ffff:ffff:ffff:ffff", IPV6),
        ("[2001:db8:0:1::2]", IPV6),
        ("[2001:db8:0:1::3]:4711", IPV6),
        ("2001:db8:0:1::4%eth0", IPV6),
        ("[2001:db8:0:1::4%25eth0]:1", IPV6),
        ("2001:db8:0:2::1", "2001:db8:0:2::/64"),
        ("::1", "::/64"),
        ("", UNKNOWN),
        ("unknown", UNKNOWN),
        ("_hidden", UNKNOWN),
        ("203.0.113.009", UNKNOWN),
        ("203.0.113.9.1", UNKNOWN),
        ("203.0.113.9:4711:4712", UNKNOWN),
        ("1" * 100_000, UNKNOWN),
    ],
)
def test_an_address_is_counted_as(written: str, counted: str) -> None:
    assert counted_as(written) == counted
