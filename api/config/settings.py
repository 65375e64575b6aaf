"""All settings of a node, read from its environment, as one frozen object.

All faults are found in one go and named by setting, so that a faulty start is put right once, before the port opens.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TypeVar

from api.config import platforms as hosting
from api.config import values as values
from api.config.near_misses import near_misses
from api.config.secret_files import SECRET_NAMES, SecretFileError, load_or_create
from api.config.values import DAY, ROOT, LogFormat, LogLevel, RateLimit
from api.signing.keys import SigningKey
from failover.session import with_schema

__all__ = ["RateLimit", "Settings", "SettingsError"]

_HINT = "`flask secrets` prints a set of these to paste; the nodes of one ledger all get the same"
_SECRET_FILE_LIMIT = 65_536

_HOST = values.matching(r"[0-9A-Za-z.:_-]{1,255}", "an address or a host name")
_NODE_ID = values.matching(r"[0-9A-Za-z._:-]{1,64}", "1 to 64 of A-Za-z0-9._:-")
_SCHEMA = values.matching(
    r"(?!pg_)[a-z_][a-z0-9_]{0,62}", "a schema's name: up to 63 of a-z, 0-9 and _, without a digit or pg_ at its head"
)
_WORD = values.matching(r"[0-9A-Za-z_-]{1,32}", "one word")

T = TypeVar("T")


class SettingsError(Exception):
    """The settings cannot be used.

    `faults`: one line for each, beginning with the setting's name, never with a secret in it. `hint`: what may help.
    """

    def __init__(self, faults: tuple[str, ...], hint: str = "") -> None:
        self.faults = faults
        self.hint = hint
        super().__init__("\n".join([*faults, hint] if hint else faults))


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings:
    """A node's settings; names and defaults are the contract's (section 5).

    Paths are absolute, durations are seconds, retention is whole days. `database_url` is as given, or names the
    SQLite file `db_path`; a `ledger_schema` is in it as well, so that whatever connects by it finds the tables there.
    Secrets are masked in `repr`. `flask_env` `development` changes the defaults of the two settings of the log.
    `ignore_settings`: names in the environment that are nearly a setting's and are meant as they are.
    """

    port: int
    host: str
    database_url: str = field(repr=False)
    ledger_schema: str | None
    db_path: Path
    data_dir: Path
    queue_path: Path
    node_id: str
    node_rank: int
    node_url: str | None
    node_region: str | None
    peer_urls: tuple[str, ...]
    single_node: bool
    keep_awake: bool
    heartbeat_interval: float
    heartbeat_timeout: float
    failback_delay: float
    api_keys: tuple[str, ...] = field(repr=False)
    shared_secrets: tuple[str, ...] = field(repr=False)
    admin_token: str = field(repr=False)
    signing_keys: tuple[SigningKey, ...] = field(repr=False)
    require_api_key: bool
    require_signature: bool
    workers: int
    rate_limit: RateLimit
    smtp_enabled: bool
    cors_origins: tuple[str, ...]
    trusted_proxies: int
    ledger_budget: float
    isolated_max_age: float
    check_retention_days: int
    event_retention_days: int
    log_level: LogLevel
    log_format: LogFormat
    flask_env: str
    disk: hosting.Disk
    platform: str | None
    demo: bool
    ignore_settings: tuple[str, ...]

    @property
    def embedded(self) -> bool:
        """Whether the ledger is a SQLite file of this node's own."""
        return self.database_url.startswith("sqlite:")

    def __repr__(self) -> str:
        shown = (f"{one.name}={getattr(self, one.name) if one.repr else '***'!r}" for one in fields(self))
        return f"Settings({', '.join(shown)})"

    @classmethod
    def from_env(cls, environ: Mapping[str, str], *, on_terminal: bool = False) -> Settings:
        """The settings that `environ` gives, defaults filled in. Raises SettingsError with every fault.

        Secrets that an embedded ledger lacks are made and kept in `data_dir`, the only thing written here.
        `on_terminal`: whether a person reads the log as it is written, for whom text is the default.
        """
        read = _Reader(environ)
        places = _places(read)
        host = hosting.detect(environ, places.data_dir)
        part = _part(read, places, host)
        settings = _assembled(read, places, host, part, _secrets(read, places, host, part), on_terminal)
        _check_together(read, settings, places.url_given)
        read.report_near_misses(settings.ignore_settings)
        if read.faults:
            raise SettingsError(tuple(read.faults), read.hint)
        return settings


