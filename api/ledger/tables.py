"""The ledger's tables, portable between SQLite and Postgres. Migrations create them; statements name them.

Times are Unix seconds (ledger time) in double precision. `seq` on a row is the log position of its last change, so
that a follower copies exactly the rows that changed since its cursor. `*_json` texts hold JSON.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import TSVECTOR

import failover.tables

metadata = MetaData()

_ID = String(36)
_HASH = String(43)
_NOT_NORMAL = text("mode <> 'normal'")
_GONE = text("NOT active")
_UNSENT = text("sent_at IS NULL")
_EMPTY = text("words IS NULL")


def _seq() -> Column[int]:
    return Column("seq", BigInteger, nullable=False, server_default="0", index=True)


#: One row: which ledger this is. `generation` rises when an older copy is restored.
ledger = Table(
    "ledger",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("ledger_id", _ID, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
)

#: One row: the last position of the log. Each append moves it in the message that commits.
log_head = Table(
    "log_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
)

products = Table(
    "products",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("code", String(64), nullable=False, unique=True),
    Column("name", String(200), nullable=False),
    Column("created_at", Double, nullable=False),
    _seq(),
)

#: `rules_json`: the policy's rules, one JSON object, so that a new rule is not a new column.
policies = Table(
    "policies",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("product", String(64), ForeignKey("products.code"), nullable=False, index=True),
    Column("name", String(200), nullable=False),
    Column("rules_json", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    _seq(),
)

#: `seats` and `excess` repeat what the machines say, written with them under the row's lock: checks read them here.
licenses = Table(
    "licenses",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("policy", _ID, ForeignKey("policies.id"), nullable=False, index=True),
    Column("key_hash", _HASH, nullable=False, unique=True),
    Column("key_hint", String(4), nullable=False, index=True),
    Column("status", String(16), nullable=False),
    Column("name", String(200)),
    Column("email", String(320), index=True),
    Column("expires_at", Double),
    Column("max_machines", Integer),
    Column("max_uses", BigInteger),
    Column("entitlements_json", Text),
    Column("metadata_json", Text, nullable=False, server_default="{}"),
    Column("external_ref", String(200), unique=True),
    Column("uses", BigInteger, nullable=False, server_default="0"),
    Column("seats", Integer, nullable=False, server_default="0"),
    Column("excess", Integer, nullable=False, server_default="0"),
    Column("checked_in_at", Double),
    Column("last_seen_at", Double),
    Column("created_at", Double, nullable=False),
    _seq(),
)

#: What licenses are searched by, as `search_index` makes it of their texts. `words` null: to be made (anew).
license_search = Table(
    "license_search",
    metadata,
    Column("license_id", _ID, ForeignKey("licenses.id", ondelete="CASCADE"), primary_key=True),
    Column("words", Text().with_variant(TSVECTOR(), "postgresql")),
    Column("name", Text, index=True),
    Column("email", Text, index=True),
    Index("ix_license_search_empty", "license_id", postgresql_where=_EMPTY, sqlite_where=_EMPTY),
    # Without a list of entries that wait, which each search would read. SQLite reads all words: only the empty ones.
    Index(
        "ix_license_search_words",
        "words",
        postgresql_using="gin",
        postgresql_with={"fastupdate": "off"},
        sqlite_where=_EMPTY,
    ),
)

#: `seat_at`: when the machine was last activated or deactivated; `culled`: the leader took its seat for its silence.
machines = Table(
    "machines",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("license_id", _ID, ForeignKey("licenses.id", ondelete="CASCADE"), nullable=False),
    Column("fingerprint", String(128), nullable=False),
    Column("name", String(200)),
    Column("platform", String(200)),
    Column("active", Boolean, nullable=False),
    Column("excess", Boolean, nullable=False, server_default=text("false")),
    Column("heartbeat_at", Double),
    Column("last_seen_at", Double),
    Column("created_at", Double, nullable=False),
    Column("seat_at", Double),
    Column("culled", Boolean, nullable=False, server_default=text("false")),
    _seq(),
    UniqueConstraint("license_id", "fingerprint"),
    # Of one license: how many came within 30 days, and (0) how many never did.
    Index("ix_machines_license_id_created_at", "license_id", "created_at"),
    Index("ix_machines_gone", "created_at", postgresql_where=_GONE, sqlite_where=_GONE),
    Index("ix_machines_departed", "license_id", postgresql_where=_GONE, sqlite_where=_GONE),
)

#: The log. `origin`, `origin_seq`: the queue an event came through and its place there, null when it came directly.
events = Table(
    "events",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("event_id", _ID, nullable=False, unique=True),
    Column("type", String(40), nullable=False),
    Column("license_id", _ID),
    Column("machine_id", _ID),
    Column("node", String(128), nullable=False),
    Column("instance", _ID, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("mode", String(16), nullable=False),
    Column("origin", _ID),
    Column("origin_seq", BigInteger),
    Column("occurred_at", Double, nullable=False),
    Column("recorded_at", Double, nullable=False),
    Column("data", Text, nullable=False),
    Index("ix_events_license_id_seq", "license_id", "seq"),
    # Few events are anything but normal, and `/stats` counts those.
    Index("ix_events_not_normal", "seq", postgresql_where=_NOT_NORMAL, sqlite_where=_NOT_NORMAL),
)

#: Checks per minute, kept with the events they count. `writer` keeps two processes off one row; the leader rolls old
#: rows up into those of an hour, then of a day, named after its first minute, whose writer is empty ("").
check_minutes = Table(
    "check_minutes",
    metadata,
    Column("minute", BigInteger, primary_key=True, autoincrement=False),
    Column("code", String(40), primary_key=True),
    Column("valid", Boolean, primary_key=True),
    Column("writer", _ID, primary_key=True),
    Column("count", BigInteger, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("name", String(200), nullable=False),
    Column("token_hash", _HASH, nullable=False, unique=True),
    Column("scopes", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("revoked_at", Double),
    _seq(),
)

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("kid", _HASH, primary_key=True),
    Column("status", String(16), nullable=False),
    Column("jwk_json", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("changed_at", Double, nullable=False),
    _seq(),
)

#: Who beats, who leads, and who led before: `failover` knows their columns.
heartbeats = failover.tables.heartbeats(metadata)
lease = failover.tables.lease(metadata)
failovers = failover.tables.failovers(metadata)

#: What replay found and kept: a conflict (`kind` says which) or an event set aside after its tries (`dead`).
#: `noticed`: the leader has put it into the outbox.
replay_findings = Table(
    "replay_findings",
    metadata,
    Column("event_id", _ID, primary_key=True),
    Column("kind", String(24), primary_key=True),
    Column("license_id", _ID),
    Column("node", String(128), nullable=False),
    Column("found_at", Double, nullable=False),
    Column("data", Text, nullable=False),
    Column("noticed", Boolean, nullable=False, server_default=text("false")),
)

#: One row, the leader's: silence before `since` and after `until` does not count; `looked_at`: its last look.
watch = Table(
    "watch",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("since", Double),
    Column("until", Double, nullable=False),
    Column("looked_at", Double, nullable=False),
    postgresql_with=failover.tables.QUIET,
)

#: What the log says of a license already, once per occurrence; `about`: the moment that tells it from the next one.
notices = Table(
    "notices",
    metadata,
    Column("license_id", _ID, primary_key=True),
    Column("kind", String(40), primary_key=True),
    Column("about", Double, nullable=False),
)

#: Notices for people, in the order of `number`, which only the leader gives. `id` never changes with a retry.
outbox = Table(
    "outbox",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("id", _ID, nullable=False, unique=True),
    Column("kind", String(40), nullable=False),
    Column("license_id", _ID),
    Column("created_at", Double, nullable=False),
    Column("data", Text, nullable=False),
    Column("sent_at", Double),
    Index("ix_outbox_unsent", "number", postgresql_where=_UNSENT, sqlite_where=_UNSENT),
)

#: What each admin call that had an `Idempotency-Key` was answered, for a day and more. `id`: a hash of that key.
#: `answer_json`: without the license key, which `kid` (the signing key) and `salt` give again; `kid` null: it has none.
idempotency_records = Table(
    "idempotency_records",
    metadata,
    Column("id", _HASH, primary_key=True),
    Column("request_hash", _HASH, nullable=False),
    Column("answer_json", Text, nullable=False),
    Column("kid", _HASH),
    Column("salt", String(22), nullable=False),
    Column("created_at", Double, nullable=False, index=True),
)

#: Numbers that the leader's duties go on from, by name.
duty_marks = Table(
    "duty_marks",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
#: The mark under which the events of backup mode and of isolated nodes are counted that retention removed.
REMOVED_NOT_NORMAL = "removed, not normal"
