"""Names in the environment that are nearly a setting's: a typing error there must not look like a default.

Hosts and tools set hundreds of names themselves, and none of those may count: `tests/unit/test_near_misses.py` runs
over their documented ones. So a short name must be nearer to a setting's than a long one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

#: Variables of common tools that are one letter away from a setting: Kubernetes' downward API, Laravel.
_OF_OTHERS = frozenset({"NODE_IP", "APP_KEY"})
#: Up to how long a setting's name is, and how many slips of a finger then make it another name. In a name of four
#: letters only two that changed places count: POST and SORT are one letter from PORT.
_SLIPS = ((5, 0), (8, 1), (12, 2))
_MOST_SLIPS = 3
_SYNONYMS = {"URI": "URL", "URIS": "URLS"}


def near_misses(
    environ: Iterable[str], settings: Collection[str], ignored: Collection[str]
) -> Iterator[tuple[str, str]]:
    """The names in `environ` that are none of `settings` and nearly one, each with the setting that was probably
    meant, in alphabetical order. Pure.
    """
    left_alone = {*settings, *ignored, *_OF_OTHERS}
    for name in sorted(set(environ) - left_alone):
        meant = meant_by(name, settings)
        if meant is not None:
            yield name, meant


def meant_by(name: str, settings: Collection[str]) -> str | None:
    """The setting whose name is nearest to `name`, None where none is near enough. Pure."""
    near = ((_slips(name, setting), setting) for setting in settings)
    return min((found for found in near if found[0] <= _allowed(found[1])), default=(0, None))[1]


def _allowed(setting: str) -> int:
    return next((slips for length, slips in _SLIPS if len(setting) <= length), _MOST_SLIPS)


def _slips(name: str, setting: str) -> int:
    """By how many slips `name` came from `setting`; 0 for what only another habit of writing makes."""
    upper = name.strip().upper()
    if _plain(upper) == _plain(setting) or (len(setting) > 5 and _singular(upper) == _singular(setting)):
        return 0
    if len(setting) <= 5:
        return 0 if _swapped(upper, setting) else len(setting)
    return distance(upper, setting, _allowed(setting))


def _plain(name: str) -> str:
    """Without what stands between its words."""
    return re.sub(r"[^0-9A-Z]+", "", name)


def _singular(name: str) -> str:
    """Without the plural of its words, however they are separated."""
    words = [_SYNONYMS.get(word, word) for word in re.split(r"[^0-9A-Z]+", name)]
    return "".join(word.removesuffix("S") for word in words)


def _swapped(name: str, setting: str) -> bool:
    """Whether two letters beside each other have changed places."""
    apart = [at for at, (one, other) in enumerate(zip(name, setting, strict=False)) if one != other]
    return (
        len(name) == len(setting)
        and len(apart) == 2
        and apart[1] == apart[0] + 1
        and sorted(name[apart[0] : apart[1] + 1]) == sorted(setting[apart[0] : apart[1] + 1])
    )


def distance(one: str, other: str, most: int) -> int:
    """How many letters were left out, put in, replaced or swapped with their neighbour: the restricted distance of
    Damerau and Levenshtein. More than `most` for names that are further apart, by how much is not computed. Pure.
    """
    if abs(len(one) - len(other)) > most:
        return most + 1
    before_last: list[int] = []
    last = list(range(len(other) + 1))
    for i, letter in enumerate(one, start=1):
        row = [i]
        for j, counterpart in enumerate(other, start=1):
            best = min(last[j] + 1, row[-1] + 1, last[j - 1] + (letter != counterpart))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == counterpart:
                best = min(best, before_last[j - 2] + 1)
            row.append(best)
        before_last, last = last, row
    return last[-1]