class _Reader:
    """Reads settings by name, collects what is wrong with them, and goes on with the default."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._names: set[str] = set()
        self.faults: list[str] = []
        self.hint = ""

    def __call__(self, name: str, parse: Callable[[str], T], default: T) -> T:
        """The parsed setting `name`; the default where it is not set, blank or faulty."""
        return self.parsed(name, self._environ, parse, default)

    def parsed(self, name: str, texts: Mapping[str, str], parse: Callable[[str], T], default: T) -> T:
        """`texts[name]` parsed; the default where that is missing, blank or faulty."""
        self._names.add(name)
        text = texts.get(name, "").strip()
        if not text:
            return default
        try:
            # PEM is the one thing here that has line breaks.
            return parse(text if name == "SIGNING_KEY" else values.one_line(text))
        except ValueError as error:
            self.fault(name, str(error))
            return default

    def secret(self, name: str) -> str | None:
        """The text of a secret from `name` or from the file that `name_FILE` names; None where neither is set.

        A faulty one is recorded and read as an empty text.
        """
        self._names |= {name, f"{name}_FILE"}
        text, file = self._environ.get(name), self._environ.get(f"{name}_FILE")
        if text is not None and file is not None:
            self.fault(name, f"is set together with {name}_FILE: keep one of them")
            return ""
        if file is not None:
            return self._from_file(f"{name}_FILE", file)
        if text is not None and not text.strip():
            self.fault(name, "is empty")
        return text

    def fault(self, name: str, what: str) -> None:
        """Record that setting `name` is wrong."""
        self.faults.append(f"{name}: {what}")

    def report_near_misses(self, ignored: tuple[str, ...]) -> None:
        """Record each name in the environment that is nearly one of those that were read. A blank one sets nothing."""
        given = [name for name, text in self._environ.items() if text.strip()]
        for name, meant in near_misses(given, self._names, ignored):
            # A name of the environment may hold anything; a fault is one line.
            self.fault(ascii(name)[1:-1], f"is no setting, is {meant} meant? Rename it, or list it in IGNORE_SETTINGS")

    def _from_file(self, name: str, file: str) -> str:
        # The faults do not repeat the path: people put the secret itself there by mistake.
        try:
            with Path(file).open(encoding="utf-8-sig") as opened:
                text = opened.read(_SECRET_FILE_LIMIT)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a text file"
            self.fault(name, f"names a file that cannot be read ({reason})")
            return ""
        if not text.strip():
            self.fault(name, "names an empty file")
        return text


@dataclass(frozen=True, slots=True)
class _Places:
    """Where things are kept. `sound` is False when a setting about this is wrong and nothing may be written."""

    database_url: str
    ledger_schema: str | None
    url_given: bool
    db_path: Path
    data_dir: Path
    queue_path: Path
    sound: bool


def _places(read: _Reader) -> _Places:
    given = read.secret("DATABASE_URL")
    url = read.parsed("DATABASE_URL", {"DATABASE_URL": given or ""}, values.database_url, "")
    file = read("DB_PATH", values.file, None)
    data_dir = read("DATA_DIR", values.folder, file.parent if file else ROOT / "data")
    db_path = file or data_dir / "protecao.db"
    if url.startswith("sqlite:"):
        if file and url != f"sqlite:///{file}":
            read.fault("DB_PATH", "names another file than DATABASE_URL: keep one of them")
        db_path = Path(url.removeprefix("sqlite:///"))
    queue_path = read("QUEUE_PATH", values.file, data_dir / "sync_queue.db")
    if queue_path == db_path:
        read.fault("QUEUE_PATH", "names the ledger's own file")
    if given is None:
        url = f"sqlite:///{db_path}"
    schema: str | None = read("LEDGER_SCHEMA", _SCHEMA, None)
    if schema is not None and url.startswith("sqlite:"):
        read.fault("LEDGER_SCHEMA", "is of a Postgres ledger, and DATABASE_URL names none: remove it")
    elif schema is not None and url:
        url = with_schema(url, schema)
    return _Places(url, schema, given is not None, db_path, data_dir, queue_path, sound=not read.faults)


@dataclass(frozen=True, slots=True)
class _Part:
    """This node's part among others. `needs_shared`: why an embedded ledger cannot be meant; None where it can."""

    rank: int
    peer_urls: tuple[str, ...]
    single: bool
    needs_shared: str | None


