"""Every statement on the lease, the heartbeats and the failovers, by name, for SQLite and for Postgres.

Time is the database's at the statement: on Postgres `clock_timestamp()`, for `now()` is the transaction's start. There
is no RETURNING, no session setting and no session lock: transaction poolers break the last two.
"""

from __future__ import annotations

from sqlalchemy import TextClause, text

_NOW = {
    True: "((julianday('now') - 2440587.5) * 86400.0)",
    False: "CAST(extract(epoch FROM clock_timestamp()) AS double precision)",
}
_SHARE = {True: "", False: "FOR KEY SHARE"}

#: A plain SELECT: an upsert that does nothing would still lock the row and wait for fenced writers.
WATCH = """
SELECT holder, node, rank, epoch, acquired_at, expires_at, expires_at - @now AS expires_in FROM lease
WHERE name = :name
"""

#: The new expiry is an expression of the update, not EXCLUDED's: this may have waited for a fence.
_ACQUIRE = """
INSERT INTO lease (name, holder, node, rank, epoch, acquired_at, expires_at)
VALUES (:name, :holder, :node, :rank, :epoch, @now, @now + :timeout)
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, node = excluded.node, rank = excluded.rank,
    epoch = excluded.epoch, acquired_at = @now, expires_at = @now + :timeout
WHERE lease.epoch = :epoch_read AND lease.expires_at @over
"""

#: By the database's clock, for one who has not watched the lease.
ACQUIRE = _ACQUIRE.replace("@over", "< @now")

#: By the watcher's own clock: a row that is still the one that it found to be over, whatever the database's clock says.
ACQUIRE_FOUND = _ACQUIRE.replace("@over", "= :expires_at_read")

RENEW = "UPDATE lease SET expires_at = @now + :timeout WHERE name = :name AND holder = :holder AND epoch = :epoch"

#: Word of a change that others wait for: a hint, since a transaction pooler lets no client listen.
CHANNEL = "protecao_lease"
_SAY = {True: "", False: f"NOTIFY {CHANNEL}; "}

#: The row stays, or the epoch would start again. An end that no clock can have given is the sign: a renewal after the
#: database's clock was set back ends before the lease was acquired as well.
RESIGNED = 0.0
RESIGN = """
@say UPDATE lease SET acquired_at = @now, expires_at = 0
WHERE name = :name AND holder = :holder AND epoch = :epoch AND expires_at > 0
"""

HAND_OVER = """
@say UPDATE lease SET holder = :to_holder, node = :node, rank = :rank, epoch = :epoch, acquired_at = @now,
    expires_at = @now + :timeout
WHERE name = :name AND holder = :holder AND epoch = :epoch_read
"""

#: KEY SHARE: ACQUIRE and HAND_OVER change the key (name, epoch) and wait for it, RENEW does not.
FENCE = """
SELECT @now FROM lease WHERE name = :name AND holder = :holder AND epoch = :epoch AND expires_at > @now @share
"""

#: In the transaction that took the lease, so the epoch is the lease's own; a copy restored from a backup may have it.
RECORD = """
INSERT INTO failovers (epoch, at, from_node, to_node, kind, gap_s)
VALUES (:epoch, @now, :from_node, :to_node, :kind, :gap_s) ON CONFLICT (epoch) DO NOTHING
"""

#: The newest by its epoch: the newest by its time may be of a clock that was ahead.
LAST_FAILBACK = "SELECT @now - at FROM failovers WHERE kind = 'failback' ORDER BY epoch DESC LIMIT 1"

BEAT = """
INSERT INTO heartbeats (instance, node, rank, role, state, url, version, started_at, beat_at, applied_seq, queue,
    queue_oldest_at, settings_digest)
VALUES (:instance, :node, :rank, :role, :state, :url, :version, @now, @now, :applied_seq, :queue,
    @now - :queue_oldest_s, :settings_digest)
ON CONFLICT (instance) DO UPDATE SET node = excluded.node, rank = excluded.rank, role = excluded.role,
    state = excluded.state, url = excluded.url, version = excluded.version, beat_at = excluded.beat_at,
    applied_seq = excluded.applied_seq, queue = excluded.queue, queue_oldest_at = excluded.queue_oldest_at,
    settings_digest = excluded.settings_digest
"""

BEATS = """
SELECT instance, node, rank, role, state, url, version, started_at, beat_at, @now - beat_at AS age_s, applied_seq,
    queue, @now - queue_oldest_at AS queue_oldest_s, settings_digest
FROM heartbeats ORDER BY rank, beat_at DESC
"""

FORGET_BEAT = "DELETE FROM heartbeats WHERE instance = :instance AND beat_at = :beat_at"

#: The columns of a beat as `exchange` gives them.
BEAT_COLUMNS = (
    *("instance", "node", "rank", "role", "state", "url", "version", "started_at", "beat_at", "applied_seq", "queue"),
    *("queue_oldest_at", "settings_digest"),
)

#: A plain update: an upsert would lock the row first, which is written to the log as well. The answer is one column,
#: for each column more is described anew every time.
_EXCHANGE = """
UPDATE heartbeats SET node = :node, rank = :rank, role = :role, state = :state, url = :url, version = :version,
    beat_at = @now, applied_seq = :applied_seq, queue = :queue, queue_oldest_at = @now - :queue_oldest_s,
    settings_digest = :settings_digest
WHERE instance = :instance;
SELECT json_build_array(
    @now,
    (SELECT CASE WHEN digest = :digest THEN json_build_array(NULL, moments) ELSE json_build_array(digest, said) END
    FROM (SELECT
        left(encode(sha256(convert_to(coalesce(string_agg(
            (@others, CASE WHEN beat_at <= :silent_until THEN beat_at END)::text, chr(30) ORDER BY instance
        ), ''), 'UTF8')), 'hex'), 32) AS digest,
        json_agg(beat_at ORDER BY instance) FILTER (WHERE beat_at > :silent_until) AS moments,
        json_agg(json_build_array(@columns) ORDER BY instance) AS said
    FROM heartbeats) b),
    (SELECT CASE WHEN holder = :holder AND epoch = :epoch AND acquired_at = :acquired_at
        THEN json_build_array(expires_at)
        ELSE json_build_array(expires_at, holder, node, rank, epoch, acquired_at) END
    FROM lease WHERE name = :name),
    @more
)::text AS heard
"""


def exchange(more: str) -> str:
    """A beat, and what is answered to it; `more`: an expression that gives JSON. For Postgres."""
    others = ", ".join(name for name in BEAT_COLUMNS if name != "beat_at")
    parts = {"@now": _NOW[False], "@others": others, "@columns": ", ".join(BEAT_COLUMNS), "@more": more}
    sql = _EXCHANGE
    for name, part in parts.items():
        sql = sql.replace(name, part)
    return " ".join(sql.split())  # what is sent all day long is sent without its indents


def statement(sql: str, sqlite: bool) -> TextClause:
    """`sql` with the clock and the lock of its dialect."""
    return text(sql.replace("@now", _NOW[sqlite]).replace("@share", _SHARE[sqlite]).replace("@say", _SAY[sqlite]))
