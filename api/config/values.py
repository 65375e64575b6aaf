"""How the text of one setting becomes a value: a function for each kind, pure but for looking whether a path is there.

Each takes the text without blanks around it and raises ValueError, whose message completes `NAME: ...`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import SplitResult, urlsplit

from api.config.database_url import check
from api.config.placeholders import is_placeholder
from api.signing.keys import SigningKey, SigningKeyError, parse_signing_keys

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
LogFormat = Literal["json", "text"]

ROOT = Path(__file__).resolve().parents[2]
DAY = 86_400.0
SHORTEST_SECRET = 16
_BOOLS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": DAY}
_WINDOWS = {"second": 1.0, "minute": 60.0, "hour": 3600.0}
_POSTGRES = ("postgres", "postgresql", "postgresql+psycopg2")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `count` failures in `window_s` seconds."""

    count: int
    window_s: float


def one_line(text: str) -> str:
    """The text, which holds no control character and nothing that UTF-8 cannot say."""
    # A lone surrogate stands for a byte of the environment that is not UTF-8.
    if any(ord(one) < 32 or ord(one) == 127 or "\ud800" <= one <= "\udfff" for one in text):
        raise ValueError("holds a line break, NUL or another control character")
    return text


def matching(pattern: str, wanted: str) -> Callable[[str], str]:
    """A parser for texts that `pattern` matches as a whole; `wanted` says in words what that is."""

    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"must be {wanted}")
        return text

    return parse


def whole(low: int, high: int) -> Callable[[str], int]:
    """A parser for whole numbers from `low` to `high`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return parse


def duration(low: float, high: float) -> Callable[[str], float]:
    """A parser for times of `low` to `high` seconds: a number, alone or followed by `s`, `m`, `h` or `d`."""

    def parse(text: str) -> float:
        found = re.fullmatch(r"([0-9]{1,10}(?:\.[0-9]{1,9})?|\.[0-9]{1,9})([smhd]?)", text)
        seconds = float(found[1]) * _UNITS[found[2]] if found else -1.0
        if not low <= seconds <= high:
            raise ValueError(f"must be a time of {low:.12g} to {high:.12g} seconds, like 30, 1.5s, 12h or 7d")
        return seconds

    return parse


def several(parse_one: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    """A parser for values separated by commas, none of them empty; a repeated one counts once."""

    def parse(text: str) -> tuple[T, ...]:
        parts = [part.strip() for part in text.split(",")]
        if not all(parts):
            raise ValueError("has an empty entry between its commas")
        return tuple(dict.fromkeys(parse_one(part) for part in parts))

    return parse


def boolean(text: str) -> bool:
    """`true`, `1`, `yes`, `on` or their opposites, in any case."""
    if text.lower() not in _BOOLS:
        raise ValueError("must be true or false")
    return _BOOLS[text.lower()]


def rate(text: str) -> RateLimit:
    """`30/minute`: how many in a second, a minute or an hour."""
    found = re.fullmatch(r"([0-9]{1,9})/(second|minute|hour)", text)
    if not found or int(found[1]) < 1:
        raise ValueError("must be like 30/minute, 5/second or 100/hour")
    return RateLimit(int(found[1]), _WINDOWS[found[2]])


def log_level(text: str) -> LogLevel:
    """A level's name in any case."""
    for level in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
        if text.upper() == level:
            return level
    raise ValueError("must be DEBUG, INFO, WARNING, ERROR or CRITICAL")


def log_format(text: str) -> LogFormat:
    """`json` or `text`."""
    for form in ("json", "text"):
        if text.lower() == form:
            return form
    raise ValueError("must be json or text")


def secret(text: str) -> str:
    """A secret that can travel in a header, is not short, and does not only stand where one is to be put."""
    if not re.fullmatch(r"[!-~]+", text):
        raise ValueError("may hold only visible ASCII characters, without spaces")
    if len(text) < SHORTEST_SECRET:
        raise ValueError(f"is shorter than {SHORTEST_SECRET} characters")
    if is_placeholder(text):
        raise ValueError("is a placeholder that everybody knows, and no secret")
    return text


def signing_keys(text: str) -> tuple[SigningKey, ...]:
    """One or more P-256 private keys: PEM, PEM whose line breaks a dashboard turned into `\\n`, or base64 of PEM."""
    try:
        return parse_signing_keys(text.replace("\\n", "\n"))
    except SigningKeyError as error:
        raise ValueError(str(error)) from None


def http_url(text: str) -> str:
    """The address of a server, without a slash at its end."""
    url = _split(text)
    if url.scheme not in ("http", "https") or not url.hostname or " " in text:
        raise ValueError("must be http://... or https://...")
    if "@" in url.netloc or url.query or url.fragment or not _port_is_sound(url):
        raise ValueError("must be an address alone, without user, query or fragment")
    return text.rstrip("/")


def origin(text: str) -> str:
    """A web origin: scheme, host and port; or `*`."""
    if text != "*" and _split(http_url(text)).path:
        raise ValueError("must be origins like https://shop.example, or *")
    return text.rstrip("/")


def folder(text: str) -> Path:
    """The absolute path of a folder, which need not be there yet. Relative ones begin at the repository's root."""
    path = _path(text)
    if path.exists() and not path.is_dir():
        raise ValueError("must be a folder")
    return path


def file(text: str) -> Path:
    """The absolute path of a file, which need not be there yet. Relative ones begin at the repository's root."""
    path = _path(text)
    if text.startswith((":memory:", "file:")) or text.endswith("/") or path.is_dir():
        raise ValueError("must be the path of a file")
    return path


def database_url(text: str) -> str:
    """The ledger's address: Postgres as given, or `sqlite:///` and the absolute path of a file."""
    scheme, _, rest = text.partition("://")
    if scheme == "sqlite":
        if not rest.startswith("/") or len(rest) < 2 or "?" in rest:
            raise ValueError("must name a file, like sqlite:////var/lib/protecao/ledger.db")
        return f"sqlite:///{file(rest[1:])}"
    if scheme not in _POSTGRES:
        raise ValueError("must begin with postgres://, postgresql://, postgresql+psycopg2:// or sqlite:///")
    check(text)
    return text


def _split(text: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError:
        # The library's message may repeat the password.
        raise ValueError("is not a URL") from None


def _port_is_sound(url: SplitResult) -> bool:
    try:
        return url.port != 0
    except ValueError:
        return False


def _path(text: str) -> Path:
    # Not from the working directory: the server and the command line are started in different ones.
    try:
        path = (ROOT / text).resolve()
        path.exists()
    except (OSError, RuntimeError) as error:
        raise ValueError("is no path that can be used") from error
    return path
