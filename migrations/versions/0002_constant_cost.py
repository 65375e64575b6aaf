"""Two indexes, so that what one license has behind it does not make its decisions cost more.

A decision counts no more of a license's machines than it needs, and the leader finds those to forget.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_index("ix_machines_license_id_created_at", "machines", ["license_id", "created_at"], unique=False)
    gone = sa.text("NOT active")
    op.create_index(
        "ix_machines_gone", "machines", ["created_at"], unique=False, postgresql_where=gone, sqlite_where=gone
    )
