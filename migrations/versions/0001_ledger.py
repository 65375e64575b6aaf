"""The ledger: licenses, machines, the event log, heartbeats, the lease."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "check_minutes",
        sa.Column("minute", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("code", sa.String(length=40), nullable=False),
        sa.Column("valid", sa.Boolean(), nullable=False),
        sa.Column("writer", sa.String(length=36), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("minute", "code", "valid", "writer"),
    )
    op.create_table(
        "events",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("event_id", sa.String(length=36), nullable=False),
        sa.Column("type", sa.String(length=40), nullable=False),
        sa.Column("license_id", sa.String(length=36), nullable=True),
        sa.Column("machine_id", sa.String(length=36), nullable=True),
        sa.Column("node", sa.String(length=128), nullable=False),
        sa.Column("instance", sa.String(length=36), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("mode", sa.String(length=16), nullable=False),
        sa.Column("origin", sa.String(length=36), nullable=True),
        sa.Column("origin_seq", sa.BigInteger(), nullable=True),
        sa.Column("occurred_at", sa.Double(), nullable=False),
        sa.Column("recorded_at", sa.Double(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("event_id"),
    )
    op.create_index("ix_events_license_id_seq", "events", ["license_id", "seq"], unique=False)
    op.create_index(
        "ix_events_not_normal",
        "events",
        ["seq"],
        unique=False,
        postgresql_where=sa.text("mode <> 'normal'"),
        sqlite_where=sa.text("mode <> 'normal'"),
    )
    op.create_table(
        "failovers",
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("from_node", sa.String(length=128), nullable=True),
        sa.Column("to_node", sa.String(length=128), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("gap_s", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("epoch"),
    )
    op.create_table(
        "heartbeats",
        sa.Column("instance", sa.String(length=36), nullable=False),
        sa.Column("node", sa.String(length=128), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("url", sa.String(length=400), nullable=True),
        sa.Column("version", sa.String(length=40), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("beat_at", sa.Double(), nullable=False),
        sa.Column("applied_seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("queue", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("queue_oldest_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("instance"),
    )
    op.create_index("ix_heartbeats_beat_at", "heartbeats", ["beat_at"], unique=False)
    op.create_table(
        "lease",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("holder", sa.String(length=36), nullable=False),
        sa.Column("node", sa.String(length=128), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("acquired_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        sa.UniqueConstraint("name", "epoch"),
    )
    op.create_table(
        "ledger",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("ledger_id", sa.String(length=36), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "log_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "products",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("code", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("code"),
    )
    op.create_index("ix_products_seq", "products", ["seq"], unique=False)
    op.create_table(
        "replay_findings",
        sa.Column("event_id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=24), nullable=False),
        sa.Column("license_id", sa.String(length=36), nullable=True),
        sa.Column("node", sa.String(length=128), nullable=False),
        sa.Column("found_at", sa.Double(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("noticed", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.PrimaryKeyConstraint("event_id", "kind"),
    )
    op.create_table(
        "signing_keys",
        sa.Column("kid", sa.String(length=43), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("jwk_json", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("changed_at", sa.Double(), nullable=False),
        sa.Column("seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("kid"),
    )
    op.create_index("ix_signing_keys_seq", "signing_keys", ["seq"], unique=False)
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("token_hash", sa.String(length=43), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.Column("seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("token_hash"),
    )
    op.create_index("ix_tokens_seq", "tokens", ["seq"], unique=False)
    op.create_table(
        "policies",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("product", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("rules_json", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["product"],
            ["products.code"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_policies_product", "policies", ["product"], unique=False)
    op.create_index("ix_policies_seq", "policies", ["seq"], unique=False)
    op.create_table(
        "licenses",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("policy", sa.String(length=36), nullable=False),
        sa.Column("key_hash", sa.String(length=43), nullable=False),
        sa.Column("key_hint", sa.String(length=4), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=True),
        sa.Column("email", sa.String(length=320), nullable=True),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("max_machines", sa.Integer(), nullable=True),
        sa.Column("max_uses", sa.BigInteger(), nullable=True),
        sa.Column("entitlements_json", sa.Text(), nullable=True),
        sa.Column("metadata_json", sa.Text(), server_default="{}", nullable=False),
        sa.Column("external_ref", sa.String(length=200), nullable=True),
        sa.Column("uses", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("seats", sa.Integer(), server_default="0", nullable=False),
        sa.Column("excess", sa.Integer(), server_default="0", nullable=False),
        sa.Column("checked_in_at", sa.Double(), nullable=True),
        sa.Column("last_seen_at", sa.Double(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["policy"],
            ["policies.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("external_ref"),
        sa.UniqueConstraint("key_hash"),
    )
    op.create_index("ix_licenses_email", "licenses", ["email"], unique=False)
    op.create_index("ix_licenses_key_hint", "licenses", ["key_hint"], unique=False)
    op.create_index("ix_licenses_policy", "licenses", ["policy"], unique=False)
    op.create_index("ix_licenses_seq", "licenses", ["seq"], unique=False)
    op.create_table(
        "machines",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("license_id", sa.String(length=36), nullable=False),
        sa.Column("fingerprint", sa.String(length=128), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=True),
        sa.Column("platform", sa.String(length=200), nullable=True),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("excess", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("heartbeat_at", sa.Double(), nullable=True),
        sa.Column("last_seen_at", sa.Double(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("seat_at", sa.Double(), nullable=True),
        sa.Column("culled", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["license_id"], ["licenses.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("license_id", "fingerprint"),
    )
    op.create_index("ix_machines_seq", "machines", ["seq"], unique=False)
    op.create_table(
        "watch",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("since", sa.Double(), nullable=True),
        sa.Column("until", sa.Double(), nullable=False),
        sa.Column("looked_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "notices",
        sa.Column("license_id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("about", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("license_id", "kind"),
    )
    op.create_table(
        "outbox",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("license_id", sa.String(length=36), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("sent_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("number"),
        sa.UniqueConstraint("id"),
    )
    op.create_index(
        "ix_outbox_unsent",
        "outbox",
        ["number"],
        unique=False,
        postgresql_where=sa.text("sent_at IS NULL"),
        sqlite_where=sa.text("sent_at IS NULL"),
    )
    op.create_table(
        "duty_marks",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(_RECORD)


# A function's plans are kept by the server's process, also behind a transaction pooler, which prepared statements are
# not: planning the same statements anew cost four times what they do.
_RECORD = """
CREATE FUNCTION record_batch(
    events_ json, tallies_ json, writer_ text, touches_ json, licenses_ json, machines_ json, findings_ json
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    before bigint;
    last bigint;
BEGIN
    IF tallies_ IS NOT NULL THEN
        INSERT INTO check_minutes AS c (minute, code, valid, writer, count)
        SELECT x.minute, x.code, x.valid, writer_, x.count
        FROM json_to_recordset(tallies_) AS x(minute bigint, code text, valid bool, count bigint)
        ON CONFLICT (minute, code, valid, writer) DO UPDATE SET count = c.count + EXCLUDED.count;
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
    END IF;
    IF events_ IS NULL THEN
        RETURN;
    END IF;
    -- Counted once: as a term of the INSERT the whole array would be parsed again for every row.
    UPDATE log_head SET seq = seq + json_array_length(events_) WHERE id = 1 RETURNING seq INTO last;
    before := last - json_array_length(events_);
    IF licenses_ IS NOT NULL THEN
        UPDATE licenses l SET expires_at = x.expires_at, uses = x.uses, seats = x.seats, excess = x.excess,
            checked_in_at = x.checked_in_at, last_seen_at = x.last_seen_at, seq = last
        FROM json_to_recordset(licenses_) AS x(id text, expires_at float8, uses bigint, seats int, excess int,
            checked_in_at float8, last_seen_at float8)
        WHERE l.id = x.id;
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
    END IF;
    INSERT INTO events (seq, event_id, type, license_id, machine_id, node, instance, epoch, mode, occurred_at,
        recorded_at, data, origin, origin_seq)
    SELECT before + x.i, x.event_id, x.type, x.license_id, x.machine_id, x.node,
        x.instance, x.epoch, x.mode, x.occurred_at, extract(epoch FROM clock_timestamp())::float8, x.data::text,
        x.origin, x.origin_seq
    FROM ROWS FROM (json_to_recordset(events_) AS (event_id text, type text, license_id text, machine_id text,
        node text, instance text, epoch bigint, mode text, occurred_at float8, data json, origin text,
        origin_seq bigint))
        WITH ORDINALITY AS x(event_id, type, license_id, machine_id, node, instance, epoch, mode, occurred_at, data,
        origin, origin_seq, i);
END
$$
"""
