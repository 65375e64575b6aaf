"""Addresses as they are counted: what one caller can choose among counts as one, however a proxy writes it."""

from __future__ import annotations

import functools
from ipaddress import IPv6Address, IPv6Network, ip_address

#: Stands for all that is no address, so that a caller cannot count anew by writing another text each time.
UNKNOWN = "unknown"
#: What a provider gives to one customer at least, who has all its addresses.
_PREFIX = 64
_LONGEST = 100


def counted_as(written: str) -> str:
    """The IPv4 address, or the /64 network of the IPv6 address, in `written`: with or without port, brackets, zone."""
    return UNKNOWN if len(written) > _LONGEST else _counted_as(written)


@functools.lru_cache(4096)
def _counted_as(written: str) -> str:
    try:
        address = ip_address(_bare(written.strip().strip('"')))
    except ValueError:
        return UNKNOWN
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or IPv6Network((int(address), _PREFIX), strict=False))
    return str(address)


def _bare(written: str) -> str:
    """Without what is not of the address."""
    if written.startswith("["):
        written = written[1:].partition("]")[0]
    elif written.count(":") == 1:
        written = written.partition(":")[0]
    return written.partition("%")[0]
