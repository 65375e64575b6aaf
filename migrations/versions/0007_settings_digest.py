"""A digest of what all nodes must have alike, in their heartbeats: each node sees which of them differ.

An older node writes none, and none is compared with it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("heartbeats", sa.Column("settings_digest", sa.Text(), nullable=True))
