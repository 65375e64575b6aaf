"""What is written is counted: a trigger or a rule that keeps rows out makes an error, not an answer.

Nodes of an earlier release call the same function. To them its error is that of a database that cannot do its work:
their calls go to the queue as well.
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(_REQUIRE)
        op.execute(_RECORD)


_REQUIRE = """
CREATE FUNCTION require_kept(table_ text, kept_ bigint, meant_ bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF kept_ IS DISTINCT FROM meant_ THEN
        RAISE EXCEPTION '% of % rows were written to %', coalesce(kept_, 0), meant_, table_ USING ERRCODE = 'PR001';
    END IF;
END
$$
"""

# What a rule turns into nothing has no plan that could go stale: a session that met it once would go on doing nothing
# after the rule is gone. As a part of a WITH, like an ON CONFLICT, it is an error instead.
_RECORD = """
CREATE OR REPLACE FUNCTION record_batch(
    events_ json, tallies_ json, writer_ text, touches_ json, licenses_ json, machines_ json, findings_ json
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    before bigint;
    last bigint;
    kept bigint;
BEGIN
    IF tallies_ IS NOT NULL THEN
        INSERT INTO check_minutes AS c (minute, code, valid, writer, count)
        SELECT x.minute, x.code, x.valid, writer_, x.count
        FROM json_to_recordset(tallies_) AS x(minute bigint, code text, valid bool, count bigint)
        ON CONFLICT (minute, code, valid, writer) DO UPDATE SET count = c.count + EXCLUDED.count;
        GET DIAGNOSTICS kept = ROW_COUNT;
        PERFORM require_kept('check_minutes', kept, json_array_length(tallies_));
    END IF;
    -- A touch that would have to wait for a lock is left out: the next check brings another.
    IF touches_ IS NOT NULL THEN
        UPDATE licenses l SET last_seen_at = x.at
        FROM json_to_recordset(touches_) AS x(license_id text, at float8)
        WHERE l.id = x.license_id AND l.id IN (SELECT id FROM licenses WHERE id IN (
            SELECT t.license_id FROM json_to_recordset(touches_) AS t(license_id text)) FOR UPDATE SKIP LOCKED);
        UPDATE machines m SET last_seen_at = x.at
        FROM json_to_recordset(touches_) AS x(machine_id text, at float8)
        WHERE m.id = x.machine_id AND m.id IN (SELECT id FROM machines WHERE id IN (
            SELECT t.machine_id FROM json_to_recordset(touches_) AS t(machine_id text)) FOR UPDATE SKIP LOCKED);
    END IF;
    IF findings_ IS NOT NULL THEN
        INSERT INTO replay_findings (event_id, kind, license_id, node, found_at, data)
        SELECT x.event_id, x.kind, x.license_id, x.node, x.found_at, x.data::text
        FROM json_to_recordset(findings_) AS x(event_id text, kind text, license_id text, node text,
            found_at float8, data json)
        ON CONFLICT DO NOTHING;
        -- Those that were there before count as well.
        SELECT count(*) INTO kept FROM json_to_recordset(findings_) AS x(event_id text, kind text)
        JOIN replay_findings f ON f.event_id = x.event_id AND f.kind = x.kind;
        PERFORM require_kept('replay_findings', kept, json_array_length(findings_));
    END IF;
    IF events_ IS NULL THEN
        RETURN;
    END IF;
    -- Counted once: as a term of the INSERT the whole array would be parsed again for every row.
    UPDATE log_head SET seq = seq + json_array_length(events_) WHERE id = 1 RETURNING seq INTO last;
    GET DIAGNOSTICS kept = ROW_COUNT;
    PERFORM require_kept('log_head', kept, 1);
    before := last - json_array_length(events_);
    IF licenses_ IS NOT NULL THEN
        WITH written AS (
            UPDATE licenses l SET expires_at = x.expires_at, uses = x.uses, seats = x.seats, excess = x.excess,
                checked_in_at = x.checked_in_at, last_seen_at = x.last_seen_at, seq = last
            FROM json_to_recordset(licenses_) AS x(id text, expires_at float8, uses bigint, seats int, excess int,
                checked_in_at float8, last_seen_at float8)
            WHERE l.id = x.id RETURNING 1
        ) SELECT count(*) INTO kept FROM written;
        PERFORM require_kept('licenses', kept, json_array_length(licenses_));
        INSERT INTO machines (id, license_id, fingerprint, name, platform, active, excess, heartbeat_at,
            last_seen_at, created_at, seat_at, culled, seq)
        SELECT x.id, x.license_id, x.fingerprint, x.name, x.platform, x.active, x.excess, x.heartbeat_at,
            x.last_seen_at, x.created_at, x.seat_at, x.culled, last
        FROM json_to_recordset(machines_) AS x(id text, license_id text, fingerprint text, name text,
            platform text, active bool, excess bool, heartbeat_at float8, last_seen_at float8, created_at float8,
            seat_at float8, culled bool)
        ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name, platform = EXCLUDED.platform,
            active = EXCLUDED.active, excess = EXCLUDED.excess, heartbeat_at = EXCLUDED.heartbeat_at,
            created_at = CASE machines.created_at WHEN 0 THEN EXCLUDED.created_at ELSE machines.created_at END,
            last_seen_at = EXCLUDED.last_seen_at, seat_at = EXCLUDED.seat_at, culled = EXCLUDED.culled,
            seq = EXCLUDED.seq;
        GET DIAGNOSTICS kept = ROW_COUNT;
        PERFORM require_kept('machines', kept, json_array_length(machines_));
    END IF;
    WITH written AS (
        INSERT INTO events (seq, event_id, type, license_id, machine_id, node, instance, epoch, mode, occurred_at,
            recorded_at, data, origin, origin_seq)
        SELECT before + x.i, x.event_id, x.type, x.license_id, x.machine_id, x.node,
            x.instance, x.epoch, x.mode, x.occurred_at, extract(epoch FROM clock_timestamp())::float8, x.data::text,
            x.origin, x.origin_seq
        FROM ROWS FROM (json_to_recordset(events_) AS (event_id text, type text, license_id text, machine_id text,
            node text, instance text, epoch bigint, mode text, occurred_at float8, data json, origin text,
            origin_seq bigint))
            WITH ORDINALITY AS x(event_id, type, license_id, machine_id, node, instance, epoch, mode, occurred_at,
            data, origin, origin_seq, i)
        RETURNING 1
    ) SELECT count(*) INTO kept FROM written;
    PERFORM require_kept('events', kept, json_array_length(events_));
END
$$
"""
