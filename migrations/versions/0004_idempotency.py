"""Idempotency records: what an admin's call was answered, for its retries on whichever node.

Nodes of an earlier release do not know the table and lose nothing by it: they take no `Idempotency-Key`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "idempotency_records",
        sa.Column("id", sa.String(length=43), nullable=False),
        sa.Column("request_hash", sa.String(length=43), nullable=False),
        sa.Column("answer_json", sa.Text(), nullable=False),
        sa.Column("kid", sa.String(length=43), nullable=True),
        sa.Column("salt", sa.String(length=22), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_idempotency_records_created_at", "idempotency_records", ["created_at"], unique=False)