def _part(read: _Reader, places: _Places, host: hosting.Hosting) -> _Part:
    rank = read("NODE_RANK", values.whole(1, 99), 1)
    peers: tuple[str, ...] = read("PEER_URLS", values.several(values.http_url), ())
    single = read("SINGLE_NODE", values.boolean, False)
    why = None
    if places.database_url.startswith("sqlite:") and not single:
        why = _not_alone(rank, peers, host.platform)
    if why is not None:
        is_named = "names a file of this node's own" if places.url_given else "is missing"
        read.fault(
            "DATABASE_URL",
            f"{is_named}, and {why}: it would know none of the others' licenses. Name the Postgres that all nodes "
            "share; or set SINGLE_NODE=true, if this node is the only one",
        )
    return _Part(rank, peers, single, why)


def _not_alone(rank: int, peers: tuple[str, ...], platform: str | None) -> str | None:
    """What speaks for other nodes, or for a node that is to have them."""
    if peers:
        return "PEER_URLS names other nodes"
    if rank > 1:
        return f"NODE_RANK is {rank}, of several nodes"
    return None if platform is None else f"this node runs on {platform}"


def _secrets(read: _Reader, places: _Places, host: hosting.Hosting, part: _Part) -> dict[str, str]:
    """The secrets by name: what is given; the rest generated where this node may keep it, a fault elsewhere."""
    given = {name: text for name in SECRET_NAMES if (text := read.secret(name)) is not None}
    missing = [name for name in SECRET_NAMES if name not in given]
    shared = not places.database_url.startswith("sqlite:") or part.needs_shared is not None
    if missing and (shared or (host.platform is not None and host.disk != "persistent")):
        why = "with a shared ledger" if shared else f"on {host.platform} without a disk that lasts"
        for name in missing:
            read.fault(name, f"is missing, and required {why}")
        read.hint = _HINT
    elif missing and places.sound:
        try:
            return load_or_create(places.data_dir) | given
        except SecretFileError as error:
            read.fault("DATA_DIR", str(error))
    return given


