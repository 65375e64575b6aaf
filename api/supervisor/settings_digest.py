"""A digest of what all nodes of a ledger must have alike, for their heartbeats: each node finds out which differ.

Who reads the ledger reads the heartbeats, and a secret that somebody thought of could be guessed from a plain hash. So
each digest is keyed with what is derived from a private signing key: 256 random bits that no ledger ever holds. One set
of digests for each signing key, named by its public id, so that nodes can be compared that have one key in common.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Iterator, Mapping
from hashlib import sha256

from api.config.settings import Settings
from api.signing.base64url import b64url

SIGNING_KEY = "SIGNING_KEY"
#: In the order in which the digests stand.
_COMPARED = ("API_KEY", "SHARED_SECRET", "ADMIN_TOKEN")
_PURPOSE = "protecao digest of settings"
#: 72 bits, as 12 characters: two of a few nodes' digests are alike by chance once in 10^21.
_BYTES, _ID_LENGTH = 9, 12

#: The digests by the id of the signing key that they are keyed with.
_Parsed = dict[str, tuple[str, ...]]


def digest(settings: Settings) -> str:
    """`<id>=<digest>.<digest>.<digest>` for each signing key, by id, with blanks between; safe to be read by others."""
    values = (settings.api_keys, settings.shared_secrets, (settings.admin_token,))
    listed = []
    for key in sorted(settings.signing_keys, key=lambda key: key.kid):
        own = key.derived(_PURPOSE, b"", 32)
        digests = [_keyed(own, name, texts) for name, texts in zip(_COMPARED, values, strict=True)]
        listed.append(f"{key.kid[:_ID_LENGTH]}={'.'.join(digests)}")
    return " ".join(listed)


def differing(digests: Mapping[str, str | None]) -> Iterator[tuple[str, list[list[str]]]]:
    """The settings that are not the same on all nodes, each with the nodes by what they have. Pure.

    `digests`: by node; one that gives none, or one that this release cannot read, is not compared.
    """
    nodes = {node: parsed for node, text in sorted(digests.items()) if text and (parsed := _parsed(text))}
    by_keys: dict[frozenset[str], list[str]] = {}
    for node, parsed in nodes.items():
        by_keys.setdefault(frozenset(parsed), []).append(node)
    if len(by_keys) > 1:
        yield SIGNING_KEY, list(by_keys.values())
    for place, setting in enumerate(_COMPARED):
        groups = _groups(nodes, place)
        if len(groups) > 1:
            yield setting, groups


def _keyed(key: bytes, name: str, texts: Collection[str]) -> str:
    # In which order several keys are listed is of no consequence.
    message = "\0".join((name, *sorted(texts))).encode()
    return b64url(hmac.new(key, message, sha256).digest()[:_BYTES])


def _parsed(text: str) -> _Parsed:
    """Nothing where it is of another form, as that of a later release may be."""
    pairs = (part.partition("=") for part in text.split(" "))
    parsed = {id: tuple(digests.split(".")) for id, _, digests in pairs}
    return parsed if all(len(each) == len(_COMPARED) for each in parsed.values()) else {}


def _groups(nodes: Mapping[str, _Parsed], place: int) -> list[list[str]]:
    """The nodes by what they have; one that shares no signing key with any of the others is in no group."""
    groups: list[list[str]] = []
    for node, own in nodes.items():
        alike = [[_alike(own, nodes[other], place) for other in group] for group in groups]
        joined = next((group for group, found in zip(groups, alike, strict=True) if True in found), None)
        if joined is not None:
            joined.append(node)
        elif not groups or any(False in found for found in alike):
            groups.append([node])
    return groups


def _alike(one: _Parsed, other: _Parsed, place: int) -> bool | None:
    """None where no signing key is common to both."""
    common = next(iter(one.keys() & other.keys()), None)
    return None if common is None else one[common][place] == other[common][place]