def _assembled(
    read: _Reader,
    places: _Places,
    host: hosting.Hosting,
    part: _Part,
    secrets: dict[str, str],
    on_terminal: bool,
) -> Settings:
    flask_env = read("FLASK_ENV", _WORD, "production")
    developing = flask_env == "development"
    return Settings(
        port=read("PORT", values.whole(1, 65_535), 5000),
        host=read("HOST", _HOST, "0.0.0.0"),  # noqa: S104 - the hosts' proxies reach us from outside
        database_url=places.database_url,
        ledger_schema=places.ledger_schema,
        db_path=places.db_path,
        data_dir=places.data_dir,
        queue_path=places.queue_path,
        node_id=read("NODE_ID", _NODE_ID, _own_name(host)),
        node_rank=part.rank,
        node_url=read("NODE_URL", values.http_url, _own_url(host)),
        node_region=read("NODE_REGION", _NODE_ID, _own_region(host)),
        peer_urls=part.peer_urls,
        single_node=part.single,
        keep_awake=read("KEEP_AWAKE", values.boolean, True),
        heartbeat_interval=read("HEARTBEAT_INTERVAL", values.duration(0.05, 60), 1.5),
        heartbeat_timeout=read("HEARTBEAT_TIMEOUT", values.duration(0.15, 3600), 6.0),
        failback_delay=read("FAILBACK_DELAY", values.duration(0, DAY), 30.0),
        api_keys=read.parsed("API_KEY", secrets, values.several(values.secret), ()),
        shared_secrets=read.parsed("SHARED_SECRET", secrets, values.several(values.secret), ()),
        admin_token=read.parsed("ADMIN_TOKEN", secrets, values.secret, ""),
        signing_keys=read.parsed("SIGNING_KEY", secrets, values.signing_keys, ()),
        require_api_key=read("REQUIRE_API_KEY", values.boolean, True),
        require_signature=read("REQUIRE_SIGNATURE", values.boolean, True),
        workers=read("WEB_CONCURRENCY", values.whole(1, 64), min(2, hosting.cpu_limit())),
        rate_limit=read("RATE_LIMIT", values.rate, RateLimit(30, 60.0)),
        smtp_enabled=read("SMTP_ENABLED", values.boolean, False),
        cors_origins=read("CORS_ORIGINS", values.several(values.origin), ()),
        trusted_proxies=read("TRUSTED_PROXIES", values.whole(0, 16), host.proxies),
        ledger_budget=read("LEDGER_BUDGET", values.duration(0.1, 2.5), 0.5),
        isolated_max_age=read("ISOLATED_MAX_AGE", values.duration(1, 365 * DAY), 7 * DAY),
        check_retention_days=read("CHECK_RETENTION_DAYS", values.whole(1, 36_500), 7),
        event_retention_days=read("EVENT_RETENTION_DAYS", values.whole(1, 36_500), 90),
        log_level=read("LOG_LEVEL", values.log_level, "DEBUG" if developing else "INFO"),
        log_format=read("LOG_FORMAT", values.log_format, "text" if developing or on_terminal else "json"),
        flask_env=flask_env,
        disk=host.disk,
        platform=host.platform,
        demo=read("PROTECAO_DEMO", values.boolean, False),
        ignore_settings=read("IGNORE_SETTINGS", values.several(str), ()),
    )


def _check_together(read: _Reader, settings: Settings, url_given: bool) -> None:
    """What only several settings together show to be wrong."""
    beats_are_sound = not any(fault.startswith("HEARTBEAT_") for fault in read.faults)
    # A tenth of a second times three is a hair more than 0.3.
    if beats_are_sound and settings.heartbeat_timeout < 3 * settings.heartbeat_interval - 1e-9:
        read.fault("HEARTBEAT_TIMEOUT", "must be at least 3 times HEARTBEAT_INTERVAL, or one late beat is a failover")
    if settings.admin_token and settings.admin_token in settings.api_keys + settings.shared_secrets:
        read.fault("ADMIN_TOKEN", "is also an API_KEY or a SHARED_SECRET, which every client shows to everybody")
    if settings.demo and url_given:
        read.fault("PROTECAO_DEMO", "puts a demo license into the ledger: not together with DATABASE_URL")


def _own_name(host: hosting.Hosting) -> str:
    return _as_name(host.replica_id or socket.gethostname() or "node")


def _own_region(host: hosting.Hosting) -> str | None:
    return None if host.region is None else _as_name(host.region)


def _own_url(host: hosting.Hosting) -> str | None:
    """The address that the platform says, where it is one: no setting of the operator's is at fault where it is not."""
    try:
        return None if host.url is None else values.http_url(host.url)
    except ValueError:
        return None


def _as_name(text: str) -> str:
    return re.sub(r"[^0-9A-Za-z._:-]", "-", text)[:64]
